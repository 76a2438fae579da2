"""``unlearn guard``: build a filter, add to it, take from it, look into it, ask it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from unlearn.cli.options import benchmark_options, common_options, resolve
from unlearn.config import BenchmarkConfig

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


class GuardBuildConfig(BenchmarkConfig):
    """`unlearn guard build`; what is not given is the guard's own default."""

    store: Path | None = None
    request: str = "request-1"
    encoder: str | None = None
    false_positive_rate: float | None = None
    private: bool | None = None
    index: Literal["exact", "ivf"] | None = None
    seed: int | None = None


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

    Forgotten texts stay readable in the folder unless it is built with --private.
    """


@command.command("build")
@benchmark_options
@click.option(
    "--guard", "--store", "--output-dir", "store", type=PATH, help="Default: runs/guard-<benchmark>."
)
@click.option("--request", metavar="NAME", help="Name of the first forget request (default request-1).")
@click.option(
    "--encoder", metavar="NAME", help="Sentence encoder: hub name or folder (default: the packaged MiniLM)."
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
@common_options
@click.pass_context
def build_command(context: click.Context, /, replace: bool, as_json: bool, **_: object) -> None:
    """Build a guard from a benchmark's forget and retain rows, or from your own files, in seconds.

    \b
    unlearn guard build --benchmark jsonl:forget.jsonl --retain-file retain.jsonl --store my-guard
    unlearn guard build --benchmark tofu:forget05 --data-dir tofu/ --private
    """
    from eval.errors import ConfigError
    from unlearn.cli.options import make_benchmark, print_json, quiet_libraries, showing_progress
    from unlearn.runs import slug

    config = resolve(context, GuardBuildConfig)
    folder = config.store or Path("runs") / slug(f"guard-{config.benchmark}")
    if (folder / "manifest.json").exists() and not replace:
        raise ConfigError(
            f"There is a guard in {folder} already; add to it, choose another folder, or give --replace."
        )
    benchmark = make_benchmark(config)
    quiet_libraries()
    from guard import Guard, GuardSettings
    from guard.persistence import locked_store

    names = {"encoder", "false_positive_rate", "private", "index", "seed"}
    settings = GuardSettings(**config.model_dump(include=names, exclude_none=True))
    with locked_store(folder), showing_progress() as progress:
        progress("building the guard", 0, 1)
        g = Guard.build(
            forget=benchmark.forget,
            retain=benchmark.retain,
            background=benchmark.background,
            refusals=benchmark.refusals,
            request=config.request,
            settings=settings,
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
@_STORE
@_JSON
def add_command(
    request: str,
    examples: Path | None,
    subject: str | None,
    aliases: tuple[str, ...],
    documents: tuple[Path, ...],
    store: Path,
    as_json: bool,
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

    added = _change(store, add)
    if as_json:
        print_json({"request": request, "ids": list(added.ids), "notices": list(added.notices)})
        return
    click.echo(f"Added {request}: {len(added.ids)} entries.")
    for notice in added.notices:
        click.echo(f"Note: {notice}", err=True)


@command.command("remove")
@click.argument("request")
@_STORE
@_JSON
def remove_command(request: str, store: Path, as_json: bool) -> None:
    """Take the forget request REQUEST back: prompts about it are answered again."""
    from unlearn.cli.options import print_json

    count = _change(store, lambda g: g.remove(request))
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
@_STORE
@_JSON
def allow_command(
    prompts: tuple[str, ...], phrases: tuple[str, ...], remove: bool, store: Path, as_json: bool
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

    allowed = _change(store, change)
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
@_STORE
@_JSON
def check_command(prompts: tuple[str, ...], chat: Path | None, store: Path, as_json: bool) -> None:
    """Say whether PROMPTS (or each line of standard input) are about something forgotten, and why.

    With --json: {"flagged", "score", "threshold", "evidence", "entries", "allowed"}, and a list of these for several
    prompts.
    No forgotten text is printed.

    \b
    unlearn guard check "Where was Jane Roe born?" --store my-guard
    unlearn guard check --chat conversation.json --store my-guard --json
    """
    from eval.errors import ConfigError
    from unlearn.cli.options import print_json, quiet_libraries

    asked: list[str | tuple[Message, ...]] = list(prompts)
    if chat is not None:
        asked.append(_read_chat(chat))
    if not asked and not sys.stdin.isatty():
        asked.extend(line.strip() for line in sys.stdin if line.strip())
    if not asked:
        raise ConfigError(
            "No prompt was given; write one after the command, pipe one a line into it, or use --chat."
        )
    quiet_libraries()
    from guard import Guard

    decisions = Guard.load(store).check_many(asked)
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


def _change(store: Path, change: Callable[[Guard], Any]) -> Any:
    """Load, change and save a guard while nobody else writes it."""
    from guard.persistence import locked_store, read_manifest
    from unlearn.cli.options import quiet_libraries

    read_manifest(store)  # a wrong path must not become a folder
    quiet_libraries()
    from guard import Guard

    with locked_store(store):
        g = Guard.load(store)
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
