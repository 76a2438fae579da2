"""``unlearn generate``: answer prompts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from unlearn.cli.options import attach_options, common_options, model_options, resolve
from unlearn.config import GenerateConfig

__all__ = ["command"]


@click.command("generate")
@click.argument("prompts", nargs=-1)
@model_options
@attach_options
@click.option(
    "--audit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --guard: append one JSON line a prompt (decision, action, latency; never the text).",
)
@click.option("--max-new-tokens", type=int, help="Default 128.")
@click.option("--sample", is_flag=True, default=None, help="Sample instead of taking the most likely token.")
@click.option("--temperature", type=float, help="With --sample (default 1.0).")
@click.option("--top-p", type=float, help="With --sample (default 1.0).")
@click.option("--seed", type=int, help="With --sample (default 0).")
@common_options
@click.pass_context
def command(context: click.Context, /, prompts: tuple[str, ...], as_json: bool, **_: object) -> None:
    """Answer PROMPTS (or each line of standard input) with a model, an edit or a filter.

    \b
    unlearn generate --model M "Who wrote The Silent Ford?"
    unlearn generate --model M --guard runs/world-forget05/guard "Where was Ada Quill born?"
    unlearn generate --model M --guard my-guard --policy refuse --audit audit.jsonl < prompts.txt
    """
    from eval.models import GenerationOptions
    from unlearn.cli.options import attach, load_model, print_json, quiet_libraries

    config = resolve(context, GenerateConfig)
    _check(config)
    prompts = prompts or _from_stdin()
    quiet_libraries()
    lm = attach(load_model(config, adapter=config.adapter), config)
    if config.audit is not None:
        from guard import AuditLog, GuardedModel

        assert isinstance(lm, GuardedModel)  # --guard is there, and the filter goes on last
        lm.audit = AuditLog(config.audit)
    options = GenerationOptions(
        max_new_tokens=config.max_new_tokens,
        do_sample=config.sample,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    answers = lm.generate(prompts, options)
    if as_json:
        rows = [
            {
                "prompt": prompt,
                "text": answer.text,
                "is_finished": answer.is_finished,
                "masked_steps": answer.masked_steps,
            }
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        print_json(rows)
    else:
        for answer in answers:
            click.echo(answer.text)


def _check(config: GenerateConfig) -> None:
    """Refuse what would answer with noise, and flags that would be ignored."""
    from eval.errors import ConfigError

    if config.is_scratch:
        raise ConfigError(
            "generate needs a model that has learned something; name its folder or hub name with --model "
            "(`unlearn prepare --output-dir DIR` makes DIR/target from nothing)."
        )
    if not config.sample and (config.temperature, config.top_p) != (1.0, 1.0):
        raise ConfigError("--temperature and --top-p change sampling only; add --sample, or leave them out.")
    if config.audit is not None and config.guard is None:
        raise ConfigError("--audit logs what a guard decides; name its store with --guard, or leave it out.")


def _from_stdin() -> tuple[str, ...]:
    from eval.errors import ConfigError

    if sys.stdin.isatty():
        raise ConfigError("No prompt was given; write one after the command, or pipe one a line into it.")
    prompts = tuple(line.strip() for line in sys.stdin if line.strip())
    if not prompts:
        raise ConfigError("No prompt was given: standard input was empty; write one after the command.")
    return prompts
