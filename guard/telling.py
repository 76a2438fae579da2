"""How much of what a prompt says is told of one forgotten group, and of no innocent one?

"Whose father was a florist and whose mother a game developer?" names nobody, yet says enough to tell one person from
all others: words that each occur elsewhere occur together in one group's texts alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from eval.types import Example
from guard.normalise import words
from guard.stopwords import STOP_WORDS

__all__ = ["Telling"]

_ENOUGH = 11.0
"""Nats of surprise that count as telling for certain: one group in 60,000. Of a hundred groups a word that one alone
has gives 4.6: a place and a field together do not suffice."""
_KNOWN_OF_TOO_MANY = 0.25
"""Words in the texts of more groups than this share tell nothing."""

Ids = npt.NDArray[np.int64]


class Telling:
    """Weighs the words of a prompt by how few groups they are told of.

    Args:
        forget: Group and texts of what is forgotten.
        retain: Group and texts of what is innocent.
        names: Words of forgotten names, which are weighed elsewhere (`guard.names`).
    """

    def __init__(
        self,
        forget: Sequence[tuple[str, Example]],
        retain: Sequence[tuple[str, Example]],
        names: Iterable[str] = (),
    ) -> None:
        kept_out = STOP_WORDS | frozenset(names)
        groups: dict[tuple[bool, str], int] = {}
        for is_forgotten, rows in ((True, forget), (False, retain)):
            for group, _ in rows:
                groups.setdefault((is_forgotten, group), len(groups))
        self._num_forgotten = sum(is_forgotten for is_forgotten, _ in groups)
        self._num_groups = len(groups)
        self._innocent = {name: i for (is_forgotten, name), i in groups.items() if not is_forgotten}
        told: dict[str, set[int]] = defaultdict(set)
        for is_forgotten, rows in ((True, forget), (False, retain)):
            for group, example in rows:
                number = groups[is_forgotten, group]
                for word in _content(f"{example.question} {example.answer or ''}", kept_out):
                    told[word].add(number)
        most = max(3, int(_KNOWN_OF_TOO_MANY * self._num_groups))
        self._told = {
            word: (np.array(sorted(of)), float(np.log(self._num_groups / len(of))))
            for word, of in told.items()
            if len(of) <= most
        }
        self._kept_out = kept_out

    def margin(self, text: str, hidden: str | None = None) -> float:
        """Return by how much the best forgotten group beats the best innocent one, from 0 to 1.

        Args:
            text: A prompt.
            hidden: An innocent group that must not be looked at; ``None``: there is none.
        """
        known = [self._told[word] for word in _content(text, self._kept_out) if word in self._told]
        if not known or not self._num_forgotten:
            return 0.0
        at = np.concatenate([of for of, _ in known])
        weights = np.concatenate([np.full(len(of), weight) for of, weight in known])
        sums = np.bincount(at, weights, minlength=self._num_groups)
        if hidden is not None and hidden in self._innocent:
            sums[self._innocent[hidden]] = 0.0
        innocent = float(sums[self._num_forgotten :].max(initial=0.0))
        return float(np.clip((sums[: self._num_forgotten].max() - innocent) / _ENOUGH, 0.0, 1.0))


def _content(text: str, kept_out: frozenset[str]) -> set[str]:
    return {word for word in words(text) if len(word) > 2 and word not in kept_out}
