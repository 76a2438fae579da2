"""The runner: what it asks of a model, what it writes, what it says when something is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.data import Benchmark
from eval.data.collate import Encoded
from eval.errors import DataError
from eval.metrics import recompute
from eval.metrics.memorization import extraction_strength
from eval.metrics.truth_ratio import truth_ratio
from eval.models import GenerationOptions, LanguageModel
from eval.models.scoring import TokenScores
from eval.runner import evaluate
from eval.types import Example

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture
def benchmark(examples: list[Example]) -> Benchmark:
    parts = {
        "forget": examples[:3],
        "retain": examples[3:6],
        "ra": [row.replace(paraphrased_answer=None) for row in examples[6:8]],
        "wf": [row.replace(paraphrased_answer=None) for row in examples[8:10]],
        "holdout": examples[10:],
    }
    splits = {name: tuple(rows) for name, rows in parts.items()}
    return Benchmark(name="toy", forget=splits["forget"], retain=splits["retain"], splits=splits)


def without(benchmark: Benchmark, *names: str, **absent: str) -> Benchmark:
    splits = {name: rows for name, rows in benchmark.splits.items() if name not in names}
    return Benchmark(
        name="toy", forget=benchmark.forget, retain=benchmark.retain, splits=splits, absent=absent
    )


class Recording(LanguageModel):
    """A model that notes what it is asked."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__(lm.model, lm.tokenizer, template=lm.template)
        self.scored: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.generated: list[str] = []
        self.calls: list[str] = []

    def score_batch(self, rows: Sequence[Encoded], *, moments: bool = False) -> list[TokenScores]:
        self.calls.append("score")
        self.scored += [(row.prompt_ids, row.answer_ids) for row in rows]
        return super().score_batch(rows, moments=moments)

    def generate(self, prompts: Sequence[Any], *rest: Any, **options: Any) -> list[Any]:
        self.calls.append("generate")
        self.generated += [row.question for row in prompts]
        return super().generate(prompts, *rest, **options)


def test_every_pair_is_scored_once_and_every_prompt_answered_once(
    tiny_lm: LanguageModel, benchmark: Benchmark
) -> None:
    lm = Recording(tiny_lm)
    evaluate(lm, benchmark, options=SHORT)
    assert lm.calls == ["score", "score", "generate"]
    assert len(lm.scored) == len(set(lm.scored)) == 6 * (1 + 1 + 5) + 4 * (1 + 5) + 2
    assert lm.generated == [
        row.question for name in ("forget", "retain", "ra", "wf") for row in benchmark.splits[name]
    ]


def test_the_log_holds_what_the_model_said(tiny_lm: LanguageModel, benchmark: Benchmark) -> None:
    log = evaluate(tiny_lm, benchmark, options=SHORT).log
    row = benchmark.splits["forget"][1]
    gold, paraphrased, *wrong = tiny_lm.score(
        [row] * 7, [row.answer, row.paraphrased_answer, *row.perturbed_answers], moments=True
    )
    assert log["forget_Q_A_Prob"]["value_by_index"]["1"] == pytest.approx(
        {"prob": gold.prob, "avg_loss": gold.avg_loss}, rel=1e-5
    )
    ratio = truth_ratio(paraphrased.avg_loss, [s.avg_loss for s in wrong])
    assert log["forget_truth_ratio"]["value_by_index"]["1"]["score"] == pytest.approx(ratio, rel=1e-5)
    assert log["extraction_strength"]["value_by_index"]["1"]["score"] == extraction_strength(gold.hits[:-1])
    assert len(log["forget_Q_A_PERT_Prob"]["value_by_index"]["1"]["prob"]) == 5
    texts = log["forget_Q_A_ROUGE"]["value_by_index"]["1"]
    assert texts["ground_truth"] == row.answer
    assert texts["input"] == tiny_lm.template.render(row.conversation)
    assert texts["generation"] == tiny_lm.generate([row], SHORT)[0].text
    known = benchmark.splits["ra"][0]  # no paraphrase: the gold answer is the right one
    gold, *wrong = tiny_lm.score([known] * 6, [known.answer, *known.perturbed_answers])
    ratio = truth_ratio(gold.avg_loss, [s.avg_loss for s in wrong])
    assert log["ra_Truth_Ratio"]["value_by_index"]["0"]["score"] == pytest.approx(ratio, rel=1e-5)


