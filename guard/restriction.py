"""What a decision forbids, as one thing that bans tokens: phrases, runs of documents, hashed phrases."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from guard.gate import Decision
from guard.matching import Matcher, PhraseSet
from guard.private import NUM_CANDIDATES, HashMatcher
from guard.verbatim import RunMatcher
from guard.vocabulary import Ids, Vocabulary, union, vocabulary

__all__ = ["Restriction", "must_refuse", "restriction_for"]

_KEPT = 512


class Restriction:
    """The tokens that must not come next, for one decision and one vocabulary.

    Holds no state of a generation: every answer is derived from the tokens given. A flagged decision that
    names nothing to leave out (a subject without known answers) bans everything: only a refusal is left.
    """

    def __init__(self, decision: Decision, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.bans_all = must_refuse(decision)
        passages, hashes = _passages(decision), _hashes(decision)
        self._exact = Matcher(PhraseSet(decision.phrases), vocabulary) if decision.phrases else None
        self._runs = RunMatcher(passages, vocabulary) if passages else None
        self._hashed = HashMatcher(hashes, vocabulary) if hashes is not None else None

    def banned(self, tokens: Sequence[int], scores: Tensor) -> Ids:
        """Return the ids that must not follow the generated ``tokens``.

        Args:
            tokens: Generated so far.
            scores: Of the next token, shape ``(V,)``; read only where phrases are hashed.
        """
        if self.bans_all:
            return np.arange(len(scores), dtype=np.int64)
        found: list[Ids] = []
        if self._exact is not None:
            found.append(self._exact.banned(tokens))
        if self._runs is not None:
            found.append(self._runs.banned(tokens))
        if self._hashed is not None:
            best = scores.topk(min(NUM_CANDIDATES, len(scores))).indices
            allowed = self._hashed.allowed(tokens, best.cpu().numpy())
            found.append(np.setdiff1d(np.arange(len(scores), dtype=np.int64), allowed))
        return union(found)

    def matches(self, text: str) -> bool:
        """Whether a text says what it must not: a last check on what was written."""
        parts = (self._exact, self._runs, self._hashed)
        return any(part is not None and part.matches(text) for part in parts)

    def held(self, text: str) -> int:
        """Return how many characters at the end of a text could still grow into something forbidden."""
        parts = (self._exact, self._runs, self._hashed)
        return max((part.held(text) for part in parts if part is not None), default=0)


def must_refuse(decision: Decision) -> bool:
    """Whether a flagged prompt can only be refused, because nothing says what its answer must leave out."""
    knows = decision.phrases or _passages(decision) or _hashes(decision) is not None
    return decision.flagged and not knows


def _passages(decision: Decision) -> tuple[str, ...]:
    return tuple(getattr(decision, "passages", ()))


def _hashes(decision: Decision) -> Any:
    return getattr(decision, "hashes", None)


_RESTRICTIONS: OrderedDict[Hashable, tuple[Restriction, Decision]] = OrderedDict()
_LOCK = threading.Lock()


def restriction_for(decision: Decision, tokenizer: Any) -> Restriction | None:
    """Return what a decision restricts (recent ones are kept), or ``None`` if the prompt is not flagged."""
    if not decision.flagged:
        return None
    words = vocabulary(tokenizer)
    key = (id(words), decision.phrases, _passages(decision), id(_hashes(decision)))
    with _LOCK:
        known = _RESTRICTIONS.get(key)
        if known is not None and known[0].vocabulary is words and _hashes(known[1]) is _hashes(decision):
            _RESTRICTIONS.move_to_end(key)
            return known[0]
    made = Restriction(decision, words)
    with _LOCK:
        _RESTRICTIONS[key] = (made, decision)
        while len(_RESTRICTIONS) > _KEPT:
            _RESTRICTIONS.popitem(last=False)
    return made
