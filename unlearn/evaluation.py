"""Measure one model and write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import environment, write_json
from eval.report import Report, RunInfo, now
from unlearn.measure import Measure
from unlearn.runs import benchmark_info

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.types import Progress

__all__ = ["evaluate_one"]


def evaluate_one(
    lm: LanguageModel,
    benchmark: Benchmark,
    output_dir: Path,
    *,
    reference: Mapping[str, Any] | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    tasks: Sequence[str] = (),
    limit: int | None = None,
    is_spread: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Evaluate ``lm`` and write ``report.*`` to ``output_dir`` and its log to ``output_dir/model/eval``.

    Args:
        lm: A plain, edited or guarded model.
        benchmark: What to ask.
        output_dir: Where the report goes.
        reference: A retain model's log, for forget quality and PrivLeak.
        max_new_tokens: Of generation; default: the benchmark's own limits, else 200.
        seed: Of bootstrap intervals.
        tasks: Of lm-evaluation-harness; their values are named ``lm_eval/<task>/<metric>``.
        limit: Questions of each such task at most.
        is_spread: Whether every process of a launcher calls this and does a share; the main one alone writes.
        progress: Told what is being done.
    """
    from eval.models import GenerationOptions
    from eval.processes import is_main
    from eval.report.sections import comparison_sections
    from eval.runner import evaluate

    with Measure() as cost:
        evaluation = evaluate(
            lm,
            benchmark,
            reference=reference,
            options=None if max_new_tokens is None else GenerationOptions(max_new_tokens=max_new_tokens),
            output_dir=output_dir / "model",
            seed=seed,
            is_spread=is_spread,
            progress=progress,
        )
    run = RunInfo(
        method="model",
        label=lm.name,
        seed=seed,
        kind=lm.kind,
        summary="The model as given.",
        eval_seconds=cost.seconds,
        peak_memory_mb=cost.peak_memory_mb,
    )
    measured = {name: result.as_json() for name, result in evaluation.results.items()}
    results = {"model": measured | _general_ability(lm, tasks if is_main() else (), limit)}
    report = Report(
        kind="evaluate",
        name=output_dir.name,
        created=now(),
        benchmark=benchmark_info(benchmark),
        environment=environment(str(lm.device)),
        runs=[run],
        results=results,
        sections=comparison_sections(
            runs=[run],
            results=results,
            logs={"model": evaluation.log},
            examples=benchmark.splits.get("forget", ()),
        ),
    )
    if is_main() or not is_spread:
        write_json(output_dir / "environment.json", report.environment)
        report.save(output_dir)
    return report


def _general_ability(lm: LanguageModel, tasks: Sequence[str], limit: int | None) -> dict[str, dict[str, Any]]:
    if not tasks:
        return {}
    from eval.lm_eval import evaluate_tasks

    values = evaluate_tasks(lm, tasks, limit=limit)
    return {f"lm_eval/{name}": {"value": value, "ci": None, "n": 0} for name, value in values.items()}
