"""Building a guard: grouping the examples, finding phrases, and teaching the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eval.errors import DataError
from eval.types import Example
from guard.config import GuardSettings
from guard.encoder import SentenceEncoder
from guard.gate import Classifier, RareWords, Signals, fit_classifier
from guard.names import NameIndex, asked_about, capitalised_runs
from guard.phrases import Contrast, extract_phrases
from guard.rewordings import EVERYDAY, NAMESAKES, TOPICS, reword, swap_name
from guard.store import Entry, Innocent, Store

__all__ = ["Lexicon", "find_phrases", "group_of", "innocents", "question_of", "teach"]

Vectors = npt.NDArray[np.float32]


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
) -> tuple[Innocent, ...]:
    """Choose the innocent neighbours a guard keeps: a sample of retain, and the background prompts."""
    rng = np.random.default_rng(settings.seed)
    groups = group_of([e for e in retain if e.answer is not None])
    rows = [
        Innocent(question=question_of(e), answer=e.answer or "", group=g)
        for e, g in zip([e for e in retain if e.answer is not None], groups, strict=True)
    ]
    chosen = sorted(rng.permutation(len(rows))[: settings.max_retain].tolist())
    others = [
        Innocent(
            question=" ".join(m.content for m in e.conversation if m.role == "user"),
            answer=e.answer or "",
            group=f"background {e.id}",
        )
        for e in background
        if e.question is not None or e.messages is not None
    ]
    kept = sorted(rng.permutation(len(others))[: max(settings.max_retain // 2, 0)].tolist())
    return tuple([rows[i] for i in chosen] + [others[i] for i in kept])


@dataclass(frozen=True)
class Lexicon:
    """What words say: names, and rare words of each forgotten group. Derived from a store's texts alone."""

    names: NameIndex
    rare: RareWords

    @classmethod
    def of(cls, store: Store, is_common: Callable[[str], bool]) -> Lexicon:
        """Index the texts of a store; ``is_common`` tells everyday words from names where case does not."""
        entries = list(store.entries.values())
        forget = [
            Example(id=str(e.id), question=e.question, answer=e.answer, subject=e.group) for e in entries
        ]
        retain = [
            Example(id=str(i), question=r.question, answer=r.answer, subject=r.group)
            for i, r in enumerate(store.retain)
        ]
        grouped = [(entry.group, example) for entry, example in zip(entries, forget, strict=True)]
        return cls(NameIndex(forget, retain, is_common), RareWords(grouped, retain))

    def signals(
        self, text: str, question: float, answer: float, retain: float, near_groups: Sequence[str]
    ) -> Signals:
        """Join similarities with what the words say."""
        names = self.names.evidence(text)
        share = self.rare.share(text, [*names.groups, *near_groups])
        return Signals(question, answer, retain, names, share)

    def suspicion(self, text: str) -> float:
        """How much the words of a text alone speak for something forgotten."""
        names = self.names.evidence(text)
        return names.full + names.part + names.title + self.rare.share(text, names.groups)


def find_phrases(
    store: Store, entries: Sequence[Entry], questions: Vectors, *, num_neighbours: int
) -> list[Entry]:
    """Return the entries with their phrases, by contrast with the nearest innocent answers."""
    general = Contrast.of([r.answer for r in store.retain if r.answer])
    neighbours = np.full((len(entries), 1), -1)
    if len(entries) and store.retain:
        _, neighbours = store.search(questions, num=num_neighbours, retain=True)
    out: list[Entry] = []
    for entry, near in zip(entries, neighbours, strict=True):
        answers = [store.retain[i].answer for i in near.tolist() if i >= 0 and store.retain[i].answer]
        phrases = extract_phrases(
            entry.question, entry.answer, neighbours=Contrast.of(answers), general=general
        )
        out.append(replace(entry, phrases=phrases))
    return out


@dataclass
class _Lesson:
    """Prompts the classifier learns from."""

    texts: list[str]
    groups: list[str]
    hidden: list[str | None]
    """Group whose innocent neighbours must not be looked at."""


def teach(store: Store, lexicon: Lexicon, encoder: SentenceEncoder, settings: GuardSettings) -> Classifier:
    """Fit and calibrate the gate's classifier on what is in the store."""
    rng = np.random.default_rng(settings.seed)
    positives, negatives = (
        _positives(store, lexicon, settings, rng),
        _negatives(store, lexicon, settings, rng),
    )
    features = [_features(lesson, store, lexicon, encoder) for lesson in (positives, negatives)]
    return fit_classifier(
        features[0], features[1], positives.groups, negatives.groups, rate=settings.false_positive_rate
    )