def test_what_is_written_recomputes_to_what_was_returned(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path
) -> None:
    reference = evaluate(tiny_lm, benchmark, options=SHORT).log
    done = evaluate(tiny_lm, benchmark, reference=reference, options=SHORT, output_dir=tmp_path)
    files = sorted(path.name for path in (tmp_path / "eval").iterdir())
    assert files == ["TOFU_EVAL.json", "TOFU_SUMMARY.json", "samples.jsonl", "samples.md"]
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    values = {name: result.value for name, result in done.results.items()}
    assert recompute(tmp_path, tmp_path / "reference.json") == values
    assert values["forget_quality"] == 1.0
    assert values["privleak"] == pytest.approx(0.0)
    assert None not in values.values()
    stored = json.loads((tmp_path / "eval" / "TOFU_EVAL.json").read_text())
    assert {name: entry["agg_value"] for name, entry in stored.items()} == values
    assert stored["mia_loss"]["auc"] == stored["mia_loss"]["agg_value"]
    assert stored["mia_loss"]["holdout"]["agg_value"] > 0
    assert list(stored) == sorted(stored)
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()]
    assert samples == done.samples
    assert [s["id"] for s in samples[:3]] == [row.id for row in benchmark.splits["forget"]]


def test_missing_splits_are_null_with_their_reason(tiny_lm: LanguageModel, benchmark: Benchmark) -> None:
    small = without(benchmark, "holdout", "ra", holdout="nobody gave rows", ra="no authors here")
    results = evaluate(tiny_lm, small, options=SHORT).results
    for name in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "privleak"):
        assert (results[name].value, results[name].reason) == (None, "nobody gave rows")
    for name in ("ra_Q_A_Prob_normalised", "ra_Q_A_ROUGE", "ra_Truth_Ratio"):
        assert (results[name].value, results[name].reason) == (None, "no authors here")
    assert results["model_utility"].value is None
    assert "ra_Q_A_ROUGE" in str(results["model_utility"].reason)
    assert results["forget_Q_A_Prob"].value is not None
    assert results["forget_quality"].value is None
    assert "reference" in str(results["forget_quality"].reason)


def test_rows_without_wrong_answers_have_no_truth_ratio(tiny_lm: LanguageModel, benchmark: Benchmark) -> None:
    bare = tuple(row.replace(perturbed_answers=()) for row in benchmark.splits["forget"])
    splits = dict(benchmark.splits) | {"forget": bare}
    plain = Benchmark(name="toy", forget=bare, retain=benchmark.retain, splits=splits)
    result = evaluate(tiny_lm, plain, options=SHORT).results["forget_truth_ratio"]
    assert result.value is None
    assert "perturbed_answers" in str(result.reason)


@pytest.mark.parametrize("policy", ["restrict", "refuse"])
def test_likelihoods_of_a_filter_are_not_comparable(
    tiny_lm: LanguageModel, benchmark: Benchmark, policy: str, tmp_path: Path
) -> None:
    reference = evaluate(tiny_lm, benchmark, options=SHORT).log
    tiny_lm.kind = "suppression"
    tiny_lm.policy = policy  # type: ignore[attr-defined]
    results = evaluate(tiny_lm, benchmark, reference=reference, options=SHORT, output_dir=tmp_path).results
    for name in ("forget_quality", "privleak", "mia_min_k"):
        assert str(results[name].reason).startswith("not comparable: a filter")
        assert (results[name].value is None) == (policy == "refuse")
    assert results["model_utility"].reason is None
    assert recompute(tmp_path)["forget_quality"] is None


