"""``unlearn train``: one method, one artifact."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import TrainConfig

if TYPE_CHECKING:
    from eval.types import UnlearningMethod

__all__ = ["command"]


@click.command("train")
@click.argument("method")
@model_options
@benchmark_options
@click.option(
    "--parametrization", help="full, lora, ... (fine-tuning methods; same as --set parametrization=...)."
)
@click.option("--set", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as beta=0.2.")
@click.option(
    "--eval-every",
    type=int,
    metavar="N",
    help="Evaluate every N training steps, on a sample of the questions.",
)
@click.option(
    "--best-by",
    metavar="VALUE",
    help="Keep the step where this value is largest: balance, model_utility, -forget_Q_A_Prob, ...",
)
@click.option("--patience", type=int, metavar="N", help="Stop after N evaluations without a better one.")
@click.option("--seed", type=int, help="Default 0.")
@click.option("--output-dir", type=click.Path(path_type=Path), help="Default: runs/<benchmark>-<method>.")
@common_options
@click.pass_context
def command(context: click.Context, /, method: str, as_json: bool, **_: object) -> None:
    """Run METHOD on a benchmark's forget set and keep its artifact.

    \b
    unlearn train npo --parametrization lora --model MODEL --benchmark tofu:forget05
    unlearn train grun-npo --model MODEL --benchmark jsonl:forget.jsonl --retain-file retain.jsonl
    unlearn train npo-rt --eval-every 20 --best-by balance --patience 3
    accelerate launch --multi_gpu --num_processes 4 -m unlearn train npo-rt --model MODEL --benchmark tofu:forget10
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 4 -m unlearn train npo-rt --model MODEL
    """
    from eval.artifacts import environment, fingerprint, write_json
    from eval.processes import is_main, join, wait
    from finetune_baselines.monitoring import monitoring
    from unlearn.cli.options import make_benchmark, print_json, quiet_libraries, showing_progress
    from unlearn.cli.prepare import target_model
    from unlearn.dynamics import dynamics_monitor, seconds_measuring
    from unlearn.measure import Measure
    from unlearn.methods import make_method, parse_overrides, preload
    from unlearn.runs import locked_run, slug, start_stage
    from unlearn.stages import Examining

    config = resolve(context, TrainConfig)
    overrides = parse_overrides(config.set, [method])[method]
    if config.parametrization is not None:
        overrides["parametrization"] = config.parametrization
    built = make_method(method, overrides)
    _check_processes(built)
    benchmark = make_benchmark(config)
    monitor = dynamics_monitor(benchmark, config.eval_every, best_by=config.best_by, patience=config.patience)
    output_dir = config.output_dir or Path("runs") / slug(f"{config.benchmark}-{method}")
    quiet_libraries()
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(locked_run(output_dir))
        progress = stack.enter_context(showing_progress())
        lm = target_model(config, benchmark, progress)
        join(lm.device)
        watched = [config.eval_every, config.best_by, config.patience]
        settings = built.settings(lm)
        key = fingerprint([method, settings, config.seed, lm.identity, benchmark, *filter(None, watched)])
        directory = output_dir / method
        if is_main():
            start_stage(directory, key)
        wait()
        preload(built)
        with Measure() as cost, monitoring(monitor):
            made = built.unlearn(lm, benchmark.data, directory, seed=config.seed, progress=progress)
        if not is_main():
            return
        if isinstance(built, Examining):
            built.examine(made, benchmark.data, benchmark.splits, directory)
        summary = {
            "method": method,
            "kind": built.kind,
            "summary": built.summary,
            "artifact": str(directory),
            "base_model": lm.name,
            "seconds": cost.seconds - seconds_measuring(directory),
            "peak_memory_mb": cost.peak_memory_mb,
            "environment": environment(str(lm.device)),
        }
        write_json(output_dir / "train.json", summary)
    if as_json:
        print_json(summary)
    else:
        click.echo(f"{method} ({built.kind}): artifact in {directory}, {cost.seconds:.1f} s.")


def _check_processes(method: UnlearningMethod) -> None:
    """Refuse to start what only one process can train, and processes that share the weights."""
    from eval.errors import ConfigError
    from eval.processes import num_processes
    from finetune_baselines.arguments import refuse_sharding

    refuse_sharding()
    if num_processes() > 1 and method.kind != "weights":
        raise ConfigError(
            f"{method.name} runs in one process, but {num_processes()} were started; start it without a launcher."
        )
