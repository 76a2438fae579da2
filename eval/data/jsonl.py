"""A user's own data: JSON lines with at least ``question`` and ``answer``; line numbers stand in every error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.registry import BenchmarkOptions
from eval.errors import ConfigError, DataError
from eval.types import Example, Message

__all__ = ["load", "read_examples", "read_rows"]

_TEXT_FIELDS = ("question", "answer", "text", "paraphrased_question", "paraphrased_answer", "subject")
_LIST_FIELDS = {"perturbed_answer": "perturbed_answers", "perturbed_answers": "perturbed_answers"} | {
    name: name for name in ("key_spans", "choices")
}


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read JSON lines as ``(line number, object)``; empty lines are skipped.

    Raises:
        DataError: If the file is missing, or a line is not a JSON object; the sentence names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no data file {path}; check the path.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise DataError(
            f"The data file {path} cannot be read ({error.strerror}); name a JSON-lines file."
        ) from None
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number} is not valid JSON ({error.msg} at column {error.colno}); mend or remove it."
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number} holds a {type(row).__name__}, not a JSON object; mend or remove it."
            )
        rows.append((number, row))
    return rows


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read examples from JSON lines; a row's id is its ``id`` field, else its index in the file.

    Raises:
        DataError: If a line is broken or lacks a field; the sentence names the line.
    """
    examples = tuple(
        _example(row, index, f"{path}, line {number}") for index, (number, row) in enumerate(read_rows(path))
    )
    seen: dict[str, int] = {}
    for index, example in enumerate(examples):
        if example.id in seen:
            raise DataError(
                f"{path}: rows {seen[example.id] + 1} and {index + 1} share the id {example.id!r}; give each its own."
            )
        seen[example.id] = index
    return examples


def _example(row: dict[str, Any], index: int, where: str) -> Example:
    fields: dict[str, Any] = {"id": str(row.get("id", index))}
    for name in _TEXT_FIELDS:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {name!r} is {type(value).__name__}, not text; put it in quotes.")
        if value is not None:
            fields[name] = value
    for name, field in _LIST_FIELDS.items():
        value = row.get(name)
        if value is not None:
            fields[field] = _texts(value, name, where)
    if row.get("messages") is not None:
        fields["messages"] = _messages(row["messages"], where)
    has_prompt = "question" in fields or "messages" in fields
    if has_prompt and not fields.get("answer"):
        raise DataError(f"{where}: the row has a question but no 'answer'; give it one.")
    if not has_prompt and "text" not in fields:
        raise DataError(
            f"{where}: the row needs 'question' and 'answer' (or 'messages' and 'answer', or 'text')."
        )
    if isinstance(row.get("choice"), int):
        fields["choice"] = row["choice"]
    return Example(**fields)


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise DataError(f"{where}: {name!r} must be a text or a list of texts.")


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    try:
        turns = tuple(Message(str(turn["role"]), str(turn["content"])) for turn in value)
    except (TypeError, KeyError):
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'.") from None
    if not turns or turns[-1].role != "user":
        raise DataError(f"{where}: 'messages' must end with a user turn.")
    return turns


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``jsonl:FORGET_FILE`` with ``--retain-file`` and, for membership inference, ``--holdout``.

    Raises:
        ConfigError: If no file is named.
        DataError: If a file is broken, empty, or shares rows with the other.
    """
    if not split:
        raise ConfigError(
            "Benchmark 'jsonl' needs a file: jsonl:forget.jsonl, with --retain-file retain.jsonl."
        )
    forget = read_examples(_resolve(split, options))
    retain = read_examples(options.retain_file) if options.retain_file else ()
    notes: list[str] = []
    absent = dict.fromkeys(("ra", "wf"), "a jsonl benchmark has no such split")
    splits: dict[str, Sequence[Example]] = {"forget": forget}
    if retain:
        splits["retain"] = retain
    else:
        absent["retain"] = "no --retain-file was given"
    if options.holdout is not None:
        splits["holdout"] = read_examples(options.holdout)
    else:
        absent["holdout"] = "no holdout rows were given (--holdout FILE)"
    if options.max_retain is not None and len(retain) > options.max_retain:
        retain = retain[: options.max_retain]
        notes.append(f"Taught and kept: the first {options.max_retain} retain rows (--max-retain).")
    benchmark = Benchmark(
        name=f"jsonl:{split}",
        forget=forget,
        retain=retain,
        splits={name: tuple(rows) for name, rows in splits.items()},
        notes=tuple(notes),
        absent=absent,
    )
    check_disjoint(benchmark)
    return benchmark


def _resolve(name: str, options: BenchmarkOptions) -> Path:
    path = Path(name)
    return options.data_dir / path if options.data_dir is not None and not path.is_absolute() else path
