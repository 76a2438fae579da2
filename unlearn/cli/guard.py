"""``unlearn guard``: build a filter, add to it, take from it, look into it, ask it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from unlearn.cli.guard_build import GuardModelConfig, has_model, own_model
from unlearn.cli.guard_build import command as build_command
from unlearn.cli.options import resolve

if TYPE_CHECKING:
    from eval.types import Message
    from guard import Decision, Guard

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
_STORE = click.option(
    "--guard", "--store", "store", type=PATH, required=True, metavar="STORE", help="Folder of the guard."
)
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."
)


def _opens_store(function: F) -> F:
    """Add the store, the model of one that uses hidden states, and ``--json``; the command gets its context."""
    taking: Any = click.pass_context(function)
    return cast(F, _STORE(own_model(_JSON(taking))))


@click.group("guard")
def command() -> None:
    """Build and tend a guard: a filter that suppresses what a model should not say, without changing the model.

    \b
    unlearn guard build --benchmark jsonl:forget.jsonl --retain-file retain.jsonl --store my-guard
    unlearn guard check "Where was Jane Roe born?" --store my-guard
    unlearn guard add request-18 --subject "Jane Roe" --alias "J. Roe" --document roe.txt --store my-guard
    unlearn guard remove request-18 --store my-guard
    unlearn guard allow --prompt "Who was Richard Roe?" --store my-guard
    unlearn generate --model MODEL --guard my-guard "Where was Jane Roe born?"

    Forgotten texts stay readable in the folder unless it is built with --private. A guard built with
    `--features hidden --model MODEL` needs that model again wherever it is used.
    """


command.add_command(build_command)


@command.command("add")
@click.argument("request")
@click.option("--examples", type=PATH, metavar="FILE", help="JSON lines with question and answer, or text.")
@click.option("--subject", metavar="NAME", help="A person or thing that prompts may not be about.")
@click.option(
    "--alias", "aliases", multiple=True, metavar="NAME", help="Another name of the subject; repeatable."
)
@click.option(
    "--document", "documents", type=PATH, multiple=True, metavar="FILE", help="A text file; repeatable."
)
@_opens_store
def add_command(
    context: click.Context,
    /,
    request: str,
    examples: Path | None,
    subject: str | None,
    aliases: tuple[str, ...],
    documents: tuple[Path, ...],
    as_json: bool,
    **_: object,
) -> None:
    """Add the forget request REQUEST; the gate is taught anew.

    Question-answer pairs are covered best. A subject alone is recognised by its names and refused; a document is
    kept from being repeated, not from being told in other words.

    \b
    unlearn guard add request-17 --examples more.jsonl --store my-guard
    unlearn guard add request-18 --subject "Jane Roe" --alias "J. Roe" --document roe.txt --store my-guard
    """
    from eval.data.jsonl import read_examples
    from unlearn.cli.options import print_json

    rows = read_examples(examples) if examples is not None else ()
    texts = [_read_text(path) for path in documents]

    def add(g: Guard) -> Any:
        return g.add(request, rows, subject=subject, aliases=aliases, documents=texts)

    added = _change(context, add)
    if as_json:
        print_json({"request": request, "ids": list(added.ids), "notices": list(added.notices)})
        return
    click.echo(f"Added {request}: {len(added.ids)} entries.")
    for notice in added.notices:
        click.echo(f"Note: {notice}", err=True)


@command.command("remove")
@click.argument("request")
@_opens_store
def remove_command(context: click.Context, /, request: str, as_json: bool, **_: object) -> None:
    """Take the forget request REQUEST back: prompts about it are answered again."""
    from unlearn.cli.options import print_json

    count = _change(context, lambda g: g.remove(request))
    if as_json:
        print_json({"request": request, "num_removed": count})
    else:
        click.echo(f"Removed {request}: {count} entries.")


@command.command("list")
@_STORE
@_JSON
def list_command(store: Path, as_json: bool) -> None:
    """List the forget requests with their numbers of entries, and what is allowed; no forgotten text is read."""
    from guard.persistence import read_manifest
    from unlearn.cli.options import print_json

    manifest = read_manifest(store)
    rows: list[dict[str, Any]] = [
        {"request": name, "num_entries": count} for name, count in manifest["requests"].items()
    ]
    for kind in ("prompt", "phrase"):
        rows += [{"allowed": kind, "text": text} for text in manifest.get("allowed", {}).get(f"{kind}s", ())]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        is_request = "request" in row
        click.echo(
            f"{row['request']}\t{row['num_entries']}"
            if is_request
            else f"allowed {row['allowed']}\t{row['text']}"
        )


@command.command("allow")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Is innocent; repeatable.")
@click.option("--phrase", "phrases", multiple=True, metavar="TEXT", help="May be said; repeatable.")
@click.option("--remove", is_flag=True, help="Take them off the list.")
@_opens_store
def allow_command(
    context: click.Context,
    /,
    prompts: tuple[str, ...],
    phrases: tuple[str, ...],
    remove: bool,
    as_json: bool,
    **_: object,
) -> None:
    """Let a prompt pass or a phrase be said, whatever is forgotten: an answer to a false positive.

    Texts are compared word by word; case, accents and marks do not count. A prompt that merely resembles an
    allowed one is judged as before. `unlearn guard list` shows the list.

    \b
    unlearn guard allow --prompt "Who was Richard Roe?" --store my-guard
    unlearn guard allow --phrase "Port Amber" --remove --store my-guard
    """
    from dataclasses import asdict

    from unlearn.cli.options import print_json

    def change(g: Guard) -> Any:
        (g.disallow if remove else g.allow)(prompts=prompts, phrases=phrases)
        return g.allowed

    allowed = _change(context, change)
    if as_json:
        print_json(asdict(allowed))
    else:
        click.echo(f"Allowed now: {len(allowed.prompts)} prompts, {len(allowed.phrases)} phrases.")


@command.command("verify")
@_STORE
@_JSON
def verify_command(store: Path, as_json: bool) -> None:
    """Check a guard's files: checksums, database, ids, vectors. Exit code 2 and one sentence at the first fault."""
    from guard.persistence import verify_store
    from unlearn.cli.options import print_json

    found = verify_store(store)
    if as_json:
        print_json(found)
        return
    index = found["index"]
    search = (
        "exact"
        if index["kind"] == "exact"
        else f"ivf, recall {index['recall']:.4f} measured at {index['num_vectors']}"
    )
    click.echo(
        f"{store} is whole: {found['num_entries']} entries in {len(found['requests'])} requests, "
        f"{found['num_retain']} innocent neighbours, generation {found['generation']}, {search} search."
    )


