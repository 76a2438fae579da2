"""From scores to a decision: which entries a flagged prompt is about, and what must not be said in its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guard.allowing import Allowlist
from guard.building import Lexicon, Observation
from guard.gate import FEATURES, Decision
from guard.hashing import PhraseHashes
from guard.normalise import words
from guard.store import Entry, Store

__all__ = ["Piece", "Rules"]

_ENTRY_MARGIN = 0.12
"""Entries this close in similarity to the nearest one are also taken to be meant."""
_MAX_NEAREST_ENTRIES = 8


@dataclass(frozen=True)
class Piece:
    """One judged text of a prompt."""

    seen: Observation
    score: float
    is_allowed: bool = False


@dataclass(frozen=True)
class Rules:
    """What a decision rests on beside the scores."""

    store: Store
    lexicon: Lexicon
    threshold: float
    """Score from which a piece is flagged."""
    allowed: Allowlist

    def decide(self, pieces: Sequence[Piece]) -> Decision:
        """Return the decision on a prompt, which is as suspicious as its most suspicious piece."""
        worst = max(pieces, key=lambda piece: piece.score)
        flagged = [p for p in pieces if p.score >= self.threshold and not p.is_allowed]
        meant = [self._meant(piece) for piece in sorted(flagged, key=lambda piece: -piece.score)]
        nearest = dict.fromkeys(ids[0] for ids in meant)
        entries = tuple(dict.fromkeys([*nearest, *(i for ids in meant for i in ids)]))
        values = zip(FEATURES, worst.seen.signals.features, strict=True)
        decision = Decision(
            flagged=bool(flagged),
            score=worst.score,
            threshold=self.threshold,
            evidence={name: round(value, 4) for name, value in values},
            entries=entries,
            is_allowed=worst.is_allowed and not flagged,
        )
        phrases = self._phrases(pieces[0].seen.text, tuple(nearest), entries)
        documents = self._documents(entries)
        if self.store.veil is not None:
            phrases = (*phrases, *(p for entry in documents for p in entry.phrases))
            hashes = PhraseHashes.of(self.store.veil, phrases) if phrases else None
            return replace(decision, hashes=hashes)
        return replace(decision, phrases=phrases, passages=tuple(entry.answer for entry in documents))

    def _meant(self, piece: Piece) -> tuple[int, ...]:
        """Entries a flagged text is about: the nearest ones, and all of the groups named or nearest."""
        similarities, keys = piece.seen.similarities, piece.seen.keys
        near = [
            int(k) // 2
            for s, k in zip(similarities, keys, strict=True)
            if s >= similarities[0] - _ENTRY_MARGIN and k >= 0
        ]
        nearest = list(dict.fromkeys(near))[:_MAX_NEAREST_ENTRIES]
        groups = dict.fromkeys([*piece.seen.signals.names.groups, self.store.entries[nearest[0]].group])
        about = [i for group in groups for i in self.store.of_group(group)]
        return tuple(dict.fromkeys([*nearest, *sorted(about)]))

    def _phrases(self, text: str, nearest: Sequence[int], entries: Sequence[int]) -> tuple[str, ...]:
        """Phrases of the entries, nearest first.

        The names of people whom the prompt itself names may be said, unless they answer a nearest entry's
        question: a list of choices does not make its right answer sayable.
        """
        said = f" {' '.join(words(self.lexicon.veiled(text)))} "
        named = {w for name in self.lexicon.names.people if f" {' '.join(name)} " in said for w in name}
        phrases = dict.fromkeys(p for i in nearest for p in self.store.entries[i].phrases)
        others = (p for i in entries for p in self.store.entries[i].phrases)
        phrases.update(dict.fromkeys(p for p in others if not set(p.split()) <= named))
        return tuple(self.allowed.banned(phrases))

    def _documents(self, entries: Sequence[int]) -> tuple[Entry, ...]:
        """All pieces of the requests whose documents are among the entries: a continuation runs on beyond a piece."""
        found = (self.store.entries[i] for i in entries)
        requests = dict.fromkeys(entry.request for entry in found if entry.kind == "document")
        pieces = (self.store.entries[i] for name in requests for i in self.store.of_request(name))
        return tuple(entry for entry in pieces if entry.kind == "document")
