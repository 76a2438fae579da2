"""What a decision forbids, as one thing that bans tokens: phrases, runs of documents, hashed phrases."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard.gate import Decision
from guard.matching import Matcher, PhraseSet
from guard.private import NUM_CANDIDATES, HashMatcher
from guard.soft import SoftMatch
from guard.verbatim import run_matcher
from guard.vocabulary import Ids, Vocabulary, union, vocabulary

__all__ = ["Restriction", "must_refuse", "restriction_for"]

_KEPT = 512


class Restriction:
    """The tokens that must not come next, for one decision and one vocabulary.

    Holds no state of a generation: every answer is derived from the tokens given. A flagged decision that
    names nothing to leave out (a subject without known answers) bans everything: only a refusal is left.

    Args:
        decision: Flagged.
        vocabulary: Of the model's tokenizer.
        soft: Bans words near the phrases too; ``None``: the phrases alone.
    """

    def __init__(self, decision: Decision, vocabulary: Vocabulary, soft: SoftMatch | None = None) -> None:
        self.vocabulary = vocabulary
        self.penalty: Tensor | None = None
        """Nats to take from each token's score, shape ``(V,)``."""
        phrases = decision.phrases
        if soft is not None and phrases:
            near = soft.nearness(phrases, vocabulary)
            phrases, self.penalty = (*phrases, *near.words), torch.from_numpy(near.penalty)
        self.bans_all = must_refuse(decision)
        self._exact = Matcher(PhraseSet(phrases), vocabulary) if phrases else None
        self._runs = run_matcher(decision.passages, vocabulary) if decision.passages else None
        hashes = decision.hashes
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
    knows = decision.phrases or decision.passages or decision.hashes is not None
    return decision.flagged and not knows


_RESTRICTIONS: OrderedDict[Hashable, tuple[Restriction, Decision, SoftMatch | None]] = OrderedDict()
_LOCK = threading.Lock()


def restriction_for(decision: Decision, tokenizer: Any, soft: SoftMatch | None = None) -> Restriction | None:
    """Return what a decision restricts (recent ones are kept), or ``None`` if the prompt is not flagged."""
    if not decision.flagged:
        return None
    words = vocabulary(tokenizer)
    key = (id(words), decision.phrases, decision.passages, id(decision.hashes), id(soft))
    with _LOCK:
        known = _RESTRICTIONS.get(key)
        # what the ids name is held with the entry, so that no other object can have taken its place
        if known is not None:
            _RESTRICTIONS.move_to_end(key)
            return known[0]
    made = Restriction(decision, words, soft)
    with _LOCK:
        _RESTRICTIONS[key] = (made, decision, soft)
        while len(_RESTRICTIONS) > _KEPT:
            _RESTRICTIONS.popitem(last=False)
    return made
