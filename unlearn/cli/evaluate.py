"""``unlearn evaluate``: measure one model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from unlearn.cli.options import attach_options, benchmark_options, common_options, model_options, resolve
from unlearn.config import EvaluateConfig

__all__ = ["command"]


@click.command("evaluate")
@model_options
@attach_options
@benchmark_options
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="A retain model's log (OpenUnlearning *_EVAL.json) or a report of ours: forget quality, PrivLeak.",
)
@click.option("--max-new-tokens", type=int, help="Of generation (default 200).")
@click.option(
    "--lm-eval",
    metavar="A,B,...",
    help="Also tasks of lm-evaluation-harness (extra lm-eval): mmlu,hellaswag.",
)
@click.option("--lm-eval-limit", type=int, metavar="N", help="Questions of each such task at most.")
@click.option("--seed", type=int, help="Of bootstrap intervals (default 0).")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), help="Default: runs/evaluate-<benchmark>-<model>."
)
@common_options
@click.pass_context
def command(context: click.Context, /, as_json: bool, **_: object) -> None:
    """Measure one model on a benchmark, with or without an adapter, an edit or a filter on it.

    Writes report.json, report.md, report.html and, under model/eval/, OpenUnlearning's TOFU_EVAL.json (likewise
    MUSE_EVAL.json, ...) with every per-example value.

    \b
    unlearn evaluate --model M --benchmark tofu:forget10 --reference ORACLE/TOFU_EVAL.json
    unlearn evaluate --model M --guard runs/world-forget05/guard
    accelerate launch --num-processes 4 -m unlearn evaluate --model M --benchmark tofu:forget10
    """
    from eval.processes import is_main, join, num_processes
    from unlearn.cli.options import attach, make_benchmark, print_report, quiet_libraries, showing_progress
    from unlearn.cli.prepare import target_model
    from unlearn.evaluation import evaluate_one
    from unlearn.runs import locked_run, slug

    config = resolve(context, EvaluateConfig)
    benchmark = make_benchmark(config)
    output_dir = config.output_dir or Path("runs") / slug(f"evaluate-{config.benchmark}-{config.model}")
    quiet_libraries()
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(locked_run(output_dir))
        progress = stack.enter_context(showing_progress())
        reference = None
        if config.reference is not None:
            from eval.report.open_unlearning import read_log

            reference = read_log(config.reference, prefer=("oracle", "model"))
        lm = attach(target_model(config, benchmark, progress), config)
        join(lm.device)
        report = evaluate_one(
            lm,
            benchmark,
            output_dir,
            reference=reference,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            tasks=[name.strip() for name in (config.lm_eval or "").split(",") if name.strip()],
            limit=config.lm_eval_limit,
            is_spread=num_processes() > 1,
            progress=progress,
        )
    if is_main():
        print_report(report, as_json, output_dir)
