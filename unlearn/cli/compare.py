"""``unlearn compare``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import CompareConfig

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.types import Progress

__all__ = ["command", "located_benchmark", "prepared_models"]


@click.command("compare")
@model_options
@click.option(
    "--oracle", metavar="MODEL", help="A model that was never taught the forget set (forget quality)."
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="A retain model's evaluation log, in place of an oracle.",
)
@benchmark_options
@click.option(
    "--methods",
    metavar="A,B,...",
    help="Names from `unlearn methods`, or 'all'; default: eight, of every family.",
)
@click.option(
    "--set", multiple=True, metavar="KEY=VALUE", help="A method's setting: npo.beta=0.2, or beta=0.2 for all."
)
@click.option("--seed", type=int, help="Of every method (default 0).")
@click.option("--seeds", type=int, help="Run every method with so many seeds; means and spread (default 1).")
@click.option(
    "--eval-every",
    type=int,
    metavar="N",
    help="Also evaluate every N training steps, on a sample; drawn in the page.",
)
@click.option("--max-new-tokens", type=int, help="Of generation (default 200).")
@click.option("--output-dir", type=click.Path(path_type=Path), help="Default: runs/<benchmark>[-<model>].")
@common_options
@click.pass_context
def command(context: click.Context, /, as_json: bool, **_: object) -> None:
    """Unlearn with several methods and compare them.

    Each method unlearns the forget set from the same target; each is then measured beside the target (knows
    everything) and the oracle (never saw it). Finished methods are kept: the same command resumes.

    \b
    unlearn compare                                     a generated benchmark, a model trained from nothing
    unlearn compare --benchmark tofu:forget01 --data-dir TOFU --model scratch:small --max-retain 400
    unlearn compare --benchmark tofu:forget10 --model MODEL --oracle RETAIN_MODEL --methods npo,grun-npo,guard
    unlearn compare --methods npo,grun-npo --seeds 3    means, spread, and what is within the noise
    unlearn compare --methods ga,npo --eval-every 10    forgetting and utility against steps
    unlearn compare --set npo.beta=0.2 --set npo.learning_rate=1e-4
    """
    from unlearn.cli.options import print_report, quiet_libraries, showing_progress
    from unlearn.comparison import CompareSettings, compare_prepared, refuse_launcher
    from unlearn.located import locate, relocated
    from unlearn.methods import make_method, parse_overrides
    from unlearn.runs import slug

    refuse_launcher()
    config = resolve(context, CompareConfig)
    methods = _methods(config.methods)
    settings = CompareSettings(
        methods=methods,
        overrides=parse_overrides(config.set, methods),
        seed=config.seed,
        seeds=config.seeds,
        max_new_tokens=config.max_new_tokens,
        reference=_reference(relocated(config).reference),
        eval_every=config.eval_every,
    )
    for name in methods:
        make_method(name, settings.overrides[name])
    benchmark = located_benchmark(config)
    name = slug(config.benchmark) if config.model == "scratch" else slug(f"{config.benchmark}-{config.model}")
    output_dir = config.output_dir or Path("runs") / name
    quiet_libraries()
    with showing_progress() as progress:
        target, oracle, taught = prepared_models(config, benchmark, output_dir, progress)
        report = compare_prepared(
            target,
            oracle,
            benchmark,
            settings,
            output_dir,
            taught=taught,
            config={**config.model_dump(mode="json"), "methods": list(methods), "located": locate(config)},
            progress=progress,
        )
    print_report(report, as_json, output_dir)


def _methods(given: str | list[str] | None) -> tuple[str, ...]:
    from unlearn.methods import DEFAULT_METHODS, method_names

    if given is None:
        return DEFAULT_METHODS
    names = given.split(",") if isinstance(given, str) else given
    names = [name.strip() for name in names if name.strip()]
    return tuple(method_names()) if names == ["all"] else tuple(names)


def _reference(path: Path | None) -> Any:
    if path is None:
        return None
    from eval.report.open_unlearning import read_log

    return read_log(path, prefer=("oracle", "model"))


def located_benchmark(config: CompareConfig) -> Benchmark:
    """Load the benchmark from where its files are; it keeps the name it was given, which results go by."""
    from dataclasses import replace

    from unlearn.cli.options import make_benchmark
    from unlearn.located import relocated

    return replace(make_benchmark(relocated(config)), name=config.benchmark)


def prepared_models(
    config: CompareConfig, benchmark: Benchmark, output_dir: Path, progress: Progress
) -> tuple[LanguageModel, LanguageModel | None, dict[str, float]]:
    """Return target, oracle and how long teaching them took: trained from nothing for ``scratch``, else loaded."""
    from eval.artifacts import writable_dir
    from unlearn.cli.options import load_model
    from unlearn.located import relocated

    config = relocated(config)
    writable_dir(output_dir)
    if config.is_scratch:
        from unlearn.cli.prepare import prepare_scratch

        prepared = prepare_scratch(config, benchmark, progress)
        return prepared.target, prepared.oracle, {"target": prepared.seconds, "oracle": prepared.seconds}
    target = load_model(config)
    oracle = load_model(config, config.oracle) if config.oracle is not None else None
    return target, oracle, {}
