"""Runs of capitalised words: what may be a name in a text, and where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eval.types import Example
from guard.normalise import words
from guard.stopwords import STOP_WORDS, word_set

__all__ = [
    "PARTICLES",
    "Run",
    "capitalised_runs",
    "first_is_place",
    "placings",
    "question_text",
    "runs_of",
    "whole_text",
]

Run = tuple[str, ...]
"""The folded words of a run ("Hina Ameen")."""

PARTICLES = word_set("al bin de del della den der di dos du el ibn la le of the van von")
"""Small words that may stand inside a name."""
_RUN_WORD = re.compile(r"[^\W\d_][^\W_]*(?:[.'\u2019-][^\W_]+)*\.?")
_LOWER_PART = re.compile(r"(?<=\w)-[^\W\dA-Z][^\W_]{3,}$")
"""The tail of a compound such as "Tokyo-born", which is no part of a name ("Tae-ho" is one)."""
_PLACE_BEFORE = re.compile(r"(?:\b(?:in|from|at|near|of)\s+(?:the\s+)?|,\s*)$", re.IGNORECASE)
_FIELD_AFTER = re.compile(
    r"['\"\u2019]?\s+(?:genre|literature|category|fiction|culture|author|writer|community|heritage)",
    re.IGNORECASE,
)


def capitalised_runs(text: str) -> list[Run]:
    """Return the folded words of each run of capitalised words ("Hina Ameen"), question words left out."""
    runs: list[list[str]] = [[]]
    end = 0
    for match in _RUN_WORD.finditer(text):
        gap, token = text[end : match.start()], match[0].rstrip(".")
        end = match.end() - (len(match[0]) - len(token))
        folded = words(_LOWER_PART.sub("", token))
        is_apart = bool(gap.strip(" -"))
        if is_apart:
            runs.append([])
        is_name = token[0].isupper() and folded and not (len(folded) == 1 and folded[0] in STOP_WORDS)
        if is_name or (runs[-1] and token.casefold() in PARTICLES and not is_apart):
            runs[-1].extend(folded)
        else:
            runs.append([])
        if re.search(r"['\u2019]s$", token):
            runs.append([])
    trimmed = [_trim(run) for run in runs]
    return [tuple(run) for run in trimmed if run]


def _trim(run: list[str]) -> list[str]:
    while run and run[-1] in PARTICLES:
        run = run[:-1]
    return run


def question_text(example: Example) -> str:
    """Return the question, or the user's turns as one text."""
    if example.question is not None:
        return example.question
    return " ".join(m.content for m in example.messages or () if m.role == "user")


def whole_text(example: Example) -> str:
    """Return question and answer as one text."""
    return f"{question_text(example)} {example.answer or ''}"


def runs_of(example: Example) -> list[Run]:
    """Return the capitalised runs of question and answer."""
    return capitalised_runs(question_text(example)) + capitalised_runs(example.answer or "")


def _places(run: Run, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"\W+".join(map(re.escape, run)), text, re.IGNORECASE)


def first_is_place(run: Run, question: str) -> bool:
    """Whether a run first stands where a place does ("in Kuwait City"), or is not found as it is written."""
    at = next(_places(run, question), None)
    return at is None or bool(_PLACE_BEFORE.search(question[: at.start()]))


def placings(run: Run, text: str) -> tuple[int, int]:
    """Return how often a run stands in a text, and how often as a place or field ("the genre of Love Inspired")."""
    as_place = [
        bool(_PLACE_BEFORE.search(text[: at.start()]) or _FIELD_AFTER.match(text[at.end() :]))
        for at in _places(run, text)
    ]
    return len(as_place), sum(as_place)
