"""Evaluate one model on one benchmark: one scoring pass, one generation pass, every metric from those."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import write_text
from eval.errors import DataError
from eval.measures import Answers, Context, Measure, Plan, Questions
from eval.measures.membership import ATTACKS
from eval.metrics.aggregate import COMPARED, aggregate, check_rows, check_texts
from eval.partial import kept
from eval.report.open_unlearning import EvalLog, items, write_log
from eval.report.samples import samples_page
from eval.types import MetricResult, Progress

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.models.language_model import GenerationOptions, LanguageModel

__all__ = ["Evaluation", "evaluate"]

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


def evaluate(
    lm: LanguageModel,
    benchmark: Benchmark,
    *,
    reference: EvalLog | None = None,
    options: GenerationOptions | None = None,
    output_dir: Path | None = None,
    seed: int = 0,
    paraphrased_questions: bool = False,
    gradnorm: bool = True,
    is_spread: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a plain, edited or filtered model.

    Args:
        lm: The model.
        benchmark: Its ``measures`` say what its ``splits`` are asked; without any, everything TOFU's evaluation
            asks. A split that is absent makes its metrics null, with the reason.
        reference: The retain model's log of the same forget rows, for forget quality, PrivLeak and mia_reference.
        options: Of generation; default: greedy, at most 200 new tokens. A benchmark's own shorter limits stay.
        output_dir: ``eval/<evaluator>_EVAL.json`` (``TOFU_EVAL.json``, ``MUSE_EVAL.json``, ...), its summary,
            ``eval/samples.jsonl`` and a few samples to read, ``eval/samples.md``, are written below it, atomically.
            Until then every finished example stands in ``eval/partial.jsonl``, where an evaluation of the same that
            was killed goes on (`eval.partial`).
        seed: Of the bootstrap intervals.
        paraphrased_questions: Also ask the forget questions in their other wording.
        gradnorm: Whether the gradient-norm attack is made: one backward pass for each forget and holdout row.
        is_spread: Whether every process of a launcher calls this and does a share of the work (the main process
            alone writes); the numbers are those of one process but for rounding.
        progress: Told what is being done.

    Raises:
        DataError: If the benchmark has no forget rows or rows without a prompt, or if ``reference`` is of
            another forget split; both are found before the model is run.
    """
    from eval.processes import is_main, rank

    measures: Sequence[Measure] = benchmark.measures or (Questions(paraphrased_questions),)
    plan = Plan(options, is_spread=is_spread)
    for measure in measures:
        measure.ask(benchmark, plan)
    if reference is not None:
        _check_reference(benchmark, plan, reference)
    start = time.perf_counter()
    rank_here = rank() if is_spread else 0
    with kept(lm, None if output_dir is None else output_dir / "eval", rank=rank_here) as partial:
        scores = plan.scores(lm, progress, partial)
        scored_at = time.perf_counter()
        answers = Answers(scores, plan.generations(lm, progress, partial))
        generated_at = time.perf_counter()
        context = Context(
            lm=lm,
            benchmark=benchmark,
            answers=answers,
            reference=reference,
            gradnorm=gradnorm,
            is_spread=is_spread,
            partial=partial,
            progress=progress,
        )
        log: dict[str, Any] = {}
        for measure in measures:
            log |= measure.entries(context)
        if lm.kind == "suppression":
            _mark_filtered(log, is_withheld=getattr(lm, "policy", None) == "refuse")
        results = aggregate(log, reference, seed=seed)
        _fill_aggregates(log, results)
        samples = _samples(plan, answers, log)
        if output_dir is not None and (is_main() or not is_spread):
            _write(log, results, samples, output_dir / "eval", benchmark.evaluator)
            if partial is not None:
                partial.discard()
    done = time.perf_counter()
    seconds = {
        "scoring": scored_at - start,
        "generating": generated_at - scored_at,
        "metrics": done - generated_at,
    }
    return Evaluation(results=results, log=log, samples=samples, seconds=seconds)


def _check_reference(benchmark: Benchmark, plan: Plan, reference: EvalLog) -> None:
    """Refuse a retain model's log of other rows before the model is run.

    Raises:
        DataError: If it is of another benchmark or forget split.
    """
    if "forget" in benchmark.splits:
        check_rows(len(benchmark.splits["forget"]), reference)
    asked = {ask.texts: ask.rows for name, ask in plan.asked.items() if name.startswith("forget")}
    for metric, rows in asked.items():
        check_texts(metric, [str(row.answer) for row in rows], reference)
    if asked and not any(metric in reference for metric in (*asked, *COMPARED)):
        raise DataError(
            f"The reference log holds none of what {benchmark.name} asks ({', '.join(asked)}): it is of another "
            "benchmark; give the retain model's log of this one."
        )


def _mark_filtered(log: dict[str, Any], *, is_withheld: bool) -> None:
    """Say that likelihoods under a filter are not comparable; a refusing filter has none to show."""
    mark = {"reason": FILTERED} | ({"withheld": True} if is_withheld else {})
    made_from = {"forget_quality": "forget_truth_ratio", "privleak": "mia_min_k"} | {a: a for a in ATTACKS}
    made_from |= {name: name for name in log if name.endswith("_perplexity")}
    for name, source in made_from.items():
        old = log.get(name, {"agg_value": None})
        if source in log and "reason" not in old:
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


def _samples(plan: Plan, answers: Answers, log: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every generated answer beside its prompt, the true answer and its scores."""
    out: list[dict[str, Any]] = []
    for name, asked in plan.asked.items():
        texts = items(log.get(asked.texts))
        leaks = items(log.get(asked.leaks)) if asked.leaks is not None else []
        for i, (row, generation) in enumerate(zip(asked.rows, answers.generations[name], strict=True)):
            question = row.question if row.question is not None else [list(turn) for turn in row.conversation]
            sample = {
                "split": name,
                "index": i,
                "id": row.id,
                "question": question,
                **texts[i],
                "is_finished": generation.is_finished,
                "masked_steps": generation.masked_steps,
            }
            if leaks:
                sample["leaked"] = leaks[i]["spans"]
            out.append(sample)
    return out


def _write(
    log: EvalLog,
    results: Mapping[str, MetricResult],
    samples: Sequence[Mapping[str, Any]],
    directory: Path,
    evaluator: str,
) -> None:
    lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) for sample in samples]
    write_text(directory / "samples.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(directory / "samples.md", samples_page(samples))
    write_log(log, {name: result.value for name, result in results.items()}, directory, evaluator)
