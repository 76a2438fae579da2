"""Which forget row meets which retain row: a function of (seed, epoch, index), never of a global generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from eval.errors import ConfigError

__all__ = ["Pair", "RandomPairs", "deal", "draw"]


def draw(choices: int, *key: int | str) -> int:
    """Return a number in ``[0, choices)`` that depends on ``key`` alone: not on the process, its rank or history."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % choices


@lru_cache(maxsize=64)
def _permutation(size: int, *key: int | str) -> npt.NDArray[np.int64]:
    seed = int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).permutation(size)


def deal(size: int, *key: int | str) -> list[int]:
    """Return the numbers ``[0, size)`` in a random order that depends on ``key`` alone."""
    return [int(i) for i in _permutation(size, *key)]


@dataclass(frozen=True)
class Pair:
    """One item of a training schedule."""

    epoch: int
    forget: int
    """Index into the forget rows."""
    retain: tuple[int, ...]
    """Indices into the retain rows; empty where there are none."""


@dataclass(frozen=True, kw_only=True)
class RandomPairs(Sequence[Pair]):
    """A whole run as one sequence: every forget row once an epoch, in random order, with its retain partners.

    Partners are dealt without replacement: the retain rows are shuffled, used up, shuffled anew, so each gets
    its turn and none is used twice before all were used once. Item ``i`` is the same on every process and
    after every resume, so results do not depend on the number of processes.

    Args:
        num_forget: Forget rows, at least one.
        num_retain: Retain rows; 0: no partners.
        epochs: Passes over the forget rows.
        seed: Of the run.
        retain_per_forget: Partners of each forget row.

    Raises:
        ConfigError: If a number is out of range.
    """

    num_forget: int
    num_retain: int
    epochs: int
    seed: int = 0
    retain_per_forget: int = 1

    def __post_init__(self) -> None:
        for name, least in (("num_forget", 1), ("num_retain", 0), ("epochs", 1), ("retain_per_forget", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}.")

    def __len__(self) -> int:
        return self.num_forget * self.epochs

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        """Return the ``index``-th item of the run."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch, position = divmod(index, self.num_forget)
        forget = int(_permutation(self.num_forget, self.seed, "forget", epoch)[position])
        count = self.retain_per_forget if self.num_retain else 0
        return Pair(epoch, forget, tuple(self._dealt(index * count + k) for k in range(count)))

    def _dealt(self, turn: int) -> int:
        deal, position = divmod(turn, self.num_retain)
        return int(_permutation(self.num_retain, self.seed, "retain", deal)[position])
