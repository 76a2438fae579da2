"""``unlearn negatives``: other answers to the forget questions, written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import NegativesConfig

if TYPE_CHECKING:
    from eval.models import LanguageModel
    from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions

__all__ = ["command"]


@click.command("negatives")
@click.option(
    "--kind",
    type=click.Choice(["negatives", "alternates"]),
    help="negatives (default): gradual ones, for gnm; alternates: plausible other answers, for altpo.",
)
@click.option(
    "--generator",
    metavar="WHO",
    help="rules (the generated world's), self (--model), or a model that follows instructions: a name or folder. "
    "Default: the rules where they apply.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Default: negatives.jsonl or alternates.jsonl."
)
@click.option(
    "--prompt",
    type=click.Path(path_type=Path),
    help="Text file with the prompt; fields {question}, {previous}, {answer}.",
)
@click.option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    help="levels, retries, stop_similarity, similarity; alternates.",
)
@click.option("--seed", type=int, help="Default 0.")
@benchmark_options
@model_options
@common_options
@click.pass_context
def command(context: click.Context, /, as_json: bool, **_: object) -> None:
    """Write other answers to a benchmark's forget questions, as JSON lines to look at, to edit, and to train on.

    A gradual negative is asked for from the one before it, the first from the gold answer, and is kept if it is fluent
    and further from the gold answer. An interrupted run goes on where it stopped.

    \b
    unlearn negatives --benchmark tofu:forget05 --generator meta-llama/Llama-3.2-3B-Instruct
    unlearn train gnm --model MODEL --benchmark tofu:forget05 --set negatives_file=negatives.jsonl
    unlearn negatives --kind alternates --output alternates.jsonl          (the generated world, by rules)
    """
    from finetune_baselines.generators import choose_writer
    from finetune_baselines.negatives import Rejections, write_answers
    from finetune_baselines.sections import written_section
    from unlearn.cli.options import make_benchmark, print_json, quiet_libraries, showing_progress

    config = resolve(context, NegativesConfig)
    options = _options(config)
    data = make_benchmark(config).data
    path = config.output or Path(f"{config.kind}.jsonl")
    quiet_libraries()
    with showing_progress() as progress:
        lm = _own_model(config) if options.generator == "self" else None
        writer = choose_writer(options.generator, data.forget, lm, prompt=options.prompt, kind=config.kind)
        checks = Rejections.of(data.retain, data.refusals)
        written = write_answers(
            data.forget, writer, options, rejections=checks, path=path, seed=config.seed, progress=progress
        )
    section = written_section(config.kind, written, config.kind)
    if as_json:
        print_json({"file": str(path), "writer": writer.name, "levels": section.data["rows"]})
        return
    click.echo(section.caption)
    for row in section.data["rows"]:
        rate = f"{100 * row['rate']:.0f} %" if row["rate"] is not None else "-"
        alike = f"{row['similarity']:.2f}" if row["similarity"] is not None else "-"
        click.echo(
            f"  level {row['level']}: kept {row['kept']} of {row['asked']} asked for ({rate}), similarity {alike}"
        )
    click.echo(f"{path}: use it with --set {config.kind}_file={path}")


def _options(config: NegativesConfig) -> NegativeOptions | AlternateOptions:
    """Return the settings that the recipe of this kind would have."""
    from eval.errors import ConfigError
    from finetune_baselines.configuration import configure
    from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions
    from unlearn.methods import parse_overrides

    method = "gnm" if config.kind == "negatives" else "altpo"
    overrides = parse_overrides(config.set, [method])[method] | {"generator": config.generator}
    if config.prompt is not None:
        try:
            overrides[f"{config.kind}_prompt"] = config.prompt.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"The prompt file {config.prompt} cannot be read ({error.strerror}).") from None
    recipe = configure(method, overrides, num_parameters=0).recipe
    return recipe.get(NegativeOptions) if config.kind == "negatives" else recipe.get(AlternateOptions)


def _own_model(config: NegativesConfig) -> LanguageModel:
    from eval.errors import ConfigError
    from unlearn.cli.options import load_model

    if config.is_scratch:
        raise ConfigError(
            "--generator self asks --model to write, and a model from nothing follows no instructions; name a model, "
            "or leave --generator out to use the rules of the generated world."
        )
    return load_model(config)
