"""Evaluate one model on one benchmark: one scoring pass, one generation pass, every metric from those."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import write_text
from eval.errors import DataError
from eval.metrics import entries
from eval.metrics.aggregate import aggregate, check_rows
from eval.report.open_unlearning import EvalLog, items, write_log
from eval.types import Example, MetricResult, Progress

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.models.language_model import Generation, GenerationOptions, LanguageModel
    from eval.models.scoring import TokenScores

__all__ = ["Evaluation", "evaluate"]

NINE_TERM_SPLITS = ("retain", "ra", "wf")
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
FILTERED = (
    "not comparable: a filter sets the likelihood of what it bans itself; the model behind it is unchanged"
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one evaluation found out."""

    results: dict[str, MetricResult]
    """Every aggregate, by the names of OpenUnlearning's logs."""
    log: EvalLog
    """Per-item values in OpenUnlearning's layout: all that ``results`` came from."""
    samples: list[dict[str, Any]]
    """One row for each generated answer, for reading."""
    seconds: dict[str, float]
    """Wall time of ``scoring``, ``generating`` and ``metrics``."""


@dataclass(frozen=True)
class _Scored:
    """The token scores of one split."""

    gold: list[TokenScores]
    paraphrased: list[TokenScores] | None
    wrong: list[list[TokenScores]] | None
    texts: list[str]
    """Decoded gold answer tokens."""


@dataclass
class _Pairs:
    """(example, answer) pairs collected before they are scored together."""

    examples: list[Example] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def add(self, example: Example, answers: Sequence[str]) -> slice:
        """Queue the answers of one example and return where their scores will stand."""
        start = len(self.answers)
        self.examples += [example] * len(answers)
        self.answers += answers
        return slice(start, len(self.answers))


