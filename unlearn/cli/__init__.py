"""The ``unlearn`` command: one file a command, each imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from unlearn.shadow import refuse_if_shadowed

__all__ = ["cli", "main"]

COMMANDS = {
    "compare": "Unlearn with several methods and compare them with the model before and a model that never knew.",
    "prepare": "Teach a model a benchmark: the target (everything) and the oracle (retain only).",
    "train": "Run one method and keep its artifact.",
    "negatives": "Write the other answers that gnm and altpo train on, to look at and to edit.",
    "evaluate": "Measure one model, with or without an adapter, an edit or a filter.",
    "generate": "Answer prompts with a model, with or without an adapter, an edit or a filter.",
    "attack": "Attack what a comparison made: other wordings, rounding, relearning, ...",
    "guard": "Build a filter, add to it, take from it, verify it, ask it.",
    "stack": "Edits for one request after another: train, add, remove, list.",
    "report": "Print a finished run again, or render its pages anew.",
    "methods": "List the unlearning methods.",
    "benchmarks": "List the benchmarks.",
    "metrics": "List and explain metrics, or recompute a published log.",
}


class _LazyGroup(click.Group):
    """Lists commands from the table above and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"unlearn.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from eval.errors import UnknownNameError

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UnknownNameError("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.command(
    cls=_LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "UNLEARN",
    },
)
@click.version_option(package_name="unlearn-toolkit", prog_name="unlearn")
def cli() -> None:
    """Make a language model stop revealing something, and prove it.

    A filter (guard) suppresses, an adapter (grun) edits hidden states, training changes weights.

    \b
    Start here:
      unlearn compare                          the whole product once, on a generated benchmark
      unlearn compare --benchmark tofu:forget05 --model MODEL --oracle RETAIN_MODEL
      unlearn methods                          what there is to compare
    """
    refuse_if_shadowed()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's error is one line on stderr and exit code 2, a bug keeps its traceback.

    Args:
        arguments: What stands after ``unlearn``; ``None``: the process's own.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin for long while they wait take the cores from whatever else runs on the machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    from eval.errors import UnlearnError

    try:
        cli.main(None if arguments is None else list(arguments), standalone_mode=False)
    except UnlearnError as error:
        _fail(" ".join(str(error).split()))
    except click.Abort:
        print("Interrupted; run the same command again to go on where it stopped.", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Interrupted; run the same command again to go on where it stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def _fail(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(2)
