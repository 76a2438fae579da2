"""How much of what a prompt says is told of one forgotten group, and of no innocent one?

"Whose father was a florist and whose mother a game developer?" names nobody, yet says enough to tell one person from
all others: words that each occur elsewhere occur together in one group's texts alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eval.types import Example
from guard.normalise import words
from guard.runs import whole_text
from guard.stopwords import STOP_WORDS

__all__ = ["Telling"]

_ENOUGH = 11.0
"""Nats of surprise that count as telling for certain: one group in 60,000. Of a hundred groups a word that one alone
has gives 4.6: a place and a field together do not suffice."""
_KNOWN_OF_TOO_MANY = 0.25
"""Words in the texts of more groups than this share tell nothing."""

Ids = npt.NDArray[np.int64]
_NOBODY: Ids = np.zeros(0, dtype=np.int64)


class Telling:
    """Weighs the words of a prompt by how few groups they are told of.

    Args:
        forget: Group and texts of what is forgotten.
        retain: Group and texts of what is innocent.
        names: Words of forgotten names, which are weighed elsewhere (`guard.names`); looked at when a prompt is.
    """

    def __init__(
        self,
        forget: Sequence[tuple[str, Example]],
        retain: Sequence[tuple[str, Example]],
        names: Collection[str] = (),
    ) -> None:
        self._names = names
        self._forgotten, self._innocent = _Told(), _Told()
        self._innocent.add(retain)
        self._forgotten.add(forget)

    def add(self, forget: Sequence[tuple[str, Example]]) -> None:
        """Count further forgotten texts."""
        self._forgotten.add(forget)

    def margin(self, text: str, hidden: str | None = None) -> float:
        """Return by how much the best forgotten group beats the best innocent one, from 0 to 1.

        Args:
            text: A prompt.
            hidden: An innocent group that must not be looked at; ``None``: there is none.
        """
        num_groups = len(self._forgotten.groups) + len(self._innocent.groups)
        most = max(3, int(_KNOWN_OF_TOO_MANY * num_groups))
        weights: dict[str, float] = {}
        for word in (w for w in _content(text) if w not in self._names):
            count = len(self._forgotten.of(word)) + len(self._innocent.of(word))
            if 0 < count <= most:
                weights[word] = float(np.log(num_groups / count))
        if not weights or not self._forgotten.groups:
            return 0.0
        sums, innocent = self._forgotten.sums(weights), self._innocent.sums(weights)
        if hidden is not None and hidden in self._innocent.groups:
            innocent[self._innocent.groups[hidden]] = 0.0
        return float(np.clip((sums.max() - innocent.max(initial=0.0)) / _ENOUGH, 0.0, 1.0))


class _Told:
    """The groups of some texts, and which of them each word is told of."""

    def __init__(self) -> None:
        self.groups: dict[str, int] = {}
        """Name of a group to its number."""
        self._told: dict[str, set[int]] = defaultdict(set)
        self._arrays: dict[str, Ids] = {}

    def add(self, rows: Sequence[tuple[str, Example]]) -> None:
        for group, example in rows:
            number = self.groups.setdefault(group, len(self.groups))
            for word in _content(whole_text(example)):
                if number not in self._told[word]:
                    self._told[word].add(number)
                    self._arrays.pop(word, None)

    def of(self, word: str) -> Ids:
        """Return the numbers of the groups a word is told of."""
        if word not in self._told:
            return _NOBODY
        if word not in self._arrays:
            self._arrays[word] = np.array(sorted(self._told[word]), dtype=np.int64)
        return self._arrays[word]

    def sums(self, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
        """Return the sum of the weights of the words each group is told with, shape ``(groups,)``."""
        told = [self.of(word) for word in weights]
        each = np.repeat(list(weights.values()), list(map(len, told)))
        sums = np.bincount(np.concatenate(told), each, minlength=len(self.groups))
        return np.asarray(sums, dtype=np.float64)


def _content(text: str) -> set[str]:
    return {word for word in words(text) if len(word) > 2 and word not in STOP_WORDS}
