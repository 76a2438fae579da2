"""``unlearn stack``: edits for one request after another, each named, each removable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.cli.options import benchmark_options, common_options, model_options, resolve
from unlearn.config import TrainConfig

if TYPE_CHECKING:
    from grun import EditStack

__all__ = ["command"]

PATH = click.Path(path_type=Path)
_STACK = click.option("--stack", type=PATH, required=True, metavar="FOLDER", help="Folder of the stack.")
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
)


class StackTrainConfig(TrainConfig):
    """`unlearn stack train`."""

    stack: Path
    method: str = "grun-idk"


@click.group("stack")
def command() -> None:
    """Keep a stack of GRUN edits: one request after another, each with gates of its own, each removable.

    \b
    unlearn stack train request-1 --model MODEL --benchmark jsonl:first.jsonl --retain-file retain.jsonl --stack edits
    unlearn stack train request-2 --model MODEL --benchmark jsonl:second.jsonl --retain-file retain.jsonl --stack edits
    unlearn stack list --stack edits
    unlearn stack remove request-1 --stack edits
    unlearn generate --model MODEL --grun edits "Where was Jane Roe born?"

    An edit changes no weights: without its folder the model knows everything still.
    """


@command.command("train")
@click.argument("request")
@_STACK
@click.option("--method", help="A GRUN method (default grun-idk); see unlearn methods.")
@model_options
@benchmark_options
@click.option("--set", multiple=True, metavar="KEY=VALUE", help="A setting of the method, such as rank=8.")
@click.option("--seed", type=int, help="Default 0.")
@common_options
@click.pass_context
def train_command(context: click.Context, /, request: str, as_json: bool, **_: object) -> None:
    """Train an edit for REQUEST with the earlier requests at work, and add it to the stack (made where there is none).

    \b
    unlearn stack train request-2 --model MODEL --benchmark jsonl:second.jsonl --retain-file retain.jsonl --stack edits
    """
    from eval.errors import ConfigError
    from unlearn.cli.options import make_benchmark, print_json, quiet_libraries, showing_progress
    from unlearn.cli.prepare import target_model
    from unlearn.methods import make_method, parse_overrides
    from unlearn.runs import locked_run

    config = resolve(context, StackTrainConfig)
    method = make_method(config.method, parse_overrides(config.set, [config.method])[config.method])
    if method.kind != "edit":
        raise ConfigError(
            f"{config.method} makes no GRUN edit, so a stack cannot hold it; use grun-idk, for example."
        )
    benchmark = make_benchmark(config)
    quiet_libraries()
    with locked_run(config.stack), showing_progress() as progress:
        lm = target_model(config, benchmark, progress)
        stack = _opened(lm, config.stack)
        stack.check_new(request)
        work = config.stack / ".training"
        edit: Any = method.unlearn(stack, benchmark.data, work, seed=config.seed, progress=progress)
        stack.add(request, edit)
        stack.save(config.stack)
        _forget(work)
    row = stack.list()[-1]
    if as_json:
        print_json(row | {"training": dict(stack[request].training)})
    else:
        click.echo(
            f"{request}: {row['parameters']} parameters, edit {len(stack)} of {config.stack}; "
            f"use it with --grun {config.stack}."
        )


@command.command("add")
@click.argument("request")
@click.option(
    "--edit", type=PATH, required=True, metavar="FOLDER", help="What `unlearn train grun-...` made."
)
@_STACK
@_JSON
def add_command(request: str, edit: Path, stack: Path, as_json: bool) -> None:
    """Add an edit that is trained already, as REQUEST."""
    from grun.stack_files import add_saved
    from unlearn.runs import locked_run

    inner = [edit, edit / "grun", *sorted(edit.glob("grun-*/grun"))]
    folder = next((path for path in inner if (path / "grun_config.json").is_file()), edit)
    with locked_run(stack):
        add_saved(stack, request, folder)
    _show(stack, as_json)


@command.command("remove")
@click.argument("request")
@_STACK
@_JSON
def remove_command(request: str, stack: Path, as_json: bool) -> None:
    """Take REQUEST out: the model says again what it made it forget; the other requests stay."""
    from grun.stack_files import remove_saved
    from unlearn.runs import locked_run

    with locked_run(stack):
        remove_saved(stack, request)
    _show(stack, as_json)


@command.command("list")
@_STACK
@_JSON
def list_command(stack: Path, as_json: bool) -> None:
    """List the requests of a stack, oldest first."""
    _show(stack, as_json)


def _opened(lm: Any, folder: Path) -> EditStack:
    from grun import EditStack, attach
    from grun.stack_files import MANIFEST_FILE

    if not (folder / MANIFEST_FILE).is_file():
        return EditStack(lm)
    stack = attach(lm, folder)
    assert isinstance(stack, EditStack)
    return stack


def _forget(work: Path) -> None:
    import shutil

    shutil.rmtree(work, ignore_errors=True)


def _show(folder: Path, as_json: bool) -> None:
    from grun.stack_files import describe
    from unlearn.cli.options import print_json

    rows = describe(folder)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        layers = ", ".join(str(layer) for layer in row["layers"])
        click.echo(
            f"{row['name']}: blocks {layers}, rank {row['rank']}, {row['gate']} gate, {row['positions']}, "
            f"{row['parameters']} parameters, trained on {row['base_name']}"
        )
    if not rows:
        click.echo(f"{folder} holds no requests.")
