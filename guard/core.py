"""`Guard`: what is forgotten, how prompts about it are recognised, and what must not be said about it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.errors import ArtifactError, ConfigError, DataError
from eval.types import Example, Prompt
from guard.building import Lexicon, find_phrases, group_of, innocents, question_of, teach
from guard.config import GuardSettings
from guard.conversation import judged_texts
from guard.encoder import SentenceEncoder, get_encoder
from guard.gate import FEATURES, Classifier, Decision, Signals
from guard.normalise import words
from guard.store import Entry, Store

__all__ = ["Guard"]

_NUM_NEAREST = 64
_ENTRY_MARGIN = 0.12
"""Entries this close in similarity to the nearest one are also taken to be meant."""
_MAX_NEAREST_ENTRIES = 8
_DECISIONS_KEPT = 4096


class Guard:
    """A generation-time filter: nothing in any model changes, and removing it gives the knowledge back.

    Build one with `Guard.build` or `Guard.load`; both are safe to use from several threads.

    Args:
        store: Entries and innocent neighbours.
        classifier: The gate's classifier, fitted on this store.
        encoder: The sentence encoder the store was built with.
        settings: How it was built.
        refusals: What the ``refuse`` policy answers; empty: the package's own.
    """

    def __init__(
        self,
        store: Store,
        classifier: Classifier,
        encoder: SentenceEncoder,
        settings: GuardSettings,
        refusals: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.classifier = classifier
        self.encoder = encoder
        self.settings = settings
        self.refusals = tuple(refusals)
        self._lexicon = Lexicon.of(store, encoder.is_common_word)
        self._lock = threading.RLock()
        self._decisions: OrderedDict[tuple[str, ...], Decision] = OrderedDict()

    @classmethod
    def build(
        cls,
        *,
        forget: Sequence[Example],
        retain: Sequence[Example] = (),
        background: Sequence[Example] = (),
        refusals: Sequence[str] = (),
        request: str = "request-1",
        settings: GuardSettings | None = None,
    ) -> Guard:
        """Build a guard in seconds; no language model is touched.

        Args:
            forget: Question-answer pairs that must not be revealed.
            retain: Pairs that must stay answerable; contrast for phrases, and what the gate is calibrated on.
            background: Further innocent prompts (answers optional).
            refusals: What the ``refuse`` policy answers; empty: the package's own.
            request: Name under which the entries can be removed again.
            settings: Anything but the defaults.

        Raises:
            DataError: If ``forget`` is empty or an example is no question-answer pair.
        """
        if not forget:
            raise DataError("A guard needs at least one example to forget; the forget set is empty.")
        settings = settings or GuardSettings()
        encoder = get_encoder(settings.encoder)
        store = Store(encoder.identity, encoder.dimension)
        kept = innocents(retain, background, settings)
        store.set_retain(kept, encoder.encode([row.question for row in kept]))
        _add_entries(store, encoder, settings, request, forget)
        classifier = teach(store, Lexicon.of(store, encoder.is_common_word), encoder, settings)
        return cls(store, classifier, encoder, settings, refusals)

    def check(self, prompt: Prompt) -> Decision:
        """Judge one prompt: a question, a chat, or an example."""
        return self.check_many([prompt])[0]

    def check_many(self, prompts: Sequence[Prompt]) -> list[Decision]:
        """Judge prompts together: one pass of the encoder over those not judged before."""
        judged = [judged_texts(prompt, self._lexicon.suspicion) for prompt in prompts]
        with self._lock:
            missing = [texts for texts in dict.fromkeys(judged) if texts not in self._decisions]
            fresh = self._judge(missing) if missing else {}
            decisions = [fresh.get(texts) or self._decisions[texts] for texts in judged]
            self._decisions.update(fresh)
            while len(self._decisions) > _DECISIONS_KEPT:
                self._decisions.popitem(last=False)
        return decisions

    def add(self, request: str, examples: Sequence[Example]) -> tuple[int, ...]:
        """Add a forget request and return its entries' ids; the gate is taught anew.

        Raises:
            ConfigError: If there is a request of that name already.
            DataError: If there is nothing to add.
        """
        if not examples:
            raise DataError(f"Request {request!r} has no examples; nothing was added.")
        with self._lock:
            if request in self.store.requests:
                raise ConfigError(
                    f"The guard has a request {request!r} already; remove it first, or use another name."
                )
            ids = _add_entries(self.store, self.encoder, self.settings, request, examples)
            self._refresh()
        return ids

    def remove(self, request: str) -> int:
        """Take a forget request back and return how many entries it had.

        Raises:
            ConfigError: If there is no such request.
        """
        with self._lock:
            count = self.store.remove(request)
            self._refresh()
        return count

    def list(self) -> dict[str, int]:
        """Return the number of entries of each request."""
        return self.store.requests

    def save(self, directory: Path | str) -> None:
        """Write the guard to a folder, atomically: a reader finds the old one or the new one."""
        with self._lock:
            self.store.save(
                Path(directory),
                {
                    "classifier": asdict(self.classifier),
                    "settings": asdict(self.settings),
                    "refusals": self.refusals,
                },
            )

    @classmethod
    def load(cls, directory: Path | str) -> Guard:
        """Read a guard that `save` wrote.

        Raises:
            ArtifactError: If the folder is missing, half-written, changed, or of another encoder.
        """
        store, manifest = Store.load(Path(directory))
        try:
            settings = GuardSettings(**manifest["settings"])
            state = dict(manifest["classifier"])
            refusals = tuple(manifest["refusals"])
            classifier = Classifier(**{**state, "weights": tuple(state["weights"])})
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"The guard store {directory} lacks the gate's state ({error}); rebuild it."
            ) from None
        if len(classifier.weights) != len(FEATURES):
            raise ArtifactError(f"The gate of the guard store {directory} is of another version; rebuild it.")
        encoder = get_encoder(settings.encoder)
        if encoder.identity != store.encoder:
            raise ArtifactError(
                f"The guard store {directory} was built with the encoder {store.encoder[:80]}, "
                f"but {settings.encoder!r} is now {encoder.identity[:80]}; rebuild the store."
            )
        return cls(store, classifier, encoder, settings, refusals)

    def _refresh(self) -> None:
        self._lexicon = Lexicon.of(self.store, self.encoder.is_common_word)
        if len(self.store):
            self.classifier = teach(self.store, self._lexicon, self.encoder, self.settings)
        self._decisions.clear()

    def _judge(self, prompts: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Decision]:
        pieces = [
            (i, w) for i, texts in enumerate(prompts) for text in texts for w in self.encoder.windows(text)
        ]
        innocent = Decision(flagged=False, score=0.0, threshold=self.classifier.threshold)
        if not pieces or not len(self.store):
            return dict.fromkeys(prompts, innocent)
        vectors = self.encoder.encode([text for _, text in pieces])
        similarities, keys = self.store.search(vectors, num=min(_NUM_NEAREST, 2 * len(self.store)))
        near_retain = np.zeros(len(pieces), dtype=np.float32)
        if self.store.retain:
            near_retain = self.store.search(vectors, num=1, retain=True)[0][:, 0].clip(min=0)
        found = [
            self._signals(text, s, k, float(r))
            for (_, text), s, k, r in zip(pieces, similarities, keys, near_retain, strict=True)
        ]
        scores = self.classifier.scores(np.array([signals.features for signals in found]))
        judged: list[list[_Piece]] = [[] for _ in prompts]
        for row, (i, text) in enumerate(pieces):
            judged[i].append(_Piece(text, found[row], float(scores[row]), similarities[row], keys[row]))
        return {
            texts: self._decide(parts) if parts else innocent
            for texts, parts in zip(prompts, judged, strict=True)
        }

    def _signals(
        self, text: str, similarities: npt.NDArray[np.float32], keys: npt.NDArray[np.int64], retain: float
    ) -> Signals:
        questions = similarities[keys % 2 == 0]
        answers = similarities[keys % 2 == 1]
        floor = float(similarities[-1])
        near = dict.fromkeys(self.store.entries[int(key) // 2].group for key in keys[:12] if key >= 0)
        return self._lexicon.signals(
            text,
            float(questions[0]) if len(questions) else floor,
            float(answers[0]) if len(answers) else floor,
            retain,
            list(near)[:8],
        )

    def _decide(self, pieces: Sequence[_Piece]) -> Decision:
        worst = max(pieces, key=lambda piece: piece.score)
        flagged = [piece for piece in pieces if piece.score >= self.classifier.threshold]
        meant = [self._meant(piece) for piece in sorted(flagged, key=lambda piece: -piece.score)]
        nearest = dict.fromkeys(ids[0] for ids in meant)
        entries = dict.fromkeys([*nearest, *(i for ids in meant for i in ids)])
        values = zip(FEATURES, worst.signals.features, strict=True)
        return Decision(
            flagged=bool(flagged),
            score=worst.score,
            threshold=self.classifier.threshold,
            evidence={name: round(value, 4) for name, value in values},
            entries=tuple(entries),
            phrases=self._phrases(pieces[0].text, tuple(nearest), tuple(entries)),
        )

    def _meant(self, piece: _Piece) -> tuple[int, ...]:
        """Entries a flagged text is about: the nearest ones, and all of the groups named or nearest."""
        similarities, keys = piece.similarities, piece.keys
        near = [
            int(k) // 2
            for s, k in zip(similarities, keys, strict=True)
            if s >= similarities[0] - _ENTRY_MARGIN
        ]
        nearest = list(dict.fromkeys(near))[:_MAX_NEAREST_ENTRIES]
        groups = {*piece.signals.names.groups, self.store.entries[nearest[0]].group}
        about = [i for i, entry in self.store.entries.items() if entry.group in groups]
        return tuple(dict.fromkeys([*nearest, *about]))

    def _phrases(self, text: str, nearest: Sequence[int], entries: Sequence[int]) -> tuple[str, ...]:
        """Phrases of the entries, nearest first.

        The names of people whom the prompt itself names may be said, unless they answer a nearest entry's
        question: a list of choices does not make its right answer sayable.
        """
        said = f" {' '.join(words(text))} "
        named = {w for name in self._lexicon.names.people if f" {' '.join(name)} " in said for w in name}
        phrases = dict.fromkeys(p for i in nearest for p in self.store.entries[i].phrases)
        others = (p for i in entries for p in self.store.entries[i].phrases)
        phrases.update(dict.fromkeys(p for p in others if not set(p.split()) <= named))
        return tuple(phrases)


@dataclass(frozen=True)
class _Piece:
    """One judged text of a prompt."""

    text: str
    signals: Signals
    score: float
    similarities: npt.NDArray[np.float32]
    """Of the nearest stored vectors, falling."""
    keys: npt.NDArray[np.int64]
    """What they belong to, as `Store.search` gives it."""


def _add_entries(
    store: Store, encoder: SentenceEncoder, settings: GuardSettings, request: str, examples: Sequence[Example]
) -> tuple[int, ...]:
    groups = group_of(examples)
    bare = [
        Entry(id=store.next_id + i, request=request, question=question_of(e), answer=e.answer or "", group=g)
        for i, (e, g) in enumerate(zip(examples, groups, strict=True))
    ]
    vectors = encoder.encode([e.question for e in bare] + [e.answer for e in bare])
    questions, answers = vectors[: len(bare)], vectors[len(bare) :]
    entries = find_phrases(store, bare, questions, num_neighbours=settings.num_neighbours)
    store.add(entries, questions, answers)
    return tuple(entry.id for entry in entries)
