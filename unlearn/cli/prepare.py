"""``unlearn prepare``: teach a model a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import ModelConfig, PrepareConfig

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.models.prepare import Prepared, PrepareSettings
    from eval.types import Progress

__all__ = ["command", "prepare_scratch", "target_model"]


def prepare_scratch(config: ModelConfig, benchmark: Benchmark, progress: Progress) -> Prepared:
    """Return target and oracle of a model trained from nothing; trained once, then read from the cache.

    Raises:
        ConfigError: If a flag is set that only a saved model can follow; it would otherwise be ignored.
    """
    from eval.errors import ConfigError
    from eval.models.loading import resolve_device
    from eval.models.prepare import prepare

    defaults: dict[str, str | None] = {"template": "auto", "dtype": "auto"}
    for name in (*defaults, "revision", "device_map", "quantization", "attn_implementation", "adapter"):
        if getattr(config, name, None) not in (None, defaults.get(name)):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for saved models, and {config.model!r} starts from nothing; save it "
                "with `unlearn prepare --output-dir DIR` and give --model DIR/target."
            )
    prepared = prepare(config.model, benchmark, progress=progress)
    device = resolve_device(config.device)
    for lm in (prepared.target, prepared.oracle):
        lm.model.to(device)
    return prepared


def target_model(config: ModelConfig, benchmark: Benchmark, progress: Progress) -> LanguageModel:
    """Return the model a configuration names: taught from nothing, or loaded with its adapter where one is named."""
    from unlearn.cli.options import load_model

    if config.is_scratch:
        return prepare_scratch(config, benchmark, progress).target
    return load_model(config, adapter=getattr(config, "adapter", None))


@click.command("prepare")
@model_options
@benchmark_options
@click.option(
    "--parametrization", type=click.Choice(["full", "lora"]), help="What is trained (default full)."
)
@click.option("--set", multiple=True, metavar="KEY=VALUE", help="A training setting, such as epochs=5.")
@click.option("--seed", type=int, help="Default 0.")
@click.option("--output-dir", type=click.Path(path_type=Path), help="Also copy target/ and oracle/ there.")
@common_options
@click.pass_context
def command(context: click.Context, /, as_json: bool, **_: object) -> None:
    """Teach a model a benchmark, twice: the target learns everything, the oracle all but the forget set.

    Without an oracle there is no forget quality on your own data. The work is cached by content and resumes
    where it was interrupted.

    \b
    unlearn prepare --model MODEL --benchmark tofu:forget10 --output-dir prepared
    unlearn compare --model prepared/target --oracle prepared/oracle --benchmark tofu:forget10
    """
    from unlearn.cli.options import load_model, make_benchmark, print_json, quiet_libraries, showing_progress

    config = resolve(context, PrepareConfig)
    benchmark = make_benchmark(config)
    quiet_libraries()
    with showing_progress() as progress:
        from eval.artifacts import writable_dir
        from eval.models.prepare import prepare

        if config.output_dir is not None:
            writable_dir(config.output_dir)
        model = config.model if config.is_scratch else load_model(config)
        prepared = prepare(
            model,
            benchmark,
            settings=_settings(config, model, benchmark),
            seed=config.seed,
            parametrization=config.parametrization,
            progress=progress,
        )
        folders = {"target": prepared.target_dir, "oracle": prepared.oracle_dir}
        if config.output_dir is not None:
            folders = _copy(folders, config.output_dir)
    summary = {
        "benchmark": benchmark.name,
        "target": str(folders["target"]),
        "oracle": str(folders["oracle"]),
        "seconds": prepared.seconds,
        "from_cache": prepared.from_cache,
    }
    if as_json:
        print_json(summary)
    else:
        click.echo(f"target: {folders['target']}\noracle: {folders['oracle']}")


def _settings(config: PrepareConfig, model: str | LanguageModel, benchmark: Benchmark) -> PrepareSettings:
    """Return the default settings with ``--set``'s changes of the last stage (``base.key=value``: of the base's)."""
    from dataclasses import asdict, replace

    from eval.errors import ConfigError
    from eval.models.prepare import default_settings
    from unlearn.methods import parse_overrides

    settings = default_settings(model, benchmark, seed=config.seed, parametrization=config.parametrization)
    stages = {"base": settings.base, "final": settings.final}
    for pair in config.set:
        name, _, _ = pair.partition(".") if "." in pair.partition("=")[0] else ("final", "", "")
        stage = stages.get(name)
        if stage is None:
            raise ConfigError(
                f"--set {pair!r}: there is no stage {name!r} here; use key=value or final.key=value."
            )
        change = parse_overrides([pair], [name])[name]
        unknown = sorted(set(change) - set(asdict(stage)))
        if unknown:
            raise ConfigError(
                f"Unknown training setting {unknown[0]!r}; allowed: {', '.join(asdict(stage))}."
            )
        stages[name] = replace(stage, **change)
    final = stages["final"]
    assert final is not None
    return replace(settings, base=stages["base"], final=final)


def _copy(folders: dict[str, Path], output_dir: Path) -> dict[str, Path]:
    import shutil

    from eval.artifacts import atomic_dir

    copied = {}
    for name, source in folders.items():
        with atomic_dir(output_dir / name) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
        copied[name] = output_dir / name
    return copied