def evaluate(
    lm: LanguageModel,
    benchmark: Benchmark,
    *,
    reference: EvalLog | None = None,
    options: GenerationOptions | None = None,
    output_dir: Path | None = None,
    seed: int = 0,
    paraphrased_questions: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a plain, edited or filtered model.

    Args:
        lm: The model.
        benchmark: Its ``splits`` are asked; a split that is absent makes its metrics null, with the reason.
        reference: The retain model's log of the same forget rows, for forget quality and PrivLeak.
        options: Of generation; default: greedy, at most 200 new tokens.
        output_dir: ``eval/TOFU_EVAL.json``, ``eval/TOFU_SUMMARY.json`` and ``eval/samples.jsonl`` are written
            below it, atomically.
        seed: Of the bootstrap intervals.
        paraphrased_questions: Also ask the forget questions in their other wording.
        progress: Told what is being done.

    Raises:
        DataError: If the benchmark has no forget rows or rows without a prompt, or if ``reference`` is of
            another forget split; both are found before the model is run.
    """
    splits = {name: tuple(rows) for name, rows in benchmark.splits.items() if rows}
    _check_splits(benchmark.name, splits)
    if reference is not None:
        check_rows(len(splits["forget"]), reference)
    start = time.perf_counter()
    scored = _score(lm, splits, progress)
    scored_at = time.perf_counter()
    generated = _generate(lm, splits, options, paraphrased_questions, progress)
    generated_at = time.perf_counter()
    log = _likelihood_log(scored, benchmark.absent) | _text_log(
        lm, splits, scored, generated, benchmark.absent
    )
    if lm.kind == "suppression":
        _mark_filtered(log, is_withheld=getattr(lm, "policy", None) == "refuse")
    results = aggregate(log, reference, seed=seed)
    _fill_aggregates(log, results)
    samples = _samples(splits, generated, log)
    if output_dir is not None:
        _write(log, results, samples, output_dir / "eval")
    done = time.perf_counter()
    seconds = {
        "scoring": scored_at - start,
        "generating": generated_at - scored_at,
        "metrics": done - generated_at,
    }
    return Evaluation(results=results, log=log, samples=samples, seconds=seconds)


def _check_splits(name: str, splits: Mapping[str, tuple[Example, ...]]) -> None:
    if "forget" not in splits:
        raise DataError(f"Benchmark {name} tests no forget rows; there is nothing to evaluate.")
    for split, rows in splits.items():
        for row in rows:
            if (row.question is None and row.messages is None) or row.answer is None:
                raise DataError(
                    f"Row {row.id!r} of {name}'s split {split!r} has no question or no answer; evaluation asks "
                    "questions: give it both."
                )


# --- one scoring pass, one generation pass ---------------------------------------------------------------------


def _score(
    lm: LanguageModel, splits: Mapping[str, tuple[Example, ...]], progress: Progress | None
) -> dict[str, _Scored]:
    """Score every answer of every split once; forget and holdout gold answers with moments (for Min-K++)."""
    plain, moments = _Pairs(), _Pairs()
    places: dict[str, tuple[list[slice], list[slice] | None, list[slice] | None]] = {}
    for name, rows in splits.items():
        needs_moments = name in ("forget", "holdout") and "holdout" in splits
        gold = [(moments if needs_moments else plain).add(row, [row.answer or ""]) for row in rows]
        paraphrased = wrong = None
        if name != "holdout" and all(row.paraphrased_answer for row in rows):
            paraphrased = [plain.add(row, [row.paraphrased_answer or ""]) for row in rows]
        if name != "holdout" and all(row.perturbed_answers for row in rows):
            wrong = [plain.add(row, list(row.perturbed_answers)) for row in rows]
        places[name] = (gold, paraphrased, wrong)
    plain_scores = lm.score(plain.examples, plain.answers, progress=progress)
    moment_scores = lm.score(moments.examples, moments.answers, moments=True, progress=progress)
    out: dict[str, _Scored] = {}
    for name, (gold, paraphrased, wrong) in places.items():
        source = moment_scores if name in ("forget", "holdout") and "holdout" in splits else plain_scores
        gold_scores = [source[place][0] for place in gold]
        out[name] = _Scored(
            gold=gold_scores,
            paraphrased=None if paraphrased is None else [plain_scores[place][0] for place in paraphrased],
            wrong=None if wrong is None else [plain_scores[place] for place in wrong],
            texts=_decode(lm, gold_scores),
        )
    return out


def _decode(lm: LanguageModel, scores: Sequence[TokenScores]) -> list[str]:
    """Return the text of the labelled tokens, which may differ from the raw answer by a space."""
    texts = lm.tokenizer.batch_decode([s.token_ids.tolist() for s in scores], skip_special_tokens=True)
    return [str(text).strip() for text in texts]


def _generate(
    lm: LanguageModel,
    splits: Mapping[str, tuple[Example, ...]],
    options: GenerationOptions | None,
    paraphrased_questions: bool,
    progress: Progress | None,
) -> dict[str, list[Generation]]:
    """Answer every question of every split but holdout in one pass."""
    asked = {name: list(rows) for name, rows in splits.items() if name != "holdout"}
    if paraphrased_questions and all(row.paraphrased_question for row in splits["forget"]):
        asked["forget_paraphrased"] = [
            row.replace(question=row.paraphrased_question, messages=None) for row in splits["forget"]
        ]
    generations = iter(
        lm.generate([row for rows in asked.values() for row in rows], options, progress=progress)
    )
    return {name: [next(generations) for _ in rows] for name, rows in asked.items()}


# --- the log ------------------------------------------------------------------------------------------------------


def _likelihood_log(scored: Mapping[str, _Scored], absent: Mapping[str, str]) -> dict[str, Any]:
    log: dict[str, Any] = {}
    for name, split in scored.items():
        if name != "holdout":
            log |= _split_log(name, split)
    for name in NINE_TERM_SPLITS:
        if name not in scored:
            missing = entries.absent_entry(absent.get(name, f"the benchmark has no {name} split"))
            probability = "retain_Q_A_Prob" if name == "retain" else f"{name}_Q_A_Prob_normalised"
            log |= {probability: missing, f"{name}_Truth_Ratio": missing}
    forget = scored["forget"]
    log |= entries.memorization_entries(forget.gold)
    if "holdout" in scored:
        holdout = scored["holdout"]
        log |= entries.membership_entries(forget.gold, holdout.gold, forget.texts, holdout.texts)
    else:
        reason = absent.get("holdout", "the benchmark has no holdout rows")
        log |= {name: entries.absent_entry(reason) for name in ATTACKS}
    return log


def _split_log(name: str, split: _Scored) -> dict[str, Any]:
    ratio = "forget_truth_ratio" if name == "forget" else f"{name}_Truth_Ratio"
    log = {f"{name}_Q_A_Prob": entries.probability_entry(split.gold)}
    if split.paraphrased is not None:
        log[f"{name}_Q_A_PARA_Prob"] = entries.probability_entry(split.paraphrased)
    if split.wrong is not None:
        log[f"{name}_Q_A_PERT_Prob"] = entries.wrong_probability_entry(split.wrong)
        if name in ("ra", "wf"):
            log[f"{name}_Q_A_Prob_normalised"] = entries.normalised_entry(split.gold, split.wrong)
        is_paraphrase = split.paraphrased is not None and name not in ("ra", "wf")
        correct = split.paraphrased if is_paraphrase and split.paraphrased is not None else split.gold
        log[ratio] = entries.truth_ratio_entry(correct, split.wrong)
    elif name in ("forget", *NINE_TERM_SPLITS):
        missing = entries.absent_entry("not every row of the split has wrong answers (perturbed_answers)")
        log[ratio] = missing
        if name in ("ra", "wf"):
            log[f"{name}_Q_A_Prob_normalised"] = missing
    return log


def _text_log(
    lm: LanguageModel,
    splits: Mapping[str, tuple[Example, ...]],
    scored: Mapping[str, _Scored],
    generated: Mapping[str, Sequence[Generation]],
    absent: Mapping[str, str],
) -> dict[str, Any]:
    log: dict[str, Any] = {}
    for name, generations in generated.items():
        is_reworded = name == "forget_paraphrased"
        rows = splits["forget" if is_reworded else name]
        asked = (
            [r.replace(question=r.paraphrased_question, messages=None) for r in rows] if is_reworded else rows
        )
        inputs = [lm.template.render(row.conversation) for row in asked]
        truths = scored["forget" if is_reworded else name].texts
        log[f"{name}_Q_A_ROUGE"] = entries.rouge_entry(inputs, truths, generations)
        if name in ("forget", "forget_paraphrased"):
            questions = [" ".join(turn.content for turn in row.conversation) for row in asked]
            key = "leak_rate_paraphrased" if is_reworded else "leak_rate"
            log[key] = entries.leak_entry(generations, [_key_spans(row) for row in rows], questions)
    for name in NINE_TERM_SPLITS:
        if name not in generated:
            reason = absent.get(name, f"the benchmark has no {name} split")
            log[f"{name}_Q_A_ROUGE"] = entries.absent_entry(reason)
    log["forget_fluency"] = entries.fluency_entry(generated["forget"])
    log["masked_steps"] = entries.entry([{"score": float(g.masked_steps)} for g in generated["forget"]])
    return log


def _key_spans(row: Example) -> tuple[str, ...]:
    from eval.data.key_spans import derive_key_spans

    return row.key_spans or derive_key_spans(row)


def _mark_filtered(log: dict[str, Any], *, is_withheld: bool) -> None:
    """Say that likelihoods under a filter are not comparable; a refusing filter has none to show."""
    mark = {"reason": FILTERED} | ({"withheld": True} if is_withheld else {})
    for name in ("forget_quality", "privleak", *ATTACKS):
        old = log.get(name, {"agg_value": None})
        if "reason" not in old:
            log[name] = old | mark


def _fill_aggregates(log: dict[str, Any], results: Mapping[str, MetricResult]) -> None:
    """Write every aggregate beside the per-item values it came from."""
    for name, result in results.items():
        log[name] = log.get(name, {}) | {"agg_value": result.value}
        for part in ("forget", "holdout"):
            if part in log[name]:
                scores = [item["score"] for item in items(log[name][part]) if item["score"] is not None]
                mean = sum(scores) / len(scores) if scores else None
                log[name] |= {part: log[name][part] | {"agg_value": mean}, "auc": result.value}


def _samples(
    splits: Mapping[str, tuple[Example, ...]],
    generated: Mapping[str, Sequence[Generation]],
    log: Mapping[str, Any],
) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for name, generations in generated.items():
        rows = splits["forget" if name == "forget_paraphrased" else name]
        rouge = items(log[f"{name}_Q_A_ROUGE"])
        leaks = items(
            log.get({"forget": "leak_rate", "forget_paraphrased": "leak_rate_paraphrased"}.get(name, ""))
        )
        for i, (row, generation) in enumerate(zip(rows, generations, strict=True)):
            question = row.paraphrased_question if name == "forget_paraphrased" else row.question
            sample = {
                "split": name,
                "index": i,
                "id": row.id,
                "question": question if question is not None else [list(turn) for turn in row.conversation],
                **{key: rouge[i][key] for key in ("input", "ground_truth", "generation", "rougeL_recall")},
                "is_finished": generation.is_finished,
                "masked_steps": generation.masked_steps,
            }
            if leaks:
                sample["leaked"] = leaks[i]["spans"]
            out.append(sample)
    return out


def _write(
    log: EvalLog, results: Mapping[str, MetricResult], samples: Sequence[Mapping[str, Any]], directory: Path
) -> None:
    lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) for sample in samples]
    write_text(directory / "samples.jsonl", "".join(f"{line}\n" for line in lines))
    write_log(log, {name: result.value for name, result in results.items()}, directory)
