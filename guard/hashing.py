"""Keyed hashes in place of words, for stores that keep no readable text.

A `Veil` turns every content word into a pseudo-word. Capitals, marks and stop words stay, so that names, rare words
and phrases are compared in the veiled form as in the plain one: equality of words is all that exact matching needs.
Spelling is lost, hence typing errors in a name are not recognised.

What a veil does not hide: whoever has the store's folder has the key beside the hashes (``veil.key``) and can test
guesses against them; stop words, single letters and digits, capitals and marks stand as they stood, so the shape of
a text shows; the same word has the same hash everywhere; embeddings tell what a text is about, and can in part be
turned back into words; names of requests are not veiled. It keeps honest people from reading, it is no encryption.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from guard.normalise import plain, words
from guard.stopwords import STOP_WORDS

__all__ = ["PhraseHashes", "Veil", "is_veiled"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_COMMON, _RARE = "qc", "qr"
NGRAM = 4
"""Consecutive words of a document that are too many to repeat: as in `guard.verbatim`."""


class Veil:
    """Replaces words by keyed hashes.

    Args:
        key: Secret of the store.
        is_common: Tells frequent words of the language from others; a pseudo-word says which it stands for.
    """

    def __init__(self, key: bytes, is_common: Callable[[str], bool]) -> None:
        self.key = key
        self._is_common = is_common
        self.word = lru_cache(maxsize=65536)(self._word)

    def _word(self, word: str) -> str:
        if word in STOP_WORDS or len(word) < 2 or is_veiled(word):
            return word
        digest = hashlib.blake2b(
            word.encode("utf-8", "surrogatepass"), key=self.key, digest_size=10
        ).hexdigest()
        # letters only: a digit at the end or the begin would look like a number
        letters = digest.translate(str.maketrans("0123456789", "ghijklmnop"))
        return (_COMMON if self._is_common(word) else _RARE) + letters

    def text(self, text: str) -> str:
        """Return a text with its words veiled; their capitals and the marks between them stay."""

        def veiled(match: re.Match[str]) -> str:
            found = [self.word(word) for word in words(match[0])]
            if match[0][:1].isupper():
                found = [word.capitalize() for word in found]
            return "-".join(found) or match[0]

        return _WORD.sub(veiled, text)

    def is_common(self, word: str) -> bool:
        """Whether a pseudo-word (or a stop word) stands for a frequent word."""
        return word.startswith(_COMMON) or word in STOP_WORDS or len(word) < 2

    def phrases(self, phrases: Iterable[str]) -> tuple[str, ...]:
        """Veil folded phrases word by word."""
        return tuple(" ".join(self.word(word) for word in phrase.split()) for phrase in phrases)

    def ngrams(self, text: str) -> tuple[str, ...]:
        """Return the veiled runs of `NGRAM` words of a document."""
        found = [self.word(word) for word in plain(text).split()]
        return tuple(" ".join(found[i : i + NGRAM]) for i in range(len(found) - NGRAM + 1))


def is_veiled(word: str) -> bool:
    """Whether a word is a veil's pseudo-word already."""
    return len(word) == 22 and word[:2] in (_COMMON, _RARE)


@dataclass(frozen=True)
class PhraseHashes:
    """Forbidden phrases that are known by hashes alone."""

    veil: Veil
    phrases: frozenset[str]
    """Veiled words, parted by spaces."""
    lengths: tuple[int, ...]
    """Numbers of words that phrases have, falling."""

    @classmethod
    def of(cls, veil: Veil, phrases: Iterable[str]) -> PhraseHashes:
        """Collect veiled phrases."""
        found = frozenset(phrases)
        lengths = sorted({phrase.count(" ") + 1 for phrase in found}, reverse=True)
        return cls(veil, found, tuple(lengths))

    @property
    def longest(self) -> int:
        """Words of the longest phrase; 0 without any."""
        return self.lengths[0] if self.lengths else 0

    def ends_in_phrase(self, said: Sequence[str]) -> bool:
        """Whether folded words (`guard.normalise.words`) end in a forbidden phrase."""
        if not self.phrases:
            return False
        veiled = [self.veil.word(word) for word in said[-self.longest :]]
        return any(" ".join(veiled[-n:]) in self.phrases for n in self.lengths if n <= len(veiled))
