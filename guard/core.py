"""`Guard`: what is forgotten, how prompts about it are recognised, and what must not be said about it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.errors import ArtifactError, ConfigError, DataError
from eval.models.language_model import LanguageModel
from eval.types import Example, Prompt
from guard.allowing import Allowlist
from guard.batching import Batcher
from guard.building import Lexicon, innocents, observe
from guard.config import GuardSettings
from guard.conversation import judged_texts
from guard.deciding import Piece, Rules
from guard.encoder import SentenceEncoder
from guard.entries import Added, add_request
from guard.finders import SpanFinder
from guard.gate import FEATURES, Classifier, Decision
from guard.hidden import encoder_for, hidden_identity
from guard.lessons import teach
from guard.persistence import load_store, read_manifest, save_store
from guard.store import Store

__all__ = ["Guard"]

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
        allowed: Prompts and phrases that pass whatever is in the store.
    """

    def __init__(
        self,
        store: Store,
        classifier: Classifier,
        encoder: SentenceEncoder,
        settings: GuardSettings,
        refusals: Sequence[str] = (),
        allowed: Allowlist | None = None,
    ) -> None:
        self.store = store
        self.classifier = classifier
        self.encoder = encoder
        self.settings = settings
        self.refusals = tuple(refusals)
        self.allowed = allowed or Allowlist()
        self._lexicon = Lexicon.of(store, encoder.is_common_word)
        self._lock = threading.RLock()
        self._decisions: OrderedDict[tuple[str, ...], Decision] = OrderedDict()
        self._judged: Batcher[tuple[str, ...], Decision] = Batcher(self._judge_new)

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
        finder: SpanFinder | None = None,
        model: LanguageModel | None = None,
    ) -> Guard:
        """Build a guard in seconds; no language model is touched.

        Args:
            forget: Question-answer pairs that must not be revealed, or documents (``text``).
            retain: Pairs that must stay answerable; contrast for phrases, and what the gate is calibrated on.
            background: Further innocent prompts (answers optional).
            refusals: What the ``refuse`` policy answers; empty: the package's own.
            request: Name under which the entries can be removed again.
            settings: Anything but the defaults.
            finder: Names further spans that must not be said, such as `guard.finders.entities` (named entities).
            model: The target, where the settings say ``features="hidden"``; else it is not used.

        Raises:
            DataError: If ``forget`` is empty or an example is neither a question-answer pair nor a document.
            ConfigError: If ``ivf`` was asked for and does not pay or does not reach its recall, or hidden states
                without a model.
        """
        if not forget:
            raise DataError("A guard needs at least one example to forget; the forget set is empty.")
        settings = settings or GuardSettings()
        encoder = encoder_for(settings, model)
        store = Store(encoder.identity, encoder.dimension)
        kept, texts = innocents(retain, background, settings)
        store.set_retain(kept, encoder.encode([row.question for row in kept]), texts)
        add_request(store, encoder, settings, request, examples=forget, finder=finder)
        classifier = teach(store, Lexicon.of(store, encoder.is_common_word), encoder, settings)
        if settings.index == "ivf":
            store.use_ivf(min_recall=settings.min_recall)
        if settings.private:
            store.make_private(encoder.is_common_word)
        return cls(store, classifier, encoder, settings, refusals)

    def check(self, prompt: Prompt) -> Decision:
        """Judge one prompt: a question, a chat, or an example."""
        return self.check_many([prompt])[0]

    def check_many(self, prompts: Sequence[Prompt]) -> list[Decision]:
        """Judge prompts together, and those of other threads with them: one pass of the encoder over the new ones."""
        with self._lock:  # of the lexicon too, which an add changes
            lexicon = self._lexicon
            judged = [judged_texts(prompt, lexicon.suspicion, lexicon.is_word) for prompt in prompts]
            missing = [texts for texts in dict.fromkeys(judged) if texts not in self._decisions]
        fresh = dict(zip(missing, self._judged(missing), strict=True)) if missing else {}
        with self._lock:
            decisions = [fresh.get(texts) or self._decisions.get(texts) for texts in judged]
        # a decision that was known a moment ago may have been forgotten by an add or remove in between
        return [d or self.check(p) for d, p in zip(decisions, prompts, strict=True)]

    def add(
        self,
        request: str,
        examples: Sequence[Example] = (),
        *,
        subject: str | None = None,
        aliases: Sequence[str] = (),
        documents: Sequence[str] = (),
        finder: SpanFinder | None = None,
    ) -> Added:
        """Add a forget request; the gate is taught anew, so that it decides as if all had been there from the start.

        Only what is added is read; where it makes innocent rows forgotten ones, the lexicon of all is made anew.

        Args:
            request: A new name, under which it can be removed again.
            examples: Question-answer pairs, or documents (``text``).
            subject: A person or thing that prompts may not be about.
            aliases: Its other names.
            documents: Texts that must not be continued word by word; with a subject, what they tell of it.
            finder: Names further spans that must not be said.

        Returns:
            The new entries' ids, and notices where coverage is weaker than with question-answer pairs.

        Raises:
            ConfigError: If there is a request of that name already.
            DataError: If there is nothing to add.
        """
        with self._lock:
            if request in self.store.requests:
                raise ConfigError(
                    f"The guard has a request {request!r} already; remove it first, or use another name."
                )
            innocent = self.store.retain, self.store.innocent_texts
            added = add_request(
                self.store,
                self.encoder,
                self.settings,
                request,
                examples=examples,
                subject=subject,
                aliases=aliases,
                documents=documents,
                finder=finder,
            )
            if innocent == (self.store.retain, self.store.innocent_texts):
                self._lexicon.add([self.store.entries[i] for i in added.ids])
            else:
                self._lexicon = Lexicon.of(self.store, self.encoder.is_common_word)
            self._relearn()
        return added

    def remove(self, request: str) -> int:
        """Take a forget request back and return how many entries it had.

        Raises:
            ConfigError: If there is no such request.
        """
        with self._lock:
            count = self.store.remove(request)
            self._lexicon = Lexicon.of(self.store, self.encoder.is_common_word)
            self._relearn()
        return count

    def list(self) -> dict[str, int]:
        """Return the number of entries of each request."""
        return self.store.requests

    def allow(self, prompts: Sequence[str] = (), phrases: Sequence[str] = ()) -> None:
        """Let prompts pass, and phrases be said, from now on; kept with the guard when it is saved.

        A user turn that is an allowed prompt, word by word, is not flagged; one that merely resembles it, or refers
        back to a turn about something forgotten, is judged as before. Of a document, four words in a row stay
        forbidden.

        Raises:
            ConfigError: If there is nothing to allow, or a text has no word.
        """
        with self._lock:
            self.allowed = self.allowed.extended(prompts, phrases, self._lexicon.veiled)
            self._decisions.clear()

    def disallow(self, prompts: Sequence[str] = (), phrases: Sequence[str] = ()) -> None:
        """Take prompts and phrases off the allowlist.

        Raises:
            ConfigError: If one is not on it.
        """
        with self._lock:
            self.allowed = self.allowed.reduced(prompts, phrases, self._lexicon.veiled)
            self._decisions.clear()

    def save(self, directory: Path | str) -> None:
        """Write the guard to a folder; a reader finds all of it or the one before, and it is on the disk on return.

        Raises:
            ConfigError: If another process is writing there.
            ArtifactError: If another process changed the store since this guard was loaded from it.
        """
        with self._lock:
            save_store(
                self.store,
                Path(directory),
                {
                    "classifier": asdict(self.classifier),
                    "settings": asdict(self.settings),
                    "refusals": self.refusals,
                    "allowed": asdict(self.allowed),
                },
            )

    @classmethod
    def load(cls, directory: Path | str, *, model: LanguageModel | None = None) -> Guard:
        """Read a guard that `save` wrote, also while another process writes there.

        Args:
            directory: The folder.
            model: The target, for a guard whose features are its hidden states; else it is not used.

        Raises:
            ArtifactError: If the folder is missing, half-written, changed, or of another encoder or model.
            ConfigError: If its features are a model's hidden states and no model is given.
        """
        manifest = read_manifest(Path(directory))
        try:
            settings = GuardSettings(**manifest["settings"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"The guard store {directory} lacks the gate's state ({error}); rebuild it."
            ) from None
        is_of = manifest.get("encoder")
        if (
            settings.features == "hidden"
            and model is not None
            and hidden_identity(model, settings.layer) != is_of
        ):
            raise ArtifactError(
                f"The guard store {directory} was built on the hidden states of another model than {model.name!r}; "
                "load it with that model, or rebuild it on this one."
            )
        encoder = encoder_for(settings, model)
        if encoder.identity != manifest.get("encoder"):
            raise ArtifactError(
                f"The guard store {directory} was built with the encoder {str(manifest.get('encoder'))[:80]}, "
                f"but {settings.encoder!r} is now {encoder.identity[:80]}; rebuild the store."
            )
        store, manifest = load_store(Path(directory), encoder.is_common_word)
        try:
            state = dict(manifest["classifier"])
            refusals = tuple(manifest["refusals"])
            allowed = Allowlist(**{k: tuple(v) for k, v in manifest.get("allowed", {}).items()})
            classifier = Classifier(**{**state, "weights": tuple(state["weights"])})
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"The guard store {directory} lacks the gate's state ({error}); rebuild it."
            ) from None
        if len(classifier.weights) != len(FEATURES):
            raise ArtifactError(f"The gate of the guard store {directory} is of another version; rebuild it.")
        return cls(store, classifier, encoder, settings, refusals, allowed)

    def _relearn(self) -> None:
        if len(self.store) and self.store.veil is None:
            self.classifier = teach(self.store, self._lexicon, self.encoder, self.settings)
        self._decisions.clear()

    def _judge_new(self, prompts: Sequence[tuple[str, ...]]) -> Sequence[Decision]:
        """Judge the texts of prompts, those of several threads together."""
        different = list(dict.fromkeys(prompts))
        pieces = [
            (i, w) for i, texts in enumerate(different) for text in texts for w in self.encoder.windows(text)
        ]
        vectors = self.encoder.encode([text for _, text in pieces])  # outside the lock: it takes longest
        with self._lock:
            fresh = self._judge(different, pieces, vectors)
            self._decisions.update(fresh)
            while len(self._decisions) > _DECISIONS_KEPT:
                self._decisions.popitem(last=False)
        return [fresh[texts] for texts in prompts]

    def _judge(
        self,
        prompts: Sequence[tuple[str, ...]],
        pieces: Sequence[tuple[int, str]],
        vectors: npt.NDArray[np.float32],
    ) -> dict[tuple[str, ...], Decision]:
        innocent = Decision(flagged=False, score=0.0, threshold=self.classifier.threshold)
        if not pieces or not len(self.store):
            return dict.fromkeys(prompts, innocent)
        seen = observe(self.store, self._lexicon, [text for _, text in pieces], vectors)
        scores = self.classifier.scores(np.array([o.signals.features for o in seen]))
        judged: list[list[Piece]] = [[] for _ in prompts]
        rules = Rules(self.store, self._lexicon, self.classifier.threshold, self.allowed)
        exempt = [self._exempt(texts) for texts in prompts]
        for (i, text), observation, score in zip(pieces, seen, scores, strict=True):
            judged[i].append(Piece(observation, float(score), is_allowed=text in exempt[i]))
        return {
            texts: rules.decide(parts) if parts else innocent
            for texts, parts in zip(prompts, judged, strict=True)
        }

    def _exempt(self, texts: Sequence[str]) -> frozenset[str]:
        """Pieces of a prompt that need no verdict: those of allowed texts, and of all that an allowed turn holds."""
        allowed = [t for t in texts if self.allowed.lets_pass(self._lexicon.veiled(t))]
        if allowed and allowed[0] == texts[0]:
            allowed += judged_texts(texts[0], self._lexicon.suspicion, self._lexicon.is_word)
        return frozenset(window for text in allowed for window in self.encoder.windows(text))
