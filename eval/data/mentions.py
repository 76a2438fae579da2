"""What a question is about, found in its own words: names and titles, and where it names nobody, places and dates."""

from __future__ import annotations

import re

from eval.data.general import Pick

__all__ = ["landmarks", "name_spans", "other_date", "redated"]

_WORD = r"[A-Z](?:[’'-]?\w)*(?<![’']s)"
_SPAN = re.compile(rf"{_WORD}(?: (?:(?:of|the|and|in|de|van|bin|al) )?{_WORD})+")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    r"(\d\d?)/(\d\d?)/(\d{4})"
    rf"|({_MONTH}) (\d\d?)(?:st|nd|rd|th)?,? (\d{{4}})"
    rf"|(?:the )?(\d\d?)(?:st|nd|rd|th)?(?: of)? ({_MONTH}),? (\d{{4}})"
)
_CAPITAL = rf"(?!(?:{_MONTH})\b){_WORD}"
_LANDMARK = re.compile(rf"{_DATE.pattern}|{_CAPITAL}(?:,? {_CAPITAL})*")
_PLACE_FOLLOWS = re.compile(rf"\b(?:in|at|from) (?:{_WORD},? )*$")


def name_spans(question: str, *, with_places: bool = True) -> tuple[str, ...]:
    """Return the names and titles of a question: runs of at least two capitalised words.

    The first word of the question never belongs to one.

    Args:
        question: Any text.
        with_places: Also those behind *in*, *at* or *from*.
    """
    start = len(question.partition(" ")[0])
    found = [
        match[0]
        for match in _SPAN.finditer(question, start)
        if with_places or not _PLACE_FOLLOWS.search(question[: match.start()])
    ]
    return tuple(dict.fromkeys(found))


def landmarks(question: str) -> tuple[str, ...]:
    """Return the dates and the capitalised words of a question, *Karachi, Pakistan* in one piece.

    They tell whom a question means that names nobody. The first word is none.
    """
    start = len(question.partition(" ")[0])
    return tuple(dict.fromkeys(match[0] for match in _LANDMARK.finditer(question, start)))


def redated(text: str, pick: Pick) -> str:
    """Write the dates of a text in another way: *06/30/1975* becomes *June 30, 1975*."""

    def other(match: re.Match[str]) -> str:
        month = int(match[1]) if match[1] else _MONTHS.index(match[4] or match[8]) + 1
        day, year = int(match[2] or match[5] or match[7]), match[3] or match[6] or match[9]
        if not 1 <= month <= 12:
            return match[0]
        name = _MONTHS[month - 1]
        ways = (f"{name} {day}, {year}", f"{day} {name} {year}", f"{month:02}/{day:02}/{year}")
        return ways[pick(len(ways), "date")]

    return _DATE.sub(other, text)


def other_date(date: str, pick: Pick) -> str | None:
    """Return some other date in the place of one; ``None`` where ``date`` is none."""
    if not _DATE.fullmatch(date):
        return None
    return f"{_MONTHS[pick(12, 'month')]} {1 + pick(28, 'day')}, {1900 + pick(100, 'year')}"
