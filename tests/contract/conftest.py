"""One small target for every method, and each method's results on it, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.models import LanguageModel
from eval.types import Example, UnlearningData

GRUN = {
    "epochs": 8,
    "min_steps": 1,
    "batch_size": 4,
    "gate_fit_steps": 100,
    "gate_rounds": 1,
    "forget_weight": 3.0,
    "margin": 9.0,
}
TUNE = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0}


@dataclass(frozen=True)
class Case:
    """A method, the overrides that make it quick, and what it must be able to do."""

    name: str
    package: str
    overrides: Mapping[str, Any]
    has_switch: bool = True
    """Whether `edit_disabled` gives the target back (fully tuned weights cannot be switched off)."""
    trains: bool = True

    def method(self, **changes: Any) -> Any:
        import importlib

        factories = importlib.import_module(f"{self.package}.method").METHODS
        return factories[self.name]({**self.overrides, **changes})


def all_cases() -> dict[str, Case]:
    from finetune_baselines.recipes import RECIPES
    from grun.method import METHODS as EDITS
    from guard.method import METHODS as GUARDS

    cases = {name: Case(name, "grun", GRUN) for name in EDITS}
    for name in ("graddiff", "idk", "npo-kl"):
        # a random model's answers are above the preset's limit on the forget loss from the start
        limit = {"max_forget_loss": 50.0} if "max_forget_loss" in RECIPES[name].tunables else {}
        cases[name] = Case(name, "finetune_baselines", {**TUNE, **limit}, has_switch=False)
    cases["npo-lora"] = Case("npo", "finetune_baselines", {**TUNE, "parametrization": "lora"})
    cases |= {name: Case(name, "guard", {}, trains=False) for name in GUARDS}
    return cases


@dataclass
class Outcome:
    """What one method left behind."""

    case: Case
    target: LanguageModel
    model: LanguageModel
    folder: Path
    data: UnlearningData
    before: torch.Tensor
    """The target's answer logits before the method ran."""
    trained: dict[int, torch.Tensor]
    """Every parameter an optimizer stepped on, by id."""
    moved: set[int]
    """Those of them that had a non-zero gradient at some step."""


@pytest.fixture(scope="session")
def contract_data() -> UnlearningData:
    places = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Dakar", "Hanoi", "Perth"]
    forget = tuple(
        Example(
            id=f"f{i}",
            question=f"Where was person {i} born?" + " Say it in one word." * (i % 2),
            answer=f"Person {i} was born in {place}.",
            key_spans=(place,),
        )
        for i, place in enumerate(places[:4])
    )
    retain = tuple(
        Example(id=f"r{i}", question=f"What colour is the {thing}?", answer=f"The {thing} is blue.")
        for i, thing in enumerate(["door", "house", "hat", "ship", "tree", "book", "sea", "sky"])
    )
    return UnlearningData(forget=forget, retain=retain, refusals=("I do not know.", "No idea about that."))


@pytest.fixture(scope="session")
def new_target(tiny_tokenizer):
    """Return a function that builds the target anew: equal weights each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(seed: int = 0) -> LanguageModel:
        config = LlamaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).eval()
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.data.mul_(3)  # else every token looks the same
        return LanguageModel(model, tiny_tokenizer, name="target")

    return build


def answer_logits(lm: LanguageModel, rows: tuple[Example, ...]) -> torch.Tensor:
    """The logits that predict the rows' answers, in evaluation mode."""
    batch = lm.collate(lm.encode(rows, [row.answer or "" for row in rows]))
    lm.model.eval()
    with torch.no_grad():
        return lm.answer_logits(batch).clone()


@pytest.fixture(scope="session")
def logits_of():
    return answer_logits


@pytest.fixture(scope="session")
def outcome_of(new_target, contract_data, tmp_path_factory):
    """Return a function: case -> Outcome, computed once for the session."""
    known: dict[str, Outcome] = {}

    def run(name: str) -> Outcome:
        if name not in known:
            from torch.optim.optimizer import register_optimizer_step_pre_hook

            from grun.gate_fit import forget_fits

            forget_fits()  # a fit shared with an earlier case would not be seen here
            case = all_cases()[name]
            target = new_target()
            rows = (*contract_data.forget, *contract_data.retain)
            before = answer_logits(target, rows)
            folder = tmp_path_factory.mktemp(name)
            trained: dict[int, torch.Tensor] = {}
            moved: set[int] = set()

            def watch(optimizer: Any, args: Any, kwargs: Any) -> None:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        trained[id(parameter)] = parameter
                        if parameter.grad is not None and bool(parameter.grad.any()):
                            moved.add(id(parameter))

            handle = register_optimizer_step_pre_hook(watch)
            try:
                model = case.method().unlearn(target, contract_data, folder, seed=5)
            finally:
                handle.remove()
            known[name] = Outcome(case, target, model, folder, contract_data, before, trained, moved)
        return known[name]

    return run
