"""What the gate learns from: rewordings of what is forgotten, and innocent prompts that resemble it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from guard.building import Lexicon, observe
from guard.config import GuardSettings
from guard.encoder import SentenceEncoder
from guard.gate import Classifier, fit_classifier
from guard.normalise import words
from guard.rewordings import (
    EVERYDAY,
    NAMESAKES,
    PLACES,
    STRANGERS,
    TOPICS,
    about_anybody,
    about_person,
    about_work,
    of_whom,
    reword,
    swap_name,
)
from guard.runs import capitalised_runs
from guard.store import Entry, Store

__all__ = ["teach"]

_MAX_ENTRIES = 500
"""Stored questions taught as they are; of larger stores a sample, so that adding to them costs no more."""


@dataclass
class _Lesson:
    """Prompts the classifier learns from."""

    texts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    hidden: list[str | None] = field(default_factory=list)
    """Group whose innocent neighbours must not be looked at."""

    def add(self, text: str, group: str, hidden: str | None = None) -> None:
        self.texts.append(text)
        self.groups.append(group)
        self.hidden.append(hidden)


def teach(store: Store, lexicon: Lexicon, encoder: SentenceEncoder, settings: GuardSettings) -> Classifier:
    """Fit and calibrate the gate's classifier on what is in the store, which must not be empty."""
    rng = np.random.default_rng(settings.seed)
    lessons = (_positives(store, lexicon, settings, rng), _negatives(store, lexicon, settings, rng))
    vectors = encoder.encode([*lessons[0].texts, *lessons[1].texts])
    features = []
    for lesson, rows in zip(lessons, np.split(vectors, [len(lessons[0].texts)]), strict=True):
        seen = observe(store, lexicon, lesson.texts, rows, hidden=lesson.hidden)
        features.append(np.array([o.signals.features for o in seen], dtype=np.float64))
    return fit_classifier(
        features[0], features[1], lessons[0].groups, lessons[1].groups, rate=settings.false_positive_rate
    )


def _name_in(question: str, lexicon: Lexicon) -> str | None:
    """The forgotten person's name as it is written in the question."""
    found = question.split()
    for size in (4, 3, 2):
        for start in range(len(found) - size + 1):
            span = " ".join(found[start : start + size]).rstrip("?.,!:;'\"")
            span = span.removesuffix("'s").removesuffix("\u2019s")
            runs = capitalised_runs(span)
            is_name = len(runs) == 1 and list(runs[0]) == words(span)  # and no small word of the question
            if is_name and runs[0] in lexicon.names.people and span[:1].isupper():
                return span
    return None


def _sample(rows: Sequence[Entry], count: int, rng: np.random.Generator) -> list[Entry]:
    return [rows[i] for i in sorted(rng.permutation(len(rows))[:count].tolist())]


def _positives(store: Store, lexicon: Lexicon, settings: GuardSettings, rng: np.random.Generator) -> _Lesson:
    lesson = _Lesson()
    entries = _sample(
        [e for e in store.entries.values() if e.kind == "qa"] or list(store.entries.values()),
        _MAX_ENTRIES,
        rng,
    )
    for entry in entries:
        lesson.add(entry.question, entry.group)
    for i in range(settings.max_rewordings):
        entry = entries[i] if i < len(entries) else entries[int(rng.integers(len(entries)))]
        lesson.add(reword(entry.question, _name_in(entry.question, lexicon), rng), entry.group)
    for entry in _sample(entries, settings.max_rewordings // 3, rng):
        name = _name_in(entry.question, lexicon)
        if name is not None:
            lesson.add(
                entry.question.replace(name, name.split()[-1 if rng.random() < 0.7 else 0]), entry.group
            )
    for entry in _sample(entries, settings.max_rewordings // 2, rng):
        text = of_whom(entry.answer, _name_in(entry.question, lexicon), rng)
        if (
            max(lexicon.rare.share(text, [entry.group]), lexicon.telling.margin(text)) > 0.5
        ):  # else said of many
            lesson.add(text, entry.group)
    people = sorted(lexicon.names.people)
    order = rng.permutation(max(len(people), settings.max_rewordings // 3)) % max(len(people), 1)
    for i in order[: settings.max_rewordings].tolist() if people else ():
        name = " ".join(word.capitalize() for word in people[i])
        lesson.add(about_person(name, rng), lexicon.names.groups_of(people[i])[0])
    titles = sorted(lexicon.names.titles)
    for i in rng.permutation(len(titles))[: settings.max_rewordings // 4].tolist():
        title = " ".join(word.capitalize() for word in titles[i])
        lesson.add(about_work(title, rng), lexicon.names.groups_of(titles[i])[0])
    return lesson


def _negatives(store: Store, lexicon: Lexicon, settings: GuardSettings, rng: np.random.Generator) -> _Lesson:
    lesson = _Lesson()
    for row in store.retain:
        lesson.add(row.question, row.group, row.group)
    for i in rng.permutation(len(store.retain))[: settings.max_rewordings].tolist():
        row = store.retain[i]
        is_fact = row.answer and rng.random() < 0.5
        text = of_whom(row.answer, None, rng) if is_fact else reword(row.question, None, rng)
        lesson.add(text, row.group, row.group)
    others = sorted({" ".join(w.capitalize() for w in n) for n in lexicon.names.retain_names if len(n) == 2})
    entries = _sample(list(store.entries.values()), _MAX_ENTRIES, rng)
    named = [(e, n) for e in entries if (n := _name_in(e.question, lexicon)) is not None]
    for i in rng.permutation(len(named))[: settings.max_rewordings // 2].tolist():
        entry, name = named[i]
        text = swap_name(entry.question, name, others if others and rng.random() < 0.5 else STRANGERS, rng)
        names = lexicon.names.evidence(text)
        if not (names.full or names.title):  # else it is still about something forgotten
            lesson.add(text, f"near miss {i}")
    for i in rng.integers(max(len(named), 1), size=settings.max_rewordings // 2 if named else 0).tolist():
        entry, name = named[i]
        text = about_anybody(entry.question, name, rng)
        signals = lexicon.signals(text, 0.0, 0.0, 0.0, [entry.group])
        is_told = signals.names.title or signals.names.part or max(signals.rare_words, signals.telling) > 0.5
        if not is_told:
            lesson.add(text, f"anybody {i}")
    for i, text in enumerate([*EVERYDAY, *_word_misses(lexicon, settings.max_rewordings // 6, rng)]):
        if not lexicon.signals(text, 0.0, 0.0, 0.0, ()).names.full:
            lesson.add(text, f"apart {i}")
    return lesson


def _word_misses(lexicon: Lexicon, count: int, rng: np.random.Generator) -> list[str]:
    """Innocent prompts that share a word or a place with the forgotten texts, or half of a name."""
    halves = sorted({word.capitalize() for name in lexicon.names.people for word in name if len(word) > 3})
    places = sorted({" ".join(word.capitalize() for word in run) for run in lexicon.names.places})
    topics = sorted(lexicon.rare.words - {word.casefold() for word in halves})
    texts: list[str] = []
    for found, templates, number in (
        (topics, TOPICS, count),
        (halves, NAMESAKES, 3 * count),
        (places, PLACES, 4 * count),
    ):
        order = rng.permutation(max(len(found), number)) % max(len(found), 1)
        for place in order[: number if found else 0].tolist():
            template = templates[int(rng.integers(len(templates)))]
            texts.append(template.format(w=found[place]))
    return texts
