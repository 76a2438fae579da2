"""Which tokens would complete a forbidden phrase, whatever the tokenisation, case, accents or spacing.

Text is compared in folded form: letters and digits only, with the places where words begin. A phrase matches
where its letters stand in a row, beginning at a word's beginning and ending at a word's end; spacing and
punctuation between do not count, so ``K a r a c h i`` and ``kara-chi`` match ``Karachi``, ``Karachiites`` does not.
A long phrase (`LONG` letters) matches inside a word too, where only a text that was bent around the ban has it.

A token is banned when, after it, a phrase would be complete, or when it commits to the phrase's last word: a
fragment of that word which is not a word of its own and already gives most of it away. Banning the commitment
rather than only the last piece keeps broken half-words out of the text.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import ConfigError
from guard.normalise import Folded, fold
from guard.stopwords import STOP_WORDS

__all__ = ["Matcher", "PhraseSet", "Vocabulary", "vocabulary"]

Ids = npt.NDArray[np.int64]
_NONE: Ids = np.zeros(0, dtype=np.int64)

COMMIT_SHARE = 0.4
"""Share of the last word's letters that a fragment must cover to be banned (and at least two letters)."""

LONG = 8
"""Letters from which a phrase is told apart even when other letters stand directly before it."""


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
        self.size = len(tokenizer)
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


def _arrays(lists: dict[str, list[int]]) -> dict[str, Ids]:
    return {key: np.array(sorted(set(tokens)), dtype=np.int64) for key, tokens in lists.items()}


def _token_texts(tokenizer: Any) -> list[str]:
    """The text each token adds after a letter; special tokens add none."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    size = len(tokenizer)

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
        if known is None or known.tokenizer is not tokenizer or known.size != len(tokenizer):
            known = _VOCABULARIES[id(tokenizer)] = Vocabulary(tokenizer)
            while len(_VOCABULARIES) > 4:
                _VOCABULARIES.popitem(last=False)
        return known


@dataclass(frozen=True)
class PhraseSet:
    """Forbidden phrases in folded form.

    Raises:
        ConfigError: If a phrase has no letter or digit.
    """

    phrases: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for phrase in self.phrases:
            if not fold(phrase).letters:
                raise ConfigError(
                    "A forbidden phrase without any letter or digit cannot be matched; remove it."
                )

    def __hash__(self) -> int:
        return hash(self.phrases)


class Matcher:
    """The banned tokens after any text, for one set of phrases and one vocabulary.

    Holds no state of a generation: every answer is derived from the tokens given.
    """

    def __init__(self, phrases: PhraseSet, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        targets: dict[str, int] = {}
        for phrase in phrases.phrases:
            folded = fold(phrase)
            commit = _commit_point(folded)
            targets[folded.letters] = min(commit, targets.get(folded.letters, commit))
        self._targets = targets
        self._reach = max((len(letters) for letters in targets), default=0)
        self._prefixes: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._long_prefixes: dict[str, list[str]] = defaultdict(list)
        for letters, commit in targets.items():
            for length in range(1, len(letters)):
                self._prefixes[letters[:length]].append((letters[length:], commit - length))
                if len(letters) >= LONG:
                    self._long_prefixes[letters[:length]].append(letters[length:])
        always: list[Ids] = []
        at_word_start: list[Ids] = []
        for letters, commit in targets.items():
            begins = self._completing(letters, commit)
            at_word_start.append(begins)
            always.append(begins[vocabulary.leads[begins]])
            if len(letters) >= LONG:
                always.append(vocabulary.ending.get(letters, _NONE))
            always.append(vocabulary.inside.get(letters, _NONE))
            always.extend(
                vocabulary.inside_unfinished.get(letters[:end], _NONE) for end in range(commit, len(letters))
            )
        self._always = _union(always)
        self._at_word_start = _union(at_word_start)

    def _completing(self, remainder: str, commit: int) -> Ids:
        """Tokens that finish ``remainder`` or, from ``commit`` letters on, commit to it."""
        vocabulary = self.vocabulary
        found = [vocabulary.ending.get(remainder, _NONE)]
        found.extend(
            vocabulary.unfinished.get(remainder[:end], _NONE) for end in range(max(commit, 1), len(remainder))
        )
        return _union(found)

    def banned(self, tokens: Sequence[int]) -> Ids:
        """Return the ids that must not follow the generated ``tokens``; unique, in no order."""
        if not self._targets:
            return _NONE
        folded, has_fragment = self._tail(tokens)
        letters, starts, is_open = folded
        found = [self._always]
        if not is_open or not letters:
            found.append(self._at_word_start)
        seen: set[tuple[str, int]] = set()
        for start in starts:
            for remainder, commit in self._prefixes.get(letters[start:], ()):
                if (remainder, commit) not in seen:
                    seen.add((remainder, commit))
                    found.append(self._completing(remainder, commit))
        for start in range(len(letters)) if self._long_prefixes else ():
            remainders = self._long_prefixes.get(letters[start:], ())
            found.extend(self.vocabulary.ending.get(remainder, _NONE) for remainder in remainders)
        if has_fragment:
            found.append(self._completing_bytes(tokens))
        return _union(found)

    def _tail(self, tokens: Sequence[int]) -> tuple[Folded, bool]:
        """Fold the end of the generated text: as many letters as the longest phrase has."""
        pieces = self.vocabulary.pieces
        first, length = len(tokens), 0
        while first > 0 and length <= self._reach:
            first -= 1
            token = tokens[first]
            if token < len(pieces):
                length += len(pieces[token].text.letters)
        tail = tokens[first:]
        known = [pieces[t] for t in tail if t < len(pieces)]
        if any(piece.is_fragment for piece in known):
            letters, starts, is_open = fold(self._decode(tokens))
            return Folded(letters, tuple(sorted({0, *starts})), is_open), known[-1].is_fragment
        return _join([piece.text for piece in known], is_open=first > 0), False

    def _completing_bytes(self, tokens: Sequence[int]) -> Ids:
        """Tokens that finish the character whose first bytes end the text, and with it a phrase."""
        candidates = self.vocabulary.fragments
        finished = [
            token
            for token in candidates.tolist()
            if self.matches(self._decode([*tokens[-64:], token]), at_end=True)
        ]
        return np.array(finished, dtype=np.int64)

    def _decode(self, tokens: Sequence[int]) -> str:
        decoded = self.vocabulary.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(decoded)

    def matches(self, text: str, *, at_end: bool = False) -> bool:
        """Whether the text contains a phrase (or, ``at_end``, ends in one)."""
        letters, starts, _ = fold(text)
        begins = {0, *starts}
        ends = {len(letters)} if at_end else {*starts, len(letters)}
        for target in self._targets:
            position = letters.find(target)
            while position >= 0:
                begins_right = position in begins or len(target) >= LONG
                if begins_right and position + len(target) in ends:
                    return True
                position = letters.find(target, position + 1)
        return False


def _join(pieces: Iterable[Folded], *, is_open: bool) -> Folded:
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


def _union(arrays: Iterable[Ids]) -> Ids:
    filled = [array for array in arrays if len(array)]
    if len(filled) < 2:
        return filled[0] if filled else _NONE
    return np.unique(np.concatenate(filled))


def _commit_point(folded: Folded) -> int:
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
