"""``unlearn train``: one method, one artifact."""

from __future__ import annotations

from pathlib import Path

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import TrainConfig

__all__ = ["command"]


@click.command("train")
@click.argument("method")
@model_options
@benchmark_options
@click.option(
    "--parametrization", help="full, lora, ... (fine-tuning methods; same as --set parametrization=...)."
)
@click.option("--set", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as beta=0.2.")
@click.option("--seed", type=int, help="Default 0.")
@click.option("--output-dir", type=click.Path(path_type=Path), help="Default: runs/<benchmark>-<method>.")
@common_options
@click.pass_context
def command(context: click.Context, /, method: str, as_json: bool, **_: object) -> None:
    """Run METHOD on a benchmark's forget set and keep its artifact.

    \b
    unlearn train npo --parametrization lora --model MODEL --benchmark tofu:forget05
    unlearn train grun-npo --model MODEL --benchmark jsonl:forget.jsonl --retain-file retain.jsonl
    """
    from eval.artifacts import environment, fingerprint, write_json
    from unlearn.cli.options import load_model, make_benchmark, print_json, quiet_libraries, showing_progress
    from unlearn.measure import Measure
    from unlearn.methods import make_method, parse_overrides
    from unlearn.runs import locked_run, slug, start_stage

    config = resolve(context, TrainConfig)
    overrides = parse_overrides(config.set, [method])[method]
    if config.parametrization is not None:
        overrides["parametrization"] = config.parametrization
    built = make_method(method, overrides)
    benchmark = make_benchmark(config)
    output_dir = config.output_dir or Path("runs") / slug(f"{config.benchmark}-{method}")
    quiet_libraries()
    with locked_run(output_dir), showing_progress() as progress:
        if config.model.partition(":")[0] == "scratch":
            from unlearn.cli.prepare import prepare_scratch

            lm = prepare_scratch(config, benchmark, progress).target
        else:
            lm = load_model(config)
        key = fingerprint([method, overrides, config.seed, lm.identity, benchmark])
        directory = start_stage(output_dir / method, key)
        with Measure() as cost:
            built.unlearn(lm, benchmark.data, directory, seed=config.seed, progress=progress)
        summary = {
            "method": method,
            "kind": built.kind,
            "summary": built.summary,
            "artifact": str(directory),
            "base_model": lm.name,
            "seconds": cost.seconds,
            "peak_memory_mb": cost.peak_memory_mb,
            "environment": environment(str(lm.device)),
        }
        write_json(output_dir / "train.json", summary)
    if as_json:
        print_json(summary)
    else:
        click.echo(f"{method} ({built.kind}): artifact in {directory}, {cost.seconds:.1f} s.")
