"""Building a guard: grouping the examples, finding phrases, and gathering the evidence the gate weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eval.errors import DataError
from eval.types import Example
from guard.census import asked_about
from guard.config import GuardSettings
from guard.finders import SpanFinder
from guard.gate import RareWords, Signals
from guard.hashing import Veil
from guard.names import NameIndex
from guard.phrases import Contrast, extract_phrases
from guard.runs import capitalised_runs
from guard.store import Entry, Innocent, Store
from guard.telling import Telling

__all__ = ["Lexicon", "Observation", "find_phrases", "group_of", "innocents", "observe", "question_of"]

Vectors = npt.NDArray[np.float32]
NUM_NEAREST = 64
"""Stored vectors that are looked at for each text."""
MAX_INNOCENT_TEXTS = 10_000
"""Retain texts whose words and names are taken for innocent."""


def question_of(example: Example) -> str:
    """Return the user turns of an example's prompt as one text.

    Raises:
        DataError: If the example has no prompt or no answer.
    """
    if example.answer is None or (example.question is None and example.messages is None):
        raise DataError(
            f"Example {example.id!r} has no question or no answer; a guard is built from question-answer pairs."
        )
    return " ".join(message.content for message in example.conversation if message.role == "user")


def group_of(examples: Sequence[Example]) -> list[str]:
    """Return whom or what each example is about: its subject, else the name its question shares with others."""
    questions = [question_of(e) for e in examples]
    names = asked_about(questions)
    groups: list[str] = []
    for example, question in zip(examples, questions, strict=True):
        found = [run for run in capitalised_runs(question) if run in names]
        groups.append(example.subject or (" ".join(found[0]) if found else f"example {example.id}"))
    return groups


def innocents(
    retain: Sequence[Example], background: Sequence[Example], settings: GuardSettings
) -> tuple[tuple[Innocent, ...], tuple[Innocent, ...]]:
    """Choose the innocent neighbours a guard keeps: a sample of retain and of background, and further texts.

    Returns:
        Those that get an embedding, and those that only tell which words and names are innocent.
    """
    rng = np.random.default_rng(settings.seed)
    answered = [e for e in retain if e.answer is not None]
    rows = [
        Innocent(question=question_of(e), answer=e.answer or "", group=g)
        for e, g in zip(answered, group_of(answered), strict=True)
    ]
    others = [
        Innocent(
            question=" ".join(m.content for m in e.conversation if m.role == "user"),
            answer=e.answer or "",
            group=f"background {e.id}",
        )
        for e in background
        if e.question is not None or e.messages is not None
    ]
    order, further = rng.permutation(len(rows)).tolist(), rng.permutation(len(others)).tolist()
    num = settings.max_retain
    embedded = [rows[i] for i in sorted(order[:num])] + [others[i] for i in sorted(further[: num // 2])]
    left = [rows[i] for i in sorted(order[num:MAX_INNOCENT_TEXTS])]
    return tuple(embedded), tuple(left)


@dataclass(frozen=True)
class Lexicon:
    """What words say: names, and rare words of each forgotten group. Derived from a store's texts alone."""

    names: NameIndex
    rare: RareWords
    telling: Telling
    is_common: Callable[[str], bool] = str.isalpha
    """Tells frequent words of the language."""

    veil: Veil | None = None
    """In a private store prompts are veiled before words are compared."""

    @classmethod
    def of(cls, store: Store, is_common: Callable[[str], bool]) -> Lexicon:
        """Index the texts of a store; ``is_common`` tells everyday words from names where case does not."""
        forget, aliases = _as_examples(list(store.entries.values()))
        retain = [
            Example(id=str(i), question=r.question, answer=r.answer, subject=r.group)
            for i, r in enumerate([*store.retain, *store.innocent_texts])
        ]
        names = NameIndex(forget, retain, is_common if store.veil is None else store.veil.is_common, aliases)
        grouped, innocent = _grouped(forget), _grouped(retain)
        rare = RareWords(grouped, retain, names.name_words)
        return cls(names, rare, Telling(grouped, innocent, names.name_words), is_common, store.veil)

    def add(self, entries: Sequence[Entry]) -> None:
        """Index further entries, at the cost of these alone; the store's innocent texts must be the same as before."""
        forget, aliases = _as_examples(entries)
        self.names.add(forget, aliases)
        self.rare.add(_grouped(forget))
        self.telling.add(_grouped(forget))

    def veiled(self, text: str) -> str:
        """Return a prompt's text in the form the store's texts have."""
        return text if self.veil is None else self.veil.text(text)

    def signals(
        self,
        text: str,
        question: float,
        answer: float,
        retain: float,
        near_groups: Sequence[str],
        hidden: str | None = None,
    ) -> Signals:
        """Join similarities with what the words say; ``hidden`` is an innocent group not to be looked at."""
        text = self.veiled(text)
        names = self.names.evidence(text)
        share = self.rare.share(text, [*names.groups, *near_groups])
        return Signals(question, answer, retain, names, share, self.telling.margin(text, hidden))

    def is_word(self, word: str) -> bool:
        """Whether a plain lower-case word is one of the language or of the forgotten texts."""
        return self.is_common(word) or self.names.knows(self.veiled(word))

    def suspicion(self, text: str) -> float:
        """How much the words of a text alone speak for something forgotten."""
        text = self.veiled(text)
        names = self.names.evidence(text)
        return names.full + names.part + names.title + self.rare.share(text, names.groups)


