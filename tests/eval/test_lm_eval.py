"""Our models as models of lm-evaluation-harness; the harness itself is optional and stands in as a fake."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from eval.errors import ConfigError
from eval.lm_eval import HarnessModel, evaluate_tasks, harness_model
from eval.models import LanguageModel


@dataclass
class Request:
    args: tuple[Any, ...]


def logps(lm: LanguageModel, text: str) -> tuple[list[int], torch.Tensor]:
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        scores = lm.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return ids, scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_loglikelihoods_are_those_of_the_plain_model(tiny_lm: LanguageModel) -> None:
    adapter = HarnessModel(tiny_lm)
    context, answer = "Where was person 3 born?", " Person 3 was born in Cairo."
    (value, is_greedy), (unset, _) = adapter.loglikelihood(
        [Request((context, answer)), Request(("", "Person 3 was born"))]
    )
    _, all_logps = logps(tiny_lm, context + answer)
    start = len(tiny_lm.tokenizer(context, add_special_tokens=False)["input_ids"])
    assert value == pytest.approx(float(all_logps[start - 1 :].sum()), rel=1e-5)
    assert is_greedy is False
    assert unset == pytest.approx(float(logps(tiny_lm, "Person 3 was born")[1].sum()), rel=1e-5)
    glued = adapter.loglikelihood([Request(("Person", "3"))])[0][0]  # no space is put in between
    spaced = adapter.loglikelihood([Request(("Person", " 3"))])[0][0]
    assert glued != spaced


def test_a_long_text_counts_every_token_but_the_first(tiny_lm: LanguageModel, monkeypatch: Any) -> None:
    adapter = HarnessModel(tiny_lm)
    text = "Person 3 was born in Cairo. Person 4 was born in Quito."
    whole = adapter.loglikelihood_rolling([Request((text,))])
    assert whole == [pytest.approx(float(logps(tiny_lm, text)[1].sum()), rel=1e-5)]
    counted: list[int] = []
    real = tiny_lm.score

    def score(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        counted.extend(s.num_tokens for s in found)
        return found

    tiny_lm.score = score  # type: ignore[method-assign]
    long = " ".join([text] * 100)
    adapter.loglikelihood_rolling([Request((long,))])
    assert len(counted) > 1
    assert max(counted) < 128
    assert sum(counted) == len(tiny_lm.tokenizer(long, verbose=False)["input_ids"]) - 1


def test_generation_stops_at_the_given_strings(tiny_lm: LanguageModel) -> None:
    adapter = HarnessModel(tiny_lm)
    settings = {"until": [], "max_gen_toks": 12}
    full, short = adapter.generate_until(
        [Request(("Person 3", settings)), Request(("Person 3", {"max_gen_toks": 2}))]
    )
    assert full.startswith(short)
    assert len(short) < len(full)
    middle = full[len(full) // 2 :][:3]
    (cut,) = adapter.generate_until([Request(("Person 3", settings | {"until": [middle]}))])
    assert cut == full[: full.index(middle)]


def test_without_the_harness_the_error_says_what_to_install(tiny_lm: LanguageModel, monkeypatch: Any) -> None:
    for name in ("lm_eval.api.model", "lm_eval.evaluator"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"unlearn-toolkit\[lm-eval\]"):
        harness_model(tiny_lm)
    with pytest.raises(ConfigError, match=r"not installed"):
        evaluate_tasks(tiny_lm, ["mmlu"])


def test_tasks_are_run_on_a_model_of_the_harness_own_class(tiny_lm: LanguageModel, monkeypatch: Any) -> None:
    class Base:
        rank = 0

    asked: dict[str, Any] = {}

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        asked.update(given)
        values = {"acc,none": 0.25, "acc_stderr,none": 0.1, "alias": "toy", "sample_len": 3}
        return {"results": {"toy": values}}

    api, evaluator = ModuleType("lm_eval.api.model"), ModuleType("lm_eval.evaluator")
    api.LM, evaluator.simple_evaluate = Base, simple_evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", api)
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", evaluator)
    assert evaluate_tasks(tiny_lm, ["toy"], limit=3) == {"toy/acc": 0.25}
    assert isinstance(asked["model"], Base)
    assert asked["model"].lm is tiny_lm
    assert (asked["tasks"], asked["limit"]) == (["toy"], 3)
