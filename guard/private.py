"""Bans from hashed phrases: what a store without raw text allows.

No automaton can be built from hashes, so the likeliest next tokens are tried one by one, and all others are
banned with them: an answer to a flagged prompt is written with the `NUM_CANDIDATES` likeliest tokens of each
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from guard.normalise import Folded, fold
from guard.verbatim import last_words, split_words
from guard.vocabulary import Ids, Vocabulary, join

__all__ = ["NUM_CANDIDATES", "HashMatcher", "Hashes"]

NUM_CANDIDATES = 256
"""Likeliest tokens of a step that are tried; all others are banned."""

_LETTERS_OF_A_WORD = 24


class Hashes(Protocol):
    """Keyed hashes of forbidden phrases."""

    @property
    def longest(self) -> int:
        """Words of the longest phrase."""
        ...

    def ends_in_phrase(self, words: Sequence[str], /) -> bool:
        """Whether the last of these folded words are a phrase."""
        ...


class HashMatcher:
    """Tries which tokens complete a hashed phrase; holds no state."""

    def __init__(self, hashes: Hashes, vocabulary: Vocabulary) -> None:
        self.hashes = hashes
        self.vocabulary = vocabulary

    def allowed(self, tokens: Sequence[int], candidates: Ids) -> Ids:
        """Return those ``candidates`` that may follow the generated ``tokens``."""
        tail, _ = self.vocabulary.tail(tokens, self.hashes.longest * _LETTERS_OF_A_WORD)
        kept = [token for token in candidates.tolist() if not self._completes(tail, token)]
        return np.array(kept, dtype=np.int64)

    def _completes(self, tail: Folded, token: int) -> bool:
        pieces = self.vocabulary.pieces
        if token >= len(pieces) or not pieces[token].text.letters:
            return False
        words = split_words(join([tail, pieces[token].text], is_open=False))
        fresh = 1 + sum(start > 0 for start in pieces[token].text.starts)
        return any(self.hashes.ends_in_phrase(words[: len(words) - i]) for i in range(fresh))

    def matches(self, text: str) -> bool:
        """Whether the text contains a phrase."""
        words = split_words(fold(text))
        return any(self.hashes.ends_in_phrase(words[: i + 1]) for i in range(len(words)))

    def held(self, text: str) -> int:
        """Return how many characters at the end of a text could still grow into a phrase: its last words."""
        return last_words(text, self.hashes.longest)