def _as_examples(entries: Sequence[Entry]) -> tuple[list[Example], list[tuple[str, str]]]:
    """Return entries as examples, and the names among them that are given, each with its group."""
    examples = [Example(id=str(e.id), question=e.question, answer=e.answer, subject=e.group) for e in entries]
    return examples, [(e.question, e.group) for e in entries if e.kind == "subject"]


def _grouped(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    return [(example.subject or "", example) for example in examples]


def find_phrases(
    store: Store,
    entries: Sequence[Entry],
    questions: Vectors,
    *,
    num_neighbours: int,
    finder: SpanFinder | None = None,
) -> list[Entry]:
    """Return the entries with their phrases, by contrast with the nearest innocent answers and by ``finder``."""
    key = str if store.veil is None else store.veil.word
    general = Contrast.of([r.answer for r in store.retain if r.answer], key)
    neighbours = np.full((len(entries), 1), -1)
    if len(entries) and store.retain:
        _, neighbours = store.search(questions, num=num_neighbours, retain=True)
    people = {entry.group: entry.question for entry in entries if entry.kind == "subject"}
    found: Sequence[Sequence[str]] = [()] * len(entries)
    if finder is not None:
        found = finder([(entry.question, entry.answer) for entry in entries])
    out: list[Entry] = []
    for entry, near, named in zip(entries, neighbours, found, strict=True):
        if entry.kind == "subject" or (entry.kind == "document" and entry.group not in people):
            out.append(entry)  # no facts are known, or the wording alone is restricted
            continue
        answers = [store.retain[i].answer for i in near.tolist() if i >= 0 and store.retain[i].answer]
        phrases = extract_phrases(
            people[entry.group] if entry.kind == "document" else entry.question,
            entry.answer,
            neighbours=Contrast.of(answers, key),
            general=general,
            found=named,
        )
        out.append(replace(entry, phrases=phrases))
    return out


@dataclass(frozen=True)
class Observation:
    """What is known about one judged text."""

    text: str
    signals: Signals
    similarities: Vectors
    """Of the nearest stored vectors, falling."""
    keys: npt.NDArray[np.int64]
    """What they belong to, as `Store.search` gives it."""


def observe(
    store: Store,
    lexicon: Lexicon,
    texts: Sequence[str],
    vectors: Vectors,
    *,
    hidden: Sequence[str | None] | None = None,
) -> list[Observation]:
    """Gather the evidence on texts with unit vectors of shape ``(n, D)``; the store must not be empty.

    Args:
        store: Where to look for similar texts.
        lexicon: Of that store.
        texts: What is judged.
        vectors: Their embeddings.
        hidden: For each text a group whose innocent neighbours must not be looked at; ``None``: there is none.
    """
    similarities, keys = store.search(vectors, num=min(NUM_NEAREST, 2 * len(store)))
    hidden = hidden or [None] * len(texts)
    retain = _nearest_innocent(store, vectors, hidden)
    out: list[Observation] = []
    for text, s, k, near_retain, group in zip(texts, similarities, keys, retain, hidden, strict=True):
        questions, answers = s[k % 2 == 0], s[k % 2 == 1]
        floor = float(s[-1])
        near = dict.fromkeys(store.entries[int(key) // 2].group for key in k[:12] if key >= 0)
        signals = lexicon.signals(
            text,
            float(questions[0]) if len(questions) else floor,
            float(answers[0]) if len(answers) else floor,
            float(near_retain),
            list(near)[:8],
            group,
        )
        out.append(Observation(text, signals, s, k))
    return out


def _nearest_innocent(store: Store, vectors: Vectors, hidden: Sequence[str | None]) -> Vectors:
    """Return the similarity to the nearest innocent question of another group than the hidden one, shape ``(n,)``."""
    if not store.retain:
        return np.zeros(len(vectors), dtype=np.float32)
    num = min(len(store.retain), NUM_NEAREST if any(hidden) else 1)
    similarities, rows = store.search(vectors, num=num, retain=True)
    for i, group in enumerate(hidden):
        if group is not None:
            own = [row >= 0 and store.retain[row].group == group for row in rows[i].tolist()]
            similarities[i, own] = 0.0
    return np.asarray(similarities.max(axis=1).clip(min=0), dtype=np.float32)
