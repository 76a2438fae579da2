"""How many typing errors lie between two words, and which known names are close to a misspelt one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

__all__ = ["Spellings", "edits"]


def edits(a: str, b: str, limit: int) -> int:
    """Return the least number of insertions, deletions, substitutions and swaps of neighbours, or ``limit + 1``."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        last, row = row, [i]
        for j, other in enumerate(b, start=1):
            cost = min(last[j] + 1, row[-1] + 1, last[j - 1] + (char != other))
            if i > 1 and j > 1 and char == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and (not before or min(last) > limit):
            return limit + 1
        before = last
    return min(row[-1], limit + 1)


class Spellings:
    """Words, or names without their spaces, looked up by a misspelling.

    A misspelling keeps the first letter: hardly anybody gets that one wrong, and other words mostly differ in it.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._by_shape: dict[tuple[str, int], set[str]] = defaultdict(set)
        for word in known:
            self.add(word)

    def add(self, word: str) -> None:
        """Know a word; one that is known already stays."""
        self._by_shape[word[0], len(word)].add(word)

    def remove(self, word: str) -> None:
        """Know a word no more, if it was."""
        self._by_shape[word[0], len(word)].discard(word)

    def near(self, word: str, limit: int) -> dict[str, int]:
        """Return the known words at most ``limit`` typing errors away, and how many each needs."""
        found: dict[str, int] = {}
        for length in range(len(word) - limit, len(word) + limit + 1):
            for other in self._by_shape.get((word[:1], length), ()):
                distance = edits(word, other, limit)
                if distance <= limit:
                    found[other] = distance
        return found
