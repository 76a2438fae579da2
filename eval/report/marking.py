"""Where in a text the leaked spans stand: the words compared as `eval.metrics.leakage` compares them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["mark_spans"]


class _Word(NamedTuple):
    text: str
    """As leak matching compares it: no case, accents, apostrophes."""
    start: int
    end: int


def mark_spans(text: str, spans: Iterable[str]) -> list[tuple[str, bool]]:
    """Split a text into pieces, each with whether it belongs to one of the spans.

    A span is found as a sequence of whole words, whatever the case, accents and punctuation between them;
    one that is not found so is looked for letter by letter. The pieces put together are the text again.
    """
    from eval.metrics.leakage import normalise_words

    words = _words(text)
    covered: list[tuple[int, int]] = []
    for span in spans:
        wanted = normalise_words(span)
        found = [
            (words[i].start, words[i + len(wanted) - 1].end)
            for i in range(len(words) - len(wanted) + 1)
            if wanted and [word.text for word in words[i : i + len(wanted)]] == wanted
        ]
        if not found and span.strip():
            found = [match.span() for match in re.finditer(re.escape(span.strip()), text, re.IGNORECASE)]
        covered += found
    return _pieces(text, sorted(covered))


def _words(text: str) -> list[_Word]:
    """Return the text's compared words, each with the characters it stands for."""
    from eval.metrics.leakage import normalise_words

    words: list[_Word] = []
    for chunk in re.finditer(r"\S+", text):
        parts = [
            _Word(word, chunk.start() + part.start(), chunk.start() + part.end())
            for part in re.finditer(r"[^\W_]+(?:['’]+[^\W_]+)*", chunk[0])
            for word in normalise_words(part[0])
        ]
        whole = normalise_words(chunk[0])
        if [part.text for part in parts] != whole:  # invisible marks inside a word, combining accents
            parts = [_Word(word, chunk.start(), chunk.end()) for word in whole]
        words += parts
    return words


def _pieces(text: str, covered: list[tuple[int, int]]) -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = []
    end = 0
    for start, stop in covered:
        if stop <= end:
            continue
        if start > end:
            pieces.append((text[end:start], False))
        pieces.append((text[max(start, end) : stop], True))
        end = stop
    if end < len(text) or not pieces:
        pieces.append((text[end:], False))
    return pieces
