"""Leaks in generated text: does an answer say what was to be forgotten?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["leaked_spans", "normalise_words"]

_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u3164\uffa0\U000e0000-\U000e007f]"
)
_WORD = re.compile(r"\w+")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")


def normalise_words(text: str) -> list[str]:
    """Return the words of a text as leak matching compares them.

    Compatibility forms are folded (NFKC), invisible and direction marks removed, accents and case dropped,
    possessive 's cut off and other apostrophes closed up; everything else that is neither letter nor digit
    separates words.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)))
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(char for char in text if not unicodedata.combining(char))
    return _WORD.findall(_POSSESSIVE.sub("", text).replace("'", "").replace("’", "").replace("_", " "))


def leaked_spans(text: str, spans: Sequence[str], *, question: str = "") -> tuple[str, ...]:
    """Return those key spans that ``text`` says, as whole words, in the order given.

    A span that the question itself contains is no secret and never counts.

    Args:
        text: A generated answer.
        spans: What would be a leak, such as a name, a date or a title.
        question: The prompt's own words.
    """
    said, asked = _padded(text), _padded(question)
    return tuple(
        span for span in spans if (words := _padded(span)) != "  " and words in said and words not in asked
    )


def _padded(text: str) -> str:
    return f" {' '.join(normalise_words(text))} "
