"""``unlearn guard build``: a filter from a benchmark or from files; and the model of one that uses hidden states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from unlearn.cli.options import benchmark_options, common_options, resolve
from unlearn.config import BenchmarkConfig, ModelConfig

__all__ = ["GuardModelConfig", "command", "has_model", "own_model"]

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


class GuardModelConfig(ModelConfig):
    """The model whose hidden states a guard uses, where it does."""

    adapter: Path | None = None


class GuardBuildConfig(BenchmarkConfig, GuardModelConfig):
    """`unlearn guard build`; what is not given is the guard's own default."""

    store: Path | None = None
    request: str = "request-1"
    encoder: str | None = None
    features: Literal["encoder", "hidden"] | None = None
    layer: int | None = None
    false_positive_rate: float | None = None
    private: bool | None = None
    index: Literal["exact", "ivf"] | None = None
    seed: int | None = None


def own_model(function: F) -> F:
    """Add the model of a guard built with ``--features hidden``, and what it is loaded with."""
    for option in (
        click.option("--quantization", help="Of --model: int8 or nf4 (bitsandbytes)."),
        click.option("--dtype", help="Of --model: auto (default), float32, bfloat16, float16."),
        click.option("--device", help="Of --model: auto (default), cpu, cuda, cuda:N, mps."),
        click.option("--revision", help="Of --model on the hub."),
        click.option("--adapter", type=PATH, help="Of --model: a PEFT adapter folder."),
        click.option(
            "--model",
            metavar="MODEL",
            help="With --features hidden: the model's folder or hub name, the same always.",
        ),
    ):
        function = option(function)
    return function


def has_model(config: GuardModelConfig) -> bool:
    """Whether a model, or how one is loaded, was given."""
    fields = GuardModelConfig.model_fields
    return any(getattr(config, name) != field.default for name, field in fields.items())


@click.command("build")
@benchmark_options
@click.option(
    "--guard", "--store", "--output-dir", "store", type=PATH, help="Default: runs/guard-<benchmark>."
)
@click.option("--request", metavar="NAME", help="Name of the first forget request (default request-1).")
@click.option(
    "--encoder", metavar="NAME", help="Sentence encoder: hub name or folder (default: the packaged MiniLM)."
)
@click.option(
    "--features",
    type=click.Choice(["encoder", "hidden"]),
    help="What prompts are compared by: the sentence encoder (default), or the hidden states of --model.",
)
@click.option(
    "--layer",
    type=int,
    help="Which hidden state, with --features hidden (default -2: the one before the last).",
)
@click.option(
    "--false-positive-rate", type=float, metavar="P", help="Calibrate the gate to it (default 0.005)."
)
@click.option(
    "--private", is_flag=True, default=None, help="Keep embeddings and keyed hashes only, no readable text."
)
@click.option(
    "--index", type=click.Choice(["exact", "ivf"]), help="exact (default), or ivf for very large stores."
)
@click.option("--seed", type=int, help="Of samples (default 0).")
@click.option("--replace", is_flag=True, help="Replace a guard that stands in the folder.")
@own_model
@common_options
@click.pass_context
def command(context: click.Context, /, replace: bool, as_json: bool, **_: object) -> None:
    """Build a guard from a benchmark's forget and retain rows, or from your own files, in seconds.

    \b
    unlearn guard build --benchmark jsonl:forget.jsonl --retain-file retain.jsonl --store my-guard
    unlearn guard build --benchmark tofu:forget05 --data-dir tofu/ --private
    unlearn guard build --benchmark tofu:forget05 --data-dir tofu/ --features hidden --model MODEL

    --features hidden is for where no sentence encoder can be installed, for languages it does not know, or to gate
    as the GUARD paper does. The guard then fits that model alone, with that adapter and quantization: every command
    that opens it needs the same --model, another one is refused, and after training the guard is built anew.
    With the sentence encoder a guard fits any model.
    """
    from eval.errors import ConfigError
    from unlearn.cli.options import load_model, make_benchmark, print_json, quiet_libraries, showing_progress
    from unlearn.runs import slug

    config = resolve(context, GuardBuildConfig)
    folder = config.store or Path("runs") / slug(f"guard-{config.benchmark}")
    if (folder / "manifest.json").exists() and not replace:
        raise ConfigError(
            f"There is a guard in {folder} already; add to it, choose another folder, or give --replace."
        )
    _check_features(config)
    benchmark = make_benchmark(config)
    quiet_libraries()
    from guard import Guard, GuardSettings
    from guard.persistence import locked_store

    names = {"encoder", "features", "layer", "false_positive_rate", "private", "index", "seed"}
    settings = GuardSettings(**config.model_dump(include=names, exclude_none=True))
    model = load_model(config, adapter=config.adapter) if config.features == "hidden" else None
    with locked_store(folder), showing_progress() as progress:
        progress("building the guard", 0, 1)
        g = Guard.build(
            forget=benchmark.forget,
            retain=benchmark.retain,
            background=benchmark.background,
            refusals=benchmark.refusals,
            request=config.request,
            settings=settings,
            model=model,
        )
        g.save(folder)
        progress("building the guard", 1, 1)
    made = {
        "store": str(folder),
        "num_entries": len(g.store),
        "requests": g.list(),
        "threshold": g.classifier.threshold,
        "held_out_recall": g.classifier.recall,
        "held_out_false_positive_rate": g.classifier.false_positive_rate,
    }
    if as_json:
        print_json(made)
        return
    click.echo(
        f"{folder}: {len(g.store)} entries; on held-out rewordings the gate recognises {g.classifier.recall:.1%}, "
        f"on held-out innocent prompts it flags {g.classifier.false_positive_rate:.2%}."
    )
    click.echo("A guard suppresses: the model behind it still knows.")


def _check_features(config: GuardBuildConfig) -> None:
    """Refuse a choice of features without what it needs, and flags that would be ignored."""
    from eval.errors import ConfigError

    if config.features == "hidden":
        if config.is_scratch:
            raise ConfigError(
                "--features hidden compares prompts by a model's hidden states; name its folder or hub name "
                "with --model."
            )
        if config.encoder is not None:
            raise ConfigError(
                "--features hidden stands in the sentence encoder's place; leave --encoder out."
            )
    elif config.layer is not None or has_model(config):
        raise ConfigError(
            "--layer, --model and how it is loaded are for --features hidden; add that, or leave them out: a guard "
            "on the sentence encoder fits any model."
        )
