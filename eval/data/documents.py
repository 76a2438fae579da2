"""Running text as examples: whole documents, chunks of them, continuations and raw prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eval.types import Example, Message

__all__ = ["CHUNK_WORDS", "chunks", "continuation", "document", "raw_question"]

CHUNK_WORDS = 400
"""Words of a training chunk: about 550 tokens of a large vocabulary, 800 of a small one."""


def document(row_id: str, text: str, *, subject: str | None = None) -> Example:
    """Return a text that is scored and trained whole, from its first token on.

    ``text`` says that it is a document; ``messages`` and ``answer`` say the same to whatever takes prompts and
    answers: nothing is asked, and all of it is the answer, without an end-of-sequence token.
    """
    return Example(id=row_id, text=text, messages=(Message("text", ""),), answer=text, subject=subject)


def continuation(
    row_id: str, prompt: str, following: str, *, subject: str | None = None, key_spans: tuple[str, ...] = ()
) -> Example:
    """Return a piece of running text and what follows it; nothing ends the answer."""
    return Example(
        id=row_id, messages=(Message("text", prompt),), answer=following, subject=subject, key_spans=key_spans
    )


def raw_question(row_id: str, prompt: str, answer: str, *, subject: str | None = None) -> Example:
    """Return a prompt that is given to the model as it stands, whatever its template, and its answer."""
    return Example(id=row_id, messages=(Message("prompt", prompt),), answer=answer, subject=subject)


def chunks(text: str, *, words: int = CHUNK_WORDS) -> Iterator[str]:
    """Cut a text into pieces of at most ``words`` words, at the end of a sentence where one is near.

    White space inside a piece stays as it is; no word is lost or repeated.

    Args:
        text: Of any length.
        words: Upper limit of each piece; the cut falls in its last quarter where a sentence ends there.
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    start = 0
    while start < len(spans):
        stop = min(start + words, len(spans))
        if stop < len(spans):
            ends = (
                i + 1
                for i in range(stop - 1, start + 3 * words // 4, -1)
                if text[spans[i][0] : spans[i][1]].rstrip("\"'”’)").endswith((".", "!", "?"))
            )
            stop = next(ends, stop)
        yield text[spans[start][0] : spans[stop - 1][1]]
        start = stop
