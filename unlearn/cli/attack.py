"""``unlearn attack``: what survives what."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("attack")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--attacks", metavar="A,B,...", help="Names or families (see --list); default: every attack.")
@click.option("--methods", metavar="A,B,...", help="Of the run; default: every finished one.")
@click.option(
    "--wordings",
    type=click.Path(path_type=Path),
    help='Prompts of your own, such as translations: JSON lines {"id": ..., "question": ..., "attack": ...}.',
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask at most so many forget questions.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of rewordings, sampling and relearning."
)
@click.option(
    "--keep-weights/--no-keep-weights",
    default=True,
    show_default=True,
    help="Keep what relearning trains (three copies of each model's weights), to train it once.",
)
@click.option("--list", "lists", is_flag=True, help="List the attacks and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")
def command(
    run: Path | None,
    attacks: str | None,
    methods: str | None,
    wordings: Path | None,
    limit: int | None,
    max_new_tokens: int,
    seed: int,
    keep_weights: bool,
    lists: bool,
    as_json: bool,
) -> None:
    """Attack every model of a finished comparison: the folder RUN that `unlearn compare` left.

    Other wordings, sampling, a look inside, rounded weights, edits switched off, a little fine-tuning: the table says
    how much of the forgotten each brings back, beside the target (an attack it does not answer shows nothing) and the
    oracle (what guessing, or learning anew, reaches). Finished attacks are kept, answer by answer: the
    same command resumes.

    \b
    unlearn attack --list
    unlearn attack runs/world-forget05
    unlearn attack runs/world-forget05-shaped      after `unlearn compare --benchmark world:forget05-shaped`
    unlearn attack runs/world-forget05 --attacks capitals,relearning --methods npo,guard --limit 40
    """
    if lists:
        _list(as_json)
        return
    from eval.errors import ConfigError
    from unlearn.attacking import DEFAULT_ATTACKS, AttackSettings, attack
    from unlearn.cli.compare import located_benchmark, prepared_models
    from unlearn.cli.options import print_report, quiet_libraries, showing_progress
    from unlearn.config import CompareConfig, build
    from unlearn.methods import parse_overrides

    if run is None or not (run / "config.yaml").is_file():
        raise ConfigError(
            f"{run or 'Nothing'} is not a run folder; give the folder that `unlearn compare` left, such as "
            "runs/world-forget05."
        )
    config = build(CompareConfig, run / "config.yaml", {})
    benchmark = located_benchmark(config)
    of_run = config.methods if isinstance(config.methods, list) else (config.methods or "").split(",")
    settings = AttackSettings(
        attacks=_names(attacks) or DEFAULT_ATTACKS,
        wordings=wordings,
        methods=_names(methods),
        overrides=parse_overrides(config.set, of_run),
        seed=seed,
        limit=limit,
        max_new_tokens=max_new_tokens,
        keep_weights=keep_weights,
    )
    quiet_libraries()
    with showing_progress() as progress:
        target, oracle, _ = prepared_models(config, benchmark, run, progress)
        report = attack(target, oracle, benchmark, run, settings, progress=progress)
    print_report(report, as_json, run / "attack")
    if not as_json:
        from unlearn.display import section_text

        for section in report.sections:
            click.echo(f"\n{section_text(section, without=('summary', 'family'))}")


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _list(as_json: bool) -> None:
    from eval.attacks.catalogue import attacks
    from unlearn.cli.options import print_json

    known = attacks()
    if as_json:
        print_json([{"name": a.name, "family": a.family, "summary": a.summary} for a in known.values()])
        return
    width, families = max(map(len, known)), max(len(a.family) for a in known.values())
    for one in known.values():
        click.echo(f"{one.name:<{width}}  {one.family:<{families}}  {one.summary}")
