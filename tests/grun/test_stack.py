"""Requests in sequence: trained on top of each other, combined, removed, saved; what cannot stand is refused."""

import json

import pytest
import torch

from eval.errors import ArtifactError, ConfigError, UnknownNameError
from eval.models import GenerationOptions, LanguageModel
from eval.types import Example
from grun.loading import attach
from grun.model import EditedModel
from grun.stack import EditStack
from grun.stack_files import MANIFEST_FILE

SHORT = GenerationOptions(max_new_tokens=12)
FAST = {
    "positions": "last_prompt",
    "learning_rate": 3e-2,
    "gate_fit_steps": 200,
    "gate_rounds": 1,
    "min_steps": 25,
    "batch_size": 4,
}
PEOPLE = {"Ada": ("Rome", "cat"), "Ben": ("Oslo", "dog"), "Cleo": ("Lima", "owl"), "Dan": ("Cairo", "fox")}
PEOPLE |= {
    "Eve": ("Quito", "hen"),
    "Finn": ("Dakar", "pig"),
    "Gus": ("Hanoi", "cow"),
    "Hal": ("Perth", "ant"),
}


@torch.no_grad()
def _logits(lm, batch):
    return lm.answer_logits(batch)


def _batch(lm, examples):
    return lm.collate(lm.encode(examples, [example.answer for example in examples]))


@pytest.fixture(scope="module")
def facts() -> dict[str, list[Example]]:
    """Two facts of each person."""
    return {
        name: [
            Example(
                id=f"{name}-place", question=f"Where was {name} born?", answer=f"{name} was born in {place}."
            ),
            Example(
                id=f"{name}-pet", question=f"Which pet does {name} keep?", answer=f"{name} keeps a pet {pet}."
            ),
        ]
        for name, (place, pet) in PEOPLE.items()
    }


@pytest.fixture(scope="module")
def taught(facts) -> LanguageModel:
    """A model of two blocks that knows every fact."""
    from eval.models.finetune import FinetuneSettings, finetune
    from eval.models.scratch import build

    rows = [row for group in facts.values() for row in group]
    lm = build("tiny", [text for row in rows for text in (row.question, row.answer)])
    finetune(lm, rows, FinetuneSettings(epochs=150, batch_tokens=512, lr=1e-2))
    assert _known(lm, rows) == len(rows)
    return lm


def _known(lm, rows):
    texts = lm.generate([row.question for row in rows], SHORT)
    return sum(text.text == row.answer for text, row in zip(texts, rows, strict=True))


def test_removing_a_request_restores_it_and_leaves_the_others_forgotten(taught, facts, tmp_path):
    requests = {"request-1": facts["Ada"], "request-2": facts["Ben"], "request-3": facts["Cleo"]}
    kept = [row for name in ("Dan", "Eve", "Finn", "Gus", "Hal") for row in facts[name]]
    stack = EditStack(taught)
    earlier: list[Example] = []
    for name, forget in requests.items():
        later = [row for other in list(requests)[len(stack) + 1 :] for row in requests[other]]
        stack.train(
            name,
            forget=forget,
            retain=[*kept, *later],
            background=[row.replace(answer=None) for row in earlier],
            loss="idk",
            refusals=["I do not know."],
            overrides=FAST,
        )
        earlier += forget
        assert [_known(stack, rows) for rows in requests.values()] == [0] * len(stack) + [2] * (
            3 - len(stack)
        )
        assert _known(stack, kept) == len(kept)
    gates = stack.gate([row.question for row in (*facts["Ben"], *kept)])
    assert list(gates) == list(requests)
    assert gates["request-2"][:2].min() > 0.9
    assert gates["request-2"][2:].max() < 0.1
    assert gates["request-1"][2:].max() < 0.1

    stack.save(tmp_path)
    for gone in requests:
        changed = attach(taught, tmp_path)
        removed = changed.remove(gone)
        expected = {name: 2 if name == gone else 0 for name in requests}
        assert {name: _known(changed, rows) for name, rows in requests.items()} == expected
        assert _known(changed, kept) == len(kept)
        with stack.without(gone):
            assert {name: _known(stack, rows) for name, rows in requests.items()} == expected
        if gone == "request-1":
            changed.add("back", removed)
            assert _known(changed, requests[gone]) == 0
    assert [_known(taught, rows) for rows in requests.values()] == [2, 2, 2]