def _name_in(question: str, lexicon: Lexicon) -> str | None:
    """The forgotten person's name as it is written in the question."""
    words = question.split()
    for size in (4, 3, 2):
        for start in range(len(words) - size + 1):
            span = (
                " ".join(words[start : start + size])
                .rstrip("?.,!:;'\"")
                .removesuffix("'s")
                .removesuffix("\u2019s")
            )
            runs = capitalised_runs(span)
            if len(runs) == 1 and runs[0] in lexicon.names.people and span[:1].isupper():
                return span
    return None


def _positives(store: Store, lexicon: Lexicon, settings: GuardSettings, rng: np.random.Generator) -> _Lesson:
    entries = list(store.entries.values())
    lesson = _Lesson([e.question for e in entries], [e.group for e in entries], [None] * len(entries))
    if not entries:
        return lesson
    for i in range(settings.max_rewordings):
        entry = entries[int(rng.integers(len(entries)))] if i >= len(entries) else entries[i]
        lesson.texts.append(reword(entry.question, _name_in(entry.question, lexicon), rng))
        lesson.groups.append(entry.group)
        lesson.hidden.append(None)
    return lesson


def _negatives(store: Store, lexicon: Lexicon, settings: GuardSettings, rng: np.random.Generator) -> _Lesson:
    lesson = _Lesson([r.question for r in store.retain], [r.group for r in store.retain], [])
    lesson.hidden = list(lesson.groups)
    for i in rng.permutation(len(store.retain))[: settings.max_rewordings // 2].tolist():
        row = store.retain[i]
        lesson.texts.append(reword(row.question, None, rng))
        lesson.groups.append(row.group)
        lesson.hidden.append(row.group)
    others = sorted({" ".join(w.capitalize() for w in n) for n in lexicon.names.retain_names if len(n) == 2})
    named = [(e, n) for e in store.entries.values() if (n := _name_in(e.question, lexicon)) is not None]
    for i in rng.permutation(len(named))[: settings.max_rewordings // 2].tolist():
        entry, name = named[i]
        text = swap_name(entry.question, name, others or ["Robin Example"], rng)
        names = lexicon.names.evidence(text)
        if names.full or names.title:  # still about something forgotten
            continue
        lesson.texts.append(text)
        lesson.groups.append(f"near miss {i}")
        lesson.hidden.append(None)
    apart = [*EVERYDAY, *_word_misses(lexicon, settings.max_rewordings // 6, rng)]
    lesson.texts.extend(apart)
    lesson.groups.extend(f"apart {i}" for i in range(len(apart)))
    lesson.hidden.extend([None] * len(apart))
    return lesson


def _word_misses(lexicon: Lexicon, count: int, rng: np.random.Generator) -> list[str]:
    """Innocent prompts that share one word with the forgotten texts: a topic, a place, half of a name."""
    halves = sorted({word.capitalize() for name in lexicon.names.people for word in name if len(word) > 3})
    topics = sorted(lexicon.rare.words - {word.casefold() for word in halves})
    texts: list[str] = []
    for words, templates, share in ((topics, TOPICS, 2), (halves, NAMESAKES, 1)):
        for place in rng.permutation(len(words))[: share * count // 3].tolist():
            template = templates[int(rng.integers(len(templates)))]
            texts.append(template.format(w=words[place]))
    return texts


def _features(
    lesson: _Lesson, store: Store, lexicon: Lexicon, encoder: SentenceEncoder
) -> npt.NDArray[np.float64]:
    vectors = encoder.encode(lesson.texts)
    questions, ids = store.vectors(kind="questions")
    answers, _ = store.vectors(kind="answers")
    retain, _ = store.vectors(kind="retain")
    by_question, by_answer = vectors @ questions.T, vectors @ answers.T
    by_retain = vectors @ retain.T if len(retain) else np.full((len(vectors), 1), -1.0, dtype=np.float32)
    retain_groups = np.array([r.group for r in store.retain])
    groups = [store.entries[int(i)].group for i in ids]
    rows: list[list[float]] = []
    for i, text in enumerate(lesson.texts):
        near_retain = by_retain[i]
        if lesson.hidden[i] is not None and len(retain):
            near_retain = np.where(retain_groups == lesson.hidden[i], -1.0, near_retain)
        best = np.argsort(-np.maximum(by_question[i], by_answer[i]))[:8]
        signals = lexicon.signals(
            text,
            float(by_question[i].max(initial=-1.0)),
            float(by_answer[i].max(initial=-1.0)),
            float(near_retain.max(initial=0.0)),
            [groups[j] for j in best],
        )
        rows.append(signals.features)
    return np.array(rows, dtype=np.float64)
