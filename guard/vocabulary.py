"""The folded text of every token of a tokenizer, and which tokens finish a word that has begun.

Everything that bans tokens stands on it: exact phrases, runs of a document, hashed phrases.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from guard.normalise import Folded, fold
from guard.stopwords import STOP_WORDS

__all__ = ["NONE", "Ids", "Vocabulary", "commit_point", "join", "union", "vocabulary"]

Ids = npt.NDArray[np.int64]
"""Token ids, unique."""

NONE: Ids = np.zeros(0, dtype=np.int64)
"""No token."""

COMMIT_SHARE = 0.4
"""Share of the last word's letters that a fragment must cover to be banned (and at least two letters)."""


@dataclass(frozen=True)
class _Piece:
    """The folded text of one token."""

    text: Folded
    is_fragment: bool
    """Whether the token is a part of a character's bytes and means nothing alone."""


class Vocabulary:
    """The folded text of every token of a tokenizer, indexed by the letters a phrase may still need.

    Args:
        tokenizer: Any Hugging Face tokenizer; only its decoding is used.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.size = _size(tokenizer)
        texts = _token_texts(tokenizer)
        self.pieces = [_Piece(fold(text), "\ufffd" in text) for text in texts]
        self.fragments = np.array([i for i, p in enumerate(self.pieces) if p.is_fragment], dtype=np.int64)
        self._index()

    def _index(self) -> None:
        ending: dict[str, list[int]] = defaultdict(list)
        unfinished: dict[str, list[int]] = defaultdict(list)
        inside: dict[str, list[int]] = defaultdict(list)
        inside_unfinished: dict[str, list[int]] = defaultdict(list)
        leads = np.zeros(self.size, dtype=bool)
        for token, piece in enumerate(self.pieces):
            letters, starts, is_open = piece.text
            leads[token] = bool(starts) and starts[0] == 0
            if not letters or piece.is_fragment:
                continue
            ends = [s for s in starts if s > 0] + [len(letters)]
            for end in ends:
                ending[letters[:end]].append(token)
            if is_open:
                unfinished[letters].append(token)
            for start in (s for s in starts if s > 0):
                for end in (e for e in ends if e > start):
                    inside[letters[start:end]].append(token)
                if is_open:
                    inside_unfinished[letters[start:]].append(token)
        self.leads = leads
        """Whether a token's text begins with a separator, shape ``(V,)``."""
        glues = [
            bool(p.text.letters) and not leads[i] and not p.is_fragment for i, p in enumerate(self.pieces)
        ]
        self.glued = np.flatnonzero(glues)
        """Tokens whose letters would continue the word before."""
        self.ending = _arrays(ending)
        """Letters to the tokens whose text begins with them and then ends or separates."""
        self.unfinished = _arrays(unfinished)
        """Letters to the tokens that are exactly these letters and end in one."""
        self.inside = _arrays(inside)
        """Like ``ending``, for letters that begin at a word inside the token."""
        self.inside_unfinished = _arrays(inside_unfinished)
        self.longest = max((len(p.text.letters) for p in self.pieces), default=1)

    def completing(self, remainder: str, commit: int) -> Ids:
        """Tokens that finish the letters ``remainder`` or, from ``commit`` letters on, commit to them."""
        found = [self.ending.get(remainder, NONE)]
        found.extend(
            self.unfinished.get(remainder[:end], NONE) for end in range(max(commit, 1), len(remainder))
        )
        return union(found)

    def tail(self, tokens: Sequence[int], reach: int) -> tuple[Folded, bool]:
        """Fold the end of a generated text: at least ``reach`` letters, if it has as many.

        Returns:
            The folded end, and whether it ends in a part of a character.
        """
        first, length = len(tokens), 0
        while first > 0 and length <= reach:
            first -= 1
            token = tokens[first]
            if token < len(self.pieces):
                length += len(self.pieces[token].text.letters)
        known = [self.pieces[t] for t in tokens[first:] if t < len(self.pieces)]
        if any(piece.is_fragment for piece in known):
            letters, starts, is_open = fold(self.decode(tokens))
            return Folded(letters, tuple(sorted({0, *starts})), is_open), known[-1].is_fragment
        return join([piece.text for piece in known], is_open=first > 0), False

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens without special ones."""
        decoded = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(decoded)


def _arrays(lists: dict[str, list[int]]) -> dict[str, Ids]:
    return {key: np.array(sorted(set(tokens)), dtype=np.int64) for key, tokens in lists.items()}


def _size(tokenizer: Any) -> int:
    """One more than the largest id: added tokens may leave gaps."""
    return max(len(tokenizer), max(tokenizer.get_added_vocab().values(), default=-1) + 1)


def _token_texts(tokenizer: Any) -> list[str]:
    """The text each token adds after a letter; special tokens add none."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    size = _size(tokenizer)

    def decode(rows: list[list[int]]) -> list[str]:
        return list(
            tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    base = decode([anchor])[0]
    texts = decode([[*anchor, token] for token in range(size)])
    return [text[len(base) :] if text.startswith(base) else text for text in texts]


_VOCABULARIES: OrderedDict[int, Vocabulary] = OrderedDict()
_VOCABULARIES_LOCK = threading.Lock()


def vocabulary(tokenizer: Any) -> Vocabulary:
    """Return the tokenizer's `Vocabulary`, built once (the last four are kept)."""
    with _VOCABULARIES_LOCK:
        known = _VOCABULARIES.get(id(tokenizer))
        if known is None or known.tokenizer is not tokenizer or known.size != _size(tokenizer):
            known = _VOCABULARIES[id(tokenizer)] = Vocabulary(tokenizer)
            while len(_VOCABULARIES) > 4:
                _VOCABULARIES.popitem(last=False)
        return known


def join(pieces: Iterable[Folded], *, is_open: bool) -> Folded:
    """Join folded pieces; ``is_open``: whether letters stand directly before the first."""
    letters: list[str] = []
    starts: list[int] = []
    count = 0
    for text in pieces:
        if not text.letters:
            is_open = is_open and text.is_open
            continue
        if not is_open and text.starts[:1] != (0,):
            starts.append(count)
        starts.extend(count + start for start in text.starts)
        letters.append(text.letters)
        count += len(text.letters)
        is_open = text.is_open
    return Folded("".join(letters), tuple(starts), is_open)


def union(arrays: Iterable[Ids]) -> Ids:
    """Join arrays of ids into one without repetition."""
    filled = [array for array in arrays if len(array)]
    if len(filled) < 2:
        return filled[0] if filled else NONE
    return np.unique(np.concatenate(filled))


def commit_point(folded: Folded) -> int:
    """Letters of the phrase after which its last word is given away.

    A fragment that is itself a common word ("the" of "theology") is no commitment: the point moves past it. The
    first digits of a number give nothing away: other numbers begin with them.
    """
    begin = max((s for s in folded.starts), default=0)
    last = folded.letters[begin:]
    if last.isdigit():
        return len(folded.letters)
    commit = max(2, ceil(COMMIT_SHARE * len(last)))
    for length in range(commit, len(last)):
        if last[:length] in STOP_WORDS:
            commit = length + 1
    return begin + min(commit, len(last))
