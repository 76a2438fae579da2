"""Who a question is about, where the benchmark does not say: the name that most questions around it share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from eval.types import Example

__all__ = ["with_subjects"]

_NAME = re.compile(
    r"[A-Z][^\W\d_]+(?:[-'][A-Z][^\W\d_]+)?(?: (?:[A-Z][^\W\d_]+(?:[-'][A-Z][^\W\d_]+)?|bin|de|van))+"
)


def _names(question: str) -> list[str]:
    """Runs of capitalised words, and the same without their first word, which may only open the sentence."""
    found = _NAME.findall(question)
    return found + [rest for name in found if " " in (rest := name.partition(" ")[2])]


def with_subjects(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with their ``subject``: where it is not given, the name that most questions around share."""
    counts = Counter(name for e in examples for name in set(_names(e.question or "")))
    out: list[Example] = []
    for example in examples:
        found = [n for n in _names(example.question or "") if counts[n] >= 3]
        name = max(found, key=lambda n: (counts[n], len(n)), default=None)
        out.append(example if example.subject or name is None else example.replace(subject=name))
    return out