@command.command("check")
@click.argument("prompts", nargs=-1)
@click.option("--chat", type=PATH, metavar="FILE", help="A JSON list of messages with role and content.")
@_opens_store
def check_command(
    context: click.Context, /, prompts: tuple[str, ...], chat: Path | None, as_json: bool, **_: object
) -> None:
    """Say whether PROMPTS (or each line of standard input) are about something forgotten, and why.

    With --json: {"flagged", "score", "threshold", "evidence", "entries", "allowed"}, and a list of these for several
    prompts.
    No forgotten text is printed.

    \b
    unlearn guard check "Where was Jane Roe born?" --store my-guard
    unlearn guard check --chat conversation.json --store my-guard --json
    """
    from eval.errors import ConfigError
    from unlearn.cli.options import print_json

    asked: list[str | tuple[Message, ...]] = list(prompts)
    if chat is not None:
        asked.append(_read_chat(chat))
    if not asked and not sys.stdin.isatty():
        asked.extend(line.strip() for line in sys.stdin if line.strip())
    if not asked:
        raise ConfigError(
            "No prompt was given; write one after the command, pipe one a line into it, or use --chat."
        )
    decisions = _open(context).check_many(asked)
    if as_json:
        found = [decision.as_json() for decision in decisions]
        print_json(found[0] if len(found) == 1 else found)
        return
    for decision in decisions:
        click.echo(_explained(decision))


def _explained(decision: Decision) -> str:
    verdict = "flagged" if decision.flagged else "passes (allowed)" if decision.is_allowed else "passes"
    lines = [f"{verdict}: score {decision.score:.3f}, threshold {decision.threshold:.3f}"]
    lines += [f"  {name.replace('_', ' ')}: {value:g}" for name, value in decision.evidence.items() if value]
    if decision.entries:
        shown = ", ".join(map(str, decision.entries[:8]))
        more = f" and {len(decision.entries) - 8} more" if len(decision.entries) > 8 else ""
        lines.append(f"  entries: {shown}{more}")
    return "\n".join(lines)


def _open(context: click.Context) -> Guard:
    """Load the guard a command names, with the model whose hidden states it uses.

    Raises:
        ConfigError: If it needs a model and none is named, or none and one is.
    """
    from eval.errors import ConfigError
    from guard.persistence import read_manifest
    from unlearn.cli.options import load_model, quiet_libraries

    store: Path = context.params["store"]
    config = resolve(context, GuardModelConfig)
    is_hidden = read_manifest(store).get("settings", {}).get("features") == "hidden"
    if is_hidden and config.is_scratch:
        raise ConfigError(
            f"The guard in {store} compares prompts by a model's hidden states; name that model with --model."
        )
    if has_model(config) and not is_hidden:
        raise ConfigError(
            f"The guard in {store} compares prompts by a sentence encoder and needs no model; leave --model and how it "
            "is loaded out."
        )
    quiet_libraries()
    from guard import Guard

    return Guard.load(store, model=load_model(config, adapter=config.adapter) if is_hidden else None)


def _change(context: click.Context, change: Callable[[Guard], Any]) -> Any:
    """Load, change and save a guard while nobody else writes it."""
    from guard.persistence import locked_store, read_manifest

    store: Path = context.params["store"]
    read_manifest(store)  # a wrong path must not become a folder
    with locked_store(store):
        g = _open(context)
        out = change(g)
        g.save(store)
    return out


def _read_text(path: Path) -> str:
    from eval.errors import DataError

    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The document {path} cannot be read as UTF-8 text ({error}).") from None


def _read_chat(path: Path) -> tuple[Message, ...]:
    from eval.artifacts import read_json
    from eval.errors import DataError
    from eval.types import conversation

    try:
        turns = conversation(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a list of messages with role and content ({error}).") from None
    if not any(message.role == "user" for message in turns):
        raise DataError(f"{path} has no user turn; there is nothing to check.")
    return turns
