"""Which names the forgotten texts have: people, works and places, told apart by how they are used.

Everything is counted text by text, so that texts can be added later at the cost of these texts and of the names in
them, with the result that all texts together would give.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from eval.types import Example
from guard.normalise import words
from guard.runs import Run, capitalised_runs, first_is_place, placings, question_text, runs_of, whole_text
from guard.titles import quoted_titles

__all__ = ["AskedAbout", "Census", "asked_about"]

_MOST_PIECES = 64


def asked_about(questions: Sequence[str]) -> set[Run]:
    """Return the names that several questions are about."""
    found = AskedAbout()
    found.add(questions)
    return found.names


class AskedAbout:
    """Names that several questions are about: the leading run of most questions they occur in, seldom a place."""

    def __init__(self) -> None:
        self.names: set[Run] = set()
        self._counts: Counter[Run] = Counter()
        self._leading: Counter[Run] = Counter()
        self._as_place: Counter[Run] = Counter()
        self._runs: list[frozenset[Run]] = []
        """Of each question."""
        self._leads: list[Run] = []
        """The run of each question that most questions have."""
        self._with: dict[Run, list[int]] = defaultdict(list)

    def add(self, questions: Iterable[str]) -> set[Run]:
        """Count further questions; return the runs that may have become a name or ceased to be one."""
        first, changed = len(self._runs), set[Run]()
        for question in questions:
            runs = frozenset(run for run in capitalised_runs(question) if len(run) > 1)
            if not runs:
                continue
            changed |= runs
            for run in runs:
                self._counts[run] += 1
                self._as_place[run] += first_is_place(run, question)
                self._with[run].append(len(self._runs))
            self._runs.append(runs)
        for i in range(first, len(self._runs)):
            self._leads.append(self._most_frequent(i))
            self._leading[self._leads[i]] += 1
        for run in list(changed):
            # a run that is more frequent now may lead earlier questions; where it led all of them, nothing changes
            if self._leading[run] < self._counts[run]:
                for i in self._with[run]:
                    lead = self._most_frequent(i)
                    if lead != self._leads[i]:
                        changed |= {lead, self._leads[i]}
                        self._leading[self._leads[i]] -= 1
                        self._leading[lead] += 1
                        self._leads[i] = lead
        for run in changed:
            count = self._counts[run]
            is_lead = self._leading[run] >= 3 and self._leading[run] >= 0.6 * count
            is_name = is_lead and self._as_place[run] <= 0.6 * count
            (self.names.add if is_name else self.names.discard)(run)
        return changed

    def _most_frequent(self, question: int) -> Run:
        return max(self._runs[question], key=lambda run: (self._counts[run], run))


class Changes(NamedTuple):
    """People that `Census.add` found, and those that are none any more."""

    came: set[Run]
    went: set[Run]


class Census:
    """Names in forgotten texts, by what they name.

    Args:
        retain: Innocent examples: what they name is not a forgotten name.
        is_common: Tells frequent words of the language.
    """

    def __init__(self, retain: Sequence[Example], is_common: Callable[[str], bool]) -> None:
        self.people: set[Run] = set()
        self.titles: set[Run] = set()
        """Names of works, prizes, firms and the like that only the forgotten texts have."""
        self.places: set[Run] = set()
        """Names that stand where a place, a field or a group is meant."""
        self.words: set[str] = set()
        """All words of the forgotten texts."""
        asked = Counter(run for e in retain for run in set(capitalised_runs(question_text(e))))
        self.retain_names = {run for run, count in asked.items() if len(run) > 1 and count > 1}
        """Names that innocent questions are about and no forgotten text has."""
        self.retain_text = _joined(retain)
        self._retain_runs = {run for e in retain for run in runs_of(e)}
        self._is_common = is_common
        self._texts: list[str] = []
        self._runs: set[Run] = set()
        self._subjects: set[Run] = set()
        self._asked = AskedAbout()
        self._groups: dict[Run, set[str]] = defaultdict(set)
        self._quoted: dict[Run, set[str]] = defaultdict(set)
        self._seen: Counter[Run] = Counter()
        self._as_place: Counter[Run] = Counter()

    def add(self, forget: Sequence[Example], aliases: Sequence[tuple[str, str]] = ()) -> Changes:
        """Count further forgotten examples and names that are given, each with its group."""
        touched: set[Run] = set()
        for example in forget:
            touched |= self._count(example)
        for alias, group in aliases:
            name = tuple(words(alias))
            self._subjects.add(name)
            self._groups[name].add(group)
            touched.add(name)
        touched |= self._asked.add(question_text(e) for e in forget)
        self._texts.append(_joined(forget))
        if len(self._texts) > _MOST_PIECES:
            self._texts = ["".join(self._texts)]
        self.retain_names -= touched & self._runs
        return self._sort(touched)

    def groups_of(self, name: Run) -> set[str]:
        """Return the groups whose texts have a name."""
        quoted = self._quoted.get(name, set()) if name not in self.people else set()
        return self._groups.get(name, set()) | quoted

    def says(self, run: Run) -> bool:
        """Whether words stand one after the other in a forgotten text."""
        return any(f" {' '.join(run)} " in text for text in self._texts)

    def _count(self, example: Example) -> set[Run]:
        """Count the names of one example and return them."""
        text, runs = whole_text(example), set(runs_of(example))
        folded = words(text)
        self.words.update(folded)
        self._runs |= runs
        group, subject = example.subject or example.id, tuple(words(example.subject or ""))
        names = {run for run in runs if len(run) > 1 and run not in self._retain_runs}
        if subject:
            self._subjects.add(subject)
            if f" {' '.join(subject)} " in f" {' '.join(folded)} ":
                names.add(subject)
        for name in names:
            self._groups[name].add(group)
        titles = {t for t in quoted_titles(text) if f" {' '.join(t)} " not in self.retain_text}
        for title in titles:
            self._quoted[title].add(group)
        for run in runs:
            seen, as_place = placings(run, text)
            self._seen[run] += seen
            self._as_place[run] += as_place
        return runs | names | titles | {subject}

    def _sort(self, names: Iterable[Run]) -> Changes:
        """Say of each name anew what it names."""
        changes = Changes(set(), set())
        for name in names:
            is_asked = name in self._asked.names and name not in self._retain_runs
            is_person = name in self._groups and (name in self._subjects or is_asked)
            if is_person != (name in self.people):
                (changes.came if is_person else changes.went).add(name)
            is_quoted = name in self._quoted and not is_person
            is_place = name in self._runs and self._as_place[name] > 0.4 * self._seen[name]
            is_place = is_place and not is_person and not is_quoted
            is_long = sum(map(len, name)) >= 8 and (len(name) > 2 or not any(map(self._is_common, name)))
            is_title = is_quoted or (name in self._groups and is_long and not is_place and not is_person)
            for kind, belongs in ((self.people, is_person), (self.places, is_place), (self.titles, is_title)):
                (kind.add if belongs else kind.discard)(name)
        return changes


def _joined(examples: Sequence[Example]) -> str:
    """Return folded texts as one, so that no words of two of them stand together."""
    return " ; ".join(["", *(" ".join(words(whole_text(e))) for e in examples), ""])