def test_a_stack_of_one_is_that_edit_and_an_empty_one_the_base(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    batch = _batch(lm, examples[:3])
    stack = EditStack(lm)
    assert torch.equal(_logits(stack, batch), _logits(lm, batch))
    stack.add("one", edited)
    assert torch.equal(_logits(stack, batch), _logits(edited, batch))
    assert (stack.kind, stack.names, len(stack), "one" in stack) == ("edit", ["one"], 1, True)
    assert stack.trainable_parameters == edited.trainable_parameters
    with stack.edit_disabled():
        assert torch.equal(_logits(stack, batch), _logits(lm, batch))
        assert not stack.gate(["Who?"])["one"].any()
    assert stack.list() == [
        {"name": "one", "layers": [0, 1, 2, 3], "rank": 4, "gate": "linear", "positions": "last_prompt"}
        | {"parameters": edited.trainable_parameters}
    ]


def test_the_state_digest_follows_every_edit(make_lm, loud):
    lm = make_lm()
    edited = loud(lm, layers=(0, 1))
    digest = edited.state_digest
    assert digest not in (None, lm.state_digest, loud(lm, layers=(0, 2)).state_digest)
    assert loud(make_lm(), layers=(0, 1)).state_digest == digest
    stack = EditStack(lm)
    empty = stack.state_digest
    stack.add("one", edited)
    one = stack.state_digest
    assert len({empty, one, digest}) == 3
    next(edited.edits.parameters()).data.add_(1e-3)
    assert edited.state_digest != digest
    assert stack.state_digest != one


def test_sequential_edits_read_what_earlier_ones_left(make_lm, loud, examples):
    """Equal to edits put on each other by hand, whichever way each was trained."""
    lm = make_lm()
    batch = _batch(lm, examples[:3])
    first = loud(lm, layers=(1,), seed=3)
    second = loud(first, layers=(1, 2), positions="prompt", seed=4)
    stack = EditStack(lm)
    stack.add("a", first)
    stack.add("b", second)
    assert torch.equal(_logits(stack, batch), _logits(second, batch))
    assert stack.generate(["Who is it?"], SHORT) == second.generate(["Who is it?"], SHORT)
    assert stack["b"].base is lm, "a later edit must not bring the earlier ones with it"
    stack.remove("a")
    assert not torch.equal(_logits(stack, batch), _logits(second, batch))


def test_the_paper_composition_by_hand(make_lm, loud, examples):
    lm = make_lm()
    edits = [loud(lm, layers=(3,), seed=seed) for seed in (3, 4)]
    stack = EditStack(lm, composition="paper")
    for i, edit in enumerate(edits):
        stack.add(f"request-{i}", edit)
    batch = _batch(lm, examples[:1])
    seen: list[torch.Tensor] = []
    handle = lm.model.model.layers[3].register_forward_hook(lambda m, a, out: seen.append(out))
    _logits(lm, batch)
    handle.remove()
    hidden = seen[0][0, int(batch.prompt_end[0]) - 1].double()
    expected = hidden.clone()
    for edit in edits:
        part = edit.edits["3"].double()
        r = torch.linalg.qr(part.basis).Q
        gate = torch.sigmoid(part.gate.weight @ (hidden / hidden.square().mean().sqrt()) + part.gate.bias)
        expected += 1.8 * gate * (r @ (part.weight @ hidden + part.bias - r.T @ hidden))
        part.float()
    logits = lm.model.lm_head(lm.model.model.norm(expected.float()))
    torch.testing.assert_close(_logits(stack, batch)[0], logits, rtol=1e-3, atol=1e-3)
    assert list(stack.gate(["Who?"])) == ["request-0", "request-1"]


def test_rows_choose_their_requests(make_lm, loud, examples):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("a", loud(lm, seed=3))
    stack.add("b", loud(lm, seed=4))
    batch = _batch(lm, examples[:3])

    def whole(model):
        with torch.enable_grad():
            return model.answer_logits(batch).detach()

    with stack.without("b"):
        only_a = whole(stack)
    both, plain = whole(stack), whole(lm)
    rows = {"a": torch.tensor([True, True, False]), "b": torch.tensor([False, True, False])}
    with stack.activate(batch.prompt_end, rows=rows):
        mixed = whole(lm)
    for row, expected in enumerate((only_a, both, plain)):
        chosen = batch.rows == row
        torch.testing.assert_close(mixed[chosen], expected[chosen], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(only_a, both)
    with (
        pytest.raises(UnknownNameError, match="Unknown request 'c'"),
        stack.activate(batch.prompt_end, rows={"c": rows["a"]}),
    ):
        pass


def test_save_keeps_what_is_there_and_survives_an_interruption(
    make_lm, loud, examples, tmp_path, monkeypatch
):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("Request 1: Jane/Doe", loud(lm, seed=3))
    stack.add("../evil", loud(lm, seed=4, gate="phrase", positions="answer"))
    stack.save(tmp_path / "stack")
    folders = sorted((tmp_path / "stack" / "edits").iterdir())
    assert len(folders) == 2
    assert {path.parent.parent for path in folders} == {tmp_path / "stack"}
    stamps = [(folder / "grun.safetensors").stat().st_mtime_ns for folder in folders]
    again = attach(make_lm(), tmp_path / "stack")
    batch = _batch(lm, examples[:3])
    assert isinstance(again, EditStack)
    assert again.names == stack.names
    assert torch.equal(_logits(again, batch), _logits(stack, batch))

    stack.add("third", loud(lm, seed=5))
    from grun import stack as module

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", dies)
        with pytest.raises(KeyboardInterrupt):
            stack.save(tmp_path / "stack")
    assert attach(lm, tmp_path / "stack").names == again.names
    stack.save(tmp_path / "stack")
    assert attach(lm, tmp_path / "stack").names == stack.names
    assert [(folder / "grun.safetensors").stat().st_mtime_ns for folder in folders] == stamps

    stack.remove("../evil")
    stack.save(tmp_path / "stack")
    assert attach(lm, tmp_path / "stack").names == ["Request 1: Jane/Doe", "third"]
    assert len(list((tmp_path / "stack" / "edits").iterdir())) == 2


def test_names_bases_and_positions_that_cannot_stand_are_refused(make_lm, loud):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("a", loud(lm))
    with pytest.raises(ConfigError, match="holds a request 'a' already"):
        stack.add("a", loud(lm, seed=4))
    with pytest.raises(ConfigError, match="holds a request 'a' already"):
        stack.train("a", forget=[], retain=[])
    with pytest.raises(ConfigError, match="needs a name"):
        stack.add(" ", loud(lm))
    with pytest.raises(ConfigError, match="on another model"):
        stack.add("b", loud(make_lm()))
    with pytest.raises(UnknownNameError, match="Unknown request 'b'"):
        stack.remove("b")
    with pytest.raises(ConfigError, match="Unknown composition"):
        EditStack(lm, composition="sum")
    paper = EditStack(lm, composition="paper")
    paper.add("a", loud(lm))
    with pytest.raises(ConfigError, match="there would be last_prompt, prompt"):
        paper.add("b", loud(lm, positions="prompt"))
    with (
        pytest.raises(ConfigError, match="has no row masks"),
        paper.activate(torch.tensor([3]), rows={"a": torch.tensor([True])}),
    ):
        pass


def test_broken_stacks_are_refused(make_lm, loud, tmp_path):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("a", loud(lm))
    stack.save(tmp_path)
    manifest = tmp_path / MANIFEST_FILE
    whole = manifest.read_text()
    entry = json.loads(whole)["edits"][0]
    for change, says in (
        ({"edits": [entry, entry]}, "names the request 'a' twice"),
        ({"edits": [{**entry, "folder": "../elsewhere"}]}, "no folder of a stack"),
        ({"edits": [{**entry, "folder": "edits/gone"}]}, "holds no grun_config.json"),
        ({"edits": [{"name": "a"}]}, "lacks 'folder'"),
        ({"schema_version": 9}, "schema version 9"),
        ({"format": "lora"}, "not a stack"),
        ({"composition": "product"}, "'product'"),
    ):
        manifest.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(ArtifactError, match=says):
            attach(lm, tmp_path)
    manifest.write_text(whole[:40])
    with pytest.raises(ArtifactError, match="not valid JSON"):
        attach(lm, tmp_path)


def test_an_edit_of_a_stack_attaches_alone(make_lm, loud, tmp_path):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("a", loud(lm))
    stack.save(tmp_path)
    (folder,) = (tmp_path / "edits").iterdir()
    assert isinstance(attach(make_lm(), folder), EditedModel)
