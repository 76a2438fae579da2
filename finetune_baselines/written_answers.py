"""The file of other answers to forget questions: JSON lines that a run writes, and that users read, edit and supply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.artifacts import write_text
from eval.data.jsonl import read_rows
from eval.errors import DataError
from eval.types import Example

__all__ = ["Kind", "Written", "keep_finished", "read_answers", "read_written", "write_written"]

Kind = Literal["negatives", "alternates"]
"""Also the field of a line that holds the answers."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The other answers of one forget row: one line."""

    id: str
    question: str
    answer: str
    texts: tuple[str, ...] = ()
    """Negatives: nearest to the gold answer first."""
    similarity: tuple[float, ...] = ()
    """Of each text to the gold answer, from 0 to 1."""
    asked: tuple[int, ...] = ()
    """Texts that were asked for at each level, the last level perhaps in vain."""
    rejected: tuple[str, ...] = ()
    """Why those that were not kept were not."""
    writer: str = ""
    """Who wrote them."""
    run: str = ""
    """Fingerprint of how: lines of another run are written anew."""

    def line(self, kind: Kind) -> dict[str, Any]:
        """Return the line's fields."""
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            kind: list(self.texts),
            "similarity": [round(value, 4) for value in self.similarity],
            "asked": list(self.asked),
            "rejected": list(self.rejected),
            "writer": self.writer,
            "run": self.run,
        }


def write_written(path: Path, kind: Kind, rows: Sequence[Written]) -> None:
    """Write the lines atomically."""
    write_text(path, "".join(json.dumps(row.line(kind), ensure_ascii=False) + "\n" for row in rows))


def read_written(path: Path, kind: Kind) -> list[Written]:
    """Read what `write_written` wrote, or what a user wrote: ``id`` (or ``question``) and the answers are enough.

    Raises:
        DataError: If a line is broken or lacks the answers; the sentence names the line.
    """
    return [_written(row, kind, f"{path}, line {number}") for number, row in read_rows(path)]


def _written(row: Mapping[str, Any], kind: Kind, where: str) -> Written:
    texts = row.get(kind)
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: {kind!r} must be a list of texts, none of them empty.")
    if row.get("id") is None and not row.get("question"):
        raise DataError(f"{where}: the line needs the 'id' or the 'question' of a forget row.")
    return Written(
        id="" if row.get("id") is None else str(row["id"]),
        question=str(row.get("question") or ""),
        answer=str(row.get("answer") or ""),
        texts=tuple(texts),
        similarity=tuple(row.get("similarity") or ()),
        asked=tuple(row.get("asked") or ()),
        rejected=tuple(row.get("rejected") or ()),
        writer=str(row.get("writer") or ""),
        run=str(row.get("run") or ""),
    )


def read_answers(path: Path, kind: Kind, rows: Sequence[Example]) -> list[Written]:
    """Read the lines of forget rows, in their order; lines of other rows, such as of a larger set, are left out.

    Raises:
        DataError: If a line is broken, two lines are about one row, or no line is about any row.
    """
    by_id: dict[str, Written] = {}
    by_question: dict[str, Written] = {}
    for written in read_written(path, kind):
        known, key = (by_id, written.id) if written.id else (by_question, written.question)
        if key in known:
            raise DataError(f"{path} has two lines about {key!r}; keep one.")
        known[key] = written
    found = [by_id.get(row.id) or by_question.get(row.conversation[-1].content) for row in rows]
    if not any(written is not None and written.texts for written in found):
        raise DataError(
            f"{path} holds {kind} for none of the {len(rows)} forget rows; its ids must be theirs, such as "
            f"{rows[0].id!r}."
        )
    return [
        Written(
            id=row.id,
            question=row.conversation[-1].content,
            answer=row.answer or "",
            texts=() if written is None else written.texts,
            similarity=() if written is None else written.similarity,
            asked=() if written is None else written.asked,
            rejected=() if written is None else written.rejected,
            writer="" if written is None else written.writer,
        )
        for row, written in zip(rows, found, strict=True)
    ]


def keep_finished(path: Path | None, kind: Kind, run: str) -> dict[str, Written]:
    """Return the lines of an interrupted run by id; those of any other run, and a broken file, count for nothing."""
    if path is None or not path.is_file():
        return {}
    try:
        return {written.id: written for written in read_written(path, kind) if written.run == run}
    except DataError:
        return {}
