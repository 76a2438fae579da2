"""Running text for an edit that needs a prompt: each document becomes beginnings and what follows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.data.documents import continuation
from eval.types import Example

__all__ = ["CUTS", "FOLLOWING", "with_prompts"]

CUTS = (0.2, 0.5, 0.8)
"""Shares of a document's words after which an edit is trained; the published code uses the last alone."""
FOLLOWING = 0.2
"""Share of the words that follows as the answer."""


def with_prompts(rows: Sequence[Example]) -> list[Example]:
    """Return the rows, each document (``text``) replaced by one continuation for each of `CUTS`.

    A document of fewer than ten words is cut once, in the middle.
    """
    out: list[Example] = []
    for row in rows:
        if row.text is None:
            out.append(row)
            continue
        words = re.findall(r"\S+\s*", row.text)
        cuts = CUTS if len(words) >= 10 else (0.5,)
        for share in cuts:
            start = max(1, int(share * len(words)))
            stop = start + max(1, round(FOLLOWING * len(words)))
            prompt, following = "".join(words[:start]), "".join(words[start:stop]).rstrip()
            if following:
                name = f"{row.id}@{share:g}"
                out.append(continuation(name, prompt, following, subject=row.subject))
    return out
