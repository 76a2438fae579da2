"""Titles of works in a text: between quotation marks, or begun by a capital article."""

from __future__ import annotations

import re

from guard.normalise import words
from guard.stopwords import STOP_WORDS

__all__ = ["LONGEST_TITLE", "quoted_titles"]

LONGEST_TITLE = 12
"""Words a title may have."""
_QUOTED = re.compile(
    r"[\"\u201c]([^\"\u201d]{4,80})[\"\u201d]|(?<!\w)['\u2018]([A-Z][^'\u2018]{3,80}?)['\u2019](?!\w)"
)
_WITH_ARTICLE = re.compile(r"(?<=[a-z,] )(?:The|An?)(?: [A-Z][\w'\u2019-]+){2,5}")
"""A capital article inside a sentence begins a title: "the author of The Gentle Compass"."""


def quoted_titles(text: str) -> set[tuple[str, ...]]:
    """Return the titles of a text in folded words: quoted ones of two words or one long one, or with an article."""
    spans = [tuple(words(m[1] or m[2])) for m in _QUOTED.finditer(text)]
    spans += [tuple(words(m[0])) for m in _WITH_ARTICLE.finditer(text)]
    return {
        s
        for s in spans
        if (len(s) > 1 or len("".join(s)) >= 8) and set(s) - STOP_WORDS and len(s) <= LONGEST_TITLE
    }
