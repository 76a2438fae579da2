"""What is said instead of an answer under the ``refuse`` policy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["REFUSALS", "refusal_for"]

REFUSALS: tuple[str, ...] = (
    "I'm sorry, I can't help with that.",
    "I don't have anything to say about that.",
    "That is something I can't tell you.",
    "Sorry, this is not a question I can answer.",
)
"""The package's own refusals."""


def refusal_for(texts: Sequence[str], refusals: Sequence[str] = ()) -> str:
    """Return the refusal for a prompt: the same one each time, chosen by the prompt's text.

    Args:
        texts: The user turns.
        refusals: What to choose from; empty: `REFUSALS`.
    """
    choices = refusals or REFUSALS
    digest = hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]
