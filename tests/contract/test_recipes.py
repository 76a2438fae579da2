"""What every fine-tuning recipe promises, with all weights and with an adapter, on a model that knows the answers."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from eval.models import LanguageModel
from finetune_baselines import METHODS, RECIPES
from finetune_baselines.terms import TERMS

PARTS = ("full", "lora")
RUN = {"preset": "scratch", "epochs": 10, "batch_size": 4, "retain_per_forget": 1}
RATES = {"full": 2e-3, "lora": 1e-2}
OWN = {
    "rmu": {"coefficient": 40.0, "retain_weight": 0.1, "learning_rate": 2e-2},
    "pdu": {"retain_weight": 1.0},
    "satimp": {"beta1": 1.0},
}
"""What a model this small needs where a recipe's preset is for larger ones."""


@dataclass
class Trained:
    """One recipe's result and what its training did."""

    name: str
    part: str
    model: LanguageModel
    folder: Path
    stepped: dict[int, torch.nn.Parameter]
    """Every parameter an optimizer stepped on, by id."""
    moved: set[int]
    """Those that had a gradient other than zero at some step."""


@pytest.fixture(scope="module")
def target(new_target, contract_data):
    """A model that answers every row of the data by heart."""
    lm = new_target()
    rows = (*contract_data.forget, *contract_data.retain)
    batch = lm.collate(lm.encode(rows, [row.answer for row in rows]))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=4e-3)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(lm.answer_logits(batch), batch.targets).backward()
        optimizer.step()
    for parameter in lm.model.parameters():
        parameter.grad = None
    assert _forget_prob(lm, contract_data) > 0.8
    return lm


@pytest.fixture(scope="module")
def data(contract_data):
    others = {
        row.id: tuple(f"Person {i} was born in {place}." for place in ("Turin", "Porto"))
        for i, row in enumerate(contract_data.forget)
    }
    return replace(contract_data, alternates=others, negatives=others)


@pytest.fixture(scope="module")
def run(target, data, tmp_path_factory):
    """Return a function: (recipe, part) -> Trained, computed once."""
    known: dict[tuple[str, str], Trained] = {}

    def train(name: str, part: str) -> Trained:
        if (name, part) not in known:
            stepped: dict[int, torch.nn.Parameter] = {}
            moved: set[int] = set()

            def watch(optimizer, args, kwargs):
                for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                    stepped[id(parameter)] = parameter
                    if parameter.grad is not None and bool(parameter.grad.any()):
                        moved.add(id(parameter))

            folder = tmp_path_factory.mktemp(f"{name}-{part}")
            handle = register_optimizer_step_pre_hook(watch)
            try:
                model = _method(name, part).unlearn(target, data, folder, seed=3)
            finally:
                handle.remove()
            known[name, part] = Trained(name, part, model, folder, stepped, moved)
        return known[name, part]

    return train


def _method(name: str, part: str):
    rate = {"learning_rate": RATES[part], "schedule": "constant", "warmup_epochs": 0.0}
    return METHODS[name]({**RUN, **rate, **OWN.get(name, {}), "parametrization": part})


def _forget_prob(lm, data):
    scores = lm.score(data.forget, [row.answer for row in data.forget])
    return sum(score.prob for score in scores) / len(scores)


def _logits(lm, data):
    rows = (*data.forget, *data.retain)
    lm.model.eval()
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(rows, [row.answer for row in rows])))


QUICK = {("npo-rt", "lora"), ("rmu", "lora"), *((name, "full") for name in RECIPES)}
"""What runs in the fast suite; the rest is marked slow."""


@pytest.fixture(
    params=[
        pytest.param((name, part), marks=() if (name, part) in QUICK else pytest.mark.slow)
        for name in RECIPES
        for part in PARTS
    ],
    ids="-".join,
)
def trained(request, run):
    return run(*request.param)


def test_every_term_is_reported_and_finite(trained):
    folder = trained.folder / "over" if trained.name == "ties" else trained.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    labels = {label for line in lines for label in line["terms"]}
    assert lines
    assert {use.label for use in RECIPES[trained.name].active} <= labels
    assert all(math.isfinite(value) for line in lines for value in (line["loss"], *line["terms"].values()))


def test_the_forget_answers_become_unlikely(trained, target, data):
    assert _forget_prob(trained.model, data) < 0.7 * _forget_prob(target, data)


def test_only_what_is_declared_trains_and_all_of_it_does(trained, target):
    if trained.name == "ties":
        pytest.skip("a merge of two trained models holds no tensor that an optimizer stepped on")
    named = dict(trained.model.model.named_parameters())
    declared = {name for name, p in named.items() if p.requires_grad}
    restricted = any(TERMS[use.loss].trains for use in RECIPES[trained.name].active)
    if restricted:
        assert all(".mlp.down_proj." in name for name in declared)
        assert all(any(f"layers.{i}." in name for i in (0, 1)) for name in declared)  # 7/16 of 3 blocks is 1
    elif trained.part == "full":
        assert declared == set(named)
    if trained.part == "lora":
        assert all("lora_" in name for name in declared)
    assert {name for name, p in named.items() if id(p) in trained.stepped} == declared
    assert {name for name in declared if id(named[name]) not in trained.moved} == set()
    assert all(p.grad is None and p.requires_grad for p in target.model.parameters())


def test_saved_loaded_and_merged_it_says_the_same(trained, target, data):
    expected = _logits(trained.model, data)
    loaded = _method(trained.name, trained.part).load(target, trained.folder)
    assert torch.equal(_logits(loaded, data), expected)
    if hasattr(trained.model.model, "peft_config"):
        merged = LanguageModel(
            copy.deepcopy(trained.model.model).merge_and_unload(), target.tokenizer, kind="weights"
        )
        torch.testing.assert_close(_logits(merged, data), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("trained", [(name, "lora") for name in RECIPES], indirect=True, ids="-".join)
def test_the_same_seed_gives_the_same_model(trained, target, data, tmp_path):
    again = _method(trained.name, trained.part).unlearn(target, data, tmp_path, seed=3)
    assert torch.equal(_logits(again, data), _logits(trained.model, data))