def test_a_broken_model_gives_null_not_a_crash(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path
) -> None:
    real = tiny_lm.score_batch

    def broken(*arguments: Any, **options: Any) -> list[TokenScores]:
        return [
            TokenScores(s.token_ids, np.full_like(s.logps, np.nan), s.hits, s.means, s.variances)
            for s in real(*arguments, **options)
        ]

    tiny_lm.score_batch = broken  # type: ignore[method-assign]
    results = evaluate(tiny_lm, benchmark, options=SHORT, output_dir=tmp_path).results
    assert results["forget_Q_A_Prob"].value is None
    assert results["model_utility"].value is None
    assert results["exact_memorization"].value is None
    assert results["forget_Q_A_ROUGE"].value is not None
    assert recompute(tmp_path)["mia_min_k"] is None


def test_a_reference_of_another_split_is_refused_before_the_model_runs(
    tiny_lm: LanguageModel, benchmark: Benchmark
) -> None:
    lm = Recording(tiny_lm)
    reference = {"forget_truth_ratio": {"value_by_index": {"0": {"score": 1.0}}}}
    with pytest.raises(DataError, match=r"1 forget rows .* has 3"):
        evaluate(lm, benchmark, reference=reference)
    assert lm.calls == []


def test_rows_that_cannot_be_asked_are_refused(tiny_lm: LanguageModel, benchmark: Benchmark) -> None:
    with pytest.raises(DataError, match="no forget rows"):
        evaluate(tiny_lm, without(benchmark, "forget"))
    splits = dict(benchmark.splits) | {"retain": (Example(id="book", text="Once upon a time."),)}
    documents = Benchmark(name="toy", forget=benchmark.forget, retain=(), splits=splits)
    with pytest.raises(DataError, match=r"'book'.*'retain'"):
        evaluate(tiny_lm, documents)


def test_other_wordings_and_further_splits_are_asked_when_wanted(
    tiny_lm: LanguageModel, benchmark: Benchmark
) -> None:
    rows = benchmark.splits["holdout"]
    splits = dict(benchmark.splits) | {"neighbours": tuple(row.replace(id=f"n{row.id}") for row in rows)}
    wide = Benchmark(name="toy", forget=benchmark.forget, retain=benchmark.retain, splits=splits)
    done = evaluate(tiny_lm, wide, options=SHORT, paraphrased_questions=True)
    for name in (
        "forget_paraphrased_Q_A_ROUGE",
        "leak_rate_paraphrased",
        "neighbours_Q_A_ROUGE",
        "neighbours_Q_A_Prob",
    ):
        assert done.results[name].value is not None
    asked = [s["question"] for s in done.samples if s["split"] == "forget_paraphrased"]
    assert asked == [row.paraphrased_question for row in benchmark.splits["forget"]]


def test_a_leak_is_seen_and_named(tiny_lm: LanguageModel, benchmark: Benchmark) -> None:
    from eval.models import Generation

    said = ["It was Rome, I think.", "I do not know.", "Romeo of Lima"]

    def generate(prompts: Sequence[Any], *rest: Any, **options: Any) -> list[Generation]:
        return [Generation(text=said[i] if i < 3 else "x", masked_steps=i) for i, _ in enumerate(prompts)]

    tiny_lm.generate = generate  # type: ignore[method-assign]
    done = evaluate(tiny_lm, benchmark)
    assert done.results["leak_rate"].value == pytest.approx(2 / 3)
    assert [item["spans"] for item in done.log["leak_rate"]["value_by_index"].values()] == [
        ["Rome"],
        [],
        ["Lima"],
    ]
    assert done.results["masked_steps"].value == pytest.approx(1.0)
    assert [s.get("leaked") for s in done.samples[:4]] == [["Rome"], [], ["Lima"], None]
