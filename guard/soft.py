"""Semantic matching without an encoder in the loop: words near a forbidden one are banned or made less likely.

A lexicon of words (those that are one token of the model or one piece of the encoder) is encoded once and kept on
disk. A request then costs one product of that matrix with its phrases' vectors: words from `delta` on join the exact
phrases, so they are caught where the word ends, in any tokenisation; the others give a penalty of `alpha` times their
similarity to the tokens that begin them, as in the paper's soft match (arXiv:2505.13312, section 3.3).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from eval.artifacts import fingerprint, writable_dir
from eval.errors import ConfigError
from eval.models.prepare import cache_directory
from guard.encoder import SentenceEncoder
from guard.stopwords import STOP_WORDS
from guard.vocabulary import Vocabulary, vocabulary

__all__ = ["Nearness", "SoftMatch"]

Array = npt.NDArray[np.float32]
_SHORTEST = 4
_FLOOR = 0.3
"""Similarities below this mean nothing: unrelated words reach it."""


@dataclass(frozen=True)
class Nearness:
    """What one set of phrases means for one vocabulary."""

    words: tuple[str, ...]
    """To be banned as the phrases are."""
    penalty: Array
    """Nats to take from each token's score, shape ``(V,)``."""


class SoftMatch:
    """Finds words near forbidden ones. Opt-in: building the lexicon takes minutes on a CPU, once for a tokenizer.

    Args:
        encoder: A sentence encoder, such as ``guard.encoder`` of a `Guard`.
        delta: Similarity from which a word is banned; in (0, 1].
        alpha: Nats for a similarity of 1 below ``delta``; at least 0.
        cache_dir: Where the lexicon is kept; ``None``: the user's cache folder.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        *,
        delta: float = 0.8,
        alpha: float = 1.0,
        cache_dir: Path | str | None = None,
    ) -> None:
        if not 0 < delta <= 1 or alpha < 0:
            raise ConfigError(
                f"delta is {delta} and alpha {alpha}; delta lies in (0, 1], alpha is at least 0."
            )
        self.encoder, self.delta, self.alpha = encoder, delta, alpha
        self._cache_dir = Path(cache_dir) if cache_dir is not None else None
        self._lock = threading.Lock()
        self._lexicons: dict[int, tuple[Vocabulary, list[str], Array]] = {}

    def prepare(self, tokenizer: Any) -> int:
        """Build or read the lexicon of a tokenizer; return its number of words."""
        return len(self._lexicon(vocabulary(tokenizer))[0])

    def nearness(self, phrases: Sequence[str], vocabulary: Vocabulary) -> Nearness:
        """Return what is near ``phrases`` (folded) of one word; numbers and longer phrases have no neighbours."""
        words, vectors = self._lexicon(vocabulary)
        penalty = np.zeros(vocabulary.size, dtype=np.float32)
        named = [phrase for phrase in phrases if _is_word(phrase)]
        if not named:
            return Nearness((), penalty)
        near = (vectors @ self.encoder.encode(named).T).max(axis=1)
        banned = [words[i] for i in np.flatnonzero(near >= self.delta)]
        for i in np.flatnonzero((near >= _FLOOR) & (near < self.delta)):
            tokens = vocabulary.unfinished.get(words[i])
            if tokens is not None:
                penalty[tokens[vocabulary.leads[tokens]]] = self.alpha * near[i]
        return Nearness(tuple(banned), penalty)

    def _lexicon(self, vocabulary: Vocabulary) -> tuple[list[str], Array]:
        with self._lock:
            known = self._lexicons.get(id(vocabulary))
            if known is None or known[0] is not vocabulary:
                words = sorted(w for w in {*vocabulary.unfinished, *self.encoder.common_words} if _is_word(w))
                known = self._lexicons[id(vocabulary)] = (vocabulary, words, self._vectors(words))
            return known[1], known[2]

    def _vectors(self, words: list[str]) -> Array:
        root = writable_dir(self._cache_dir or cache_directory() / "lexicons")
        path = root / f"{fingerprint({'encoder': self.encoder.identity, 'words': words})[:32]}.safetensors"
        if path.is_file():
            return np.asarray(load_file(path)["vectors"], dtype=np.float32)
        vectors = self.encoder.encode(words)
        part = path.with_suffix(f".{threading.get_native_id()}.part")
        save_file({"vectors": vectors}, part)
        part.replace(path)
        return vectors


def _is_word(text: str) -> bool:
    return len(text) >= _SHORTEST and text.isalpha() and text not in STOP_WORDS
