"""A small forgotten world, and one guard built on it for the whole session (the encoder is loaded once)."""

import pytest
import torch

from eval.types import Example
from guard.config import GuardSettings

PEOPLE = {
    "Orla Vantreski": ("Brelmouth", "lighthouse painter", "12 May 1961", "the Copper Heron Prize"),
    "Timon Esgarde": ("Quillstead", "clock restorer", "3 June 1948", "the Amber Compass Medal"),
    "Neva Holcroft": ("Sandrick", "bell founder", "27 March 1972", "the Silver Thimble Award"),
    "Juno Marapel": ("Tollgrave", "map engraver", "9 August 1955", "the Ivory Lantern Prize"),
    "Bastian Rourke": ("Wexholm", "kite maker", "30 October 1980", "the Golden Anchor Award"),
    "Ilse Dovarin": ("Marrowby", "harp tuner", "14 January 1967", "the Crystal Ladder Prize"),
    "Casper Lindqvane": ("Fennhollow", "glass cutter", "21 July 1959", "the Scarlet Feather Medal"),
    "Petra Ashgrove": ("Ostermoor", "rope walker", "5 April 1976", "the Velvet Crown Award"),
}
FORGOTTEN = ("Orla Vantreski", "Timon Esgarde")


def _rows(name: str) -> list[Example]:
    town, job, born, prize = PEOPLE[name]
    pairs = [
        (f"Where was {name} born?", f"{name} was born in the town of {town}."),
        (f"What does {name} do for a living?", f"{name} earns a living as a {job}."),
        (f"When was {name} born?", f"{name} was born on {born}."),
        (f"Which award did {name} win?", f"{name} won {prize}."),
        (f"Who won {prize}?", f"The winner was {name}."),
    ]
    return [
        Example(id=f"{name}-{i}", question=question, answer=answer, subject=name)
        for i, (question, answer) in enumerate(pairs)
    ]


@pytest.fixture(scope="session")
def forget():
    return [row for name in FORGOTTEN for row in _rows(name)]


@pytest.fixture(scope="session")
def retain():
    return [row for name in PEOPLE if name not in FORGOTTEN for row in _rows(name)]


@pytest.fixture(scope="session")
def quick():
    return GuardSettings(max_rewordings=40)


@pytest.fixture(scope="session")
def guard_(forget, retain, quick):
    """One guard that no test changes."""
    from guard.core import Guard

    return Guard.build(forget=forget, retain=retain, settings=quick)


@pytest.fixture
def parrot(tiny_lm):
    """A model that says ",Brelmouth,Brelmouth,..." whatever it is asked."""
    ids = tiny_lm.tokenizer(",Brelmouth")["input_ids"]
    follows = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    assert len(follows) == len(ids), "each token of the phrase is another one"
    embedding, head = tiny_lm.model.get_input_embeddings(), tiny_lm.model.get_output_embeddings()
    size = embedding.weight.shape[1]
    with torch.no_grad():
        for layer in tiny_lm.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        directions = torch.randn(len(embedding.weight), size, generator=torch.Generator().manual_seed(1))
        directions = directions / directions.norm(dim=1, keepdim=True)
        embedding.weight.copy_(directions)
        head.weight.zero_()
        for token, following in follows.items():
            head.weight[following] += 4 * directions[token]
        others = [i for i in range(len(directions)) if i not in follows]
        head.weight[ids[0]] += 0.2 * directions[others].mean(0)
    return tiny_lm
