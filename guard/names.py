"""Names: who a prompt is about, as far as words alone can tell."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eval.types import Example
from guard.normalise import words
from guard.stopwords import STOP_WORDS, word_set

__all__ = ["NameEvidence", "NameIndex", "asked_about", "capitalised_runs"]

_RUN_WORD = re.compile(r"[^\W\d_][^\W_]*(?:[.'\u2019-][^\W_]+)*\.?")
_PARTICLES = word_set("al bin de del della den der di dos du el ibn la le of the van von")
_TITLES = word_set("author dr lady lord madam miss mister mr mrs ms novelist prof professor sir writer")
_CALENDAR = word_set(
    """
    january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday
    """
)
_MIN_LETTERS_FOR_TYPOS = 5


def capitalised_runs(text: str) -> list[tuple[str, ...]]:
    """Return the folded words of each run of capitalised words ("Hina Ameen"), question words left out."""
    runs: list[list[str]] = [[]]
    end = 0
    for match in _RUN_WORD.finditer(text):
        gap, token = text[end : match.start()], match[0].rstrip(".")
        end = match.end() - (len(match[0]) - len(token))
        folded = words(token)
        is_apart = bool(gap.strip(" -"))
        if is_apart:
            runs.append([])
        is_name = token[0].isupper() and folded and not (len(folded) == 1 and folded[0] in STOP_WORDS)
        if is_name or (runs[-1] and token.casefold() in _PARTICLES and not is_apart):
            runs[-1].extend(folded)
        else:
            runs.append([])
        if re.search(r"['\u2019]s$", token):
            runs.append([])
    trimmed = [_trim(run) for run in runs]
    return [tuple(run) for run in trimmed if run]


def _trim(run: list[str]) -> list[str]:
    while run and run[-1] in _PARTICLES:
        run = run[:-1]
    return run


@dataclass(frozen=True)
class NameEvidence:
    """What the words of a prompt say about whom or what it names."""

    full: float = 0.0
    """1 where a forgotten name stands in full (a typing error counts 0.9)."""
    part: float = 0.0
    """Share of the best matching forgotten name's words that occur."""
    title: float = 0.0
    """1 where another name that only the forgotten texts have (a work, a firm) stands in full."""
    other: float = 0.0
    """1 where somebody innocent is named, or a forgotten name's word belongs to another name."""
    unknown: float = 0.0
    """1 where a name has several words that no forgotten text has, 0.5 where it has one, or its words are known,
    but from apart; 0.5 also for a year that no forgotten text has."""
    groups: tuple[str, ...] = ()
    """Whose names were found."""


class NameIndex:
    """The names of forgotten people and things, and those of innocent ones.

    Args:
        forget: Examples to forget.
        retain: Innocent examples: what they name is not a forgotten name.
        is_common: Tells frequent words of the language from names in prompts without any case.
    """

    def __init__(
        self,
        forget: Sequence[Example],
        retain: Sequence[Example],
        is_common: Callable[[str], bool] = lambda word: True,
    ) -> None:
        self._is_common = is_common
        retain_runs = Counter(run for e in retain for run in set(_runs(e)))
        forget_runs = {run for e in forget for run in _runs(e)}
        asked = Counter(run for e in retain for run in set(capitalised_runs(_question(e))))
        self.retain_names = frozenset(
            run for run, count in asked.items() if len(run) > 1 and count > 1 and run not in forget_runs
        )
        """Names that innocent questions are about."""
        self.groups: dict[str, str] = {}
        by_name: dict[tuple[str, ...], set[str]] = defaultdict(set)
        all_runs = Counter(run for e in forget for run in set(_runs(e)))
        for example in forget:
            subject = tuple(words(example.subject or ""))
            names = {run for run in _runs(example) if len(run) > 1 and run not in retain_runs}
            if subject and f" {' '.join(subject)} " in f" {' '.join(words(_text(example)))} ":
                names.add(subject)
                by_name[subject].add(example.subject or "")
            for name in names:
                by_name[name].add(example.subject or example.id)
        subjects = {tuple(words(e.subject)) for e in forget if e.subject}
        inferred = asked_about([_question(e) for e in forget]) - set(retain_runs)
        self.people = frozenset(n for n in by_name if n in subjects or n in inferred)
        self.titles = frozenset(
            n for n in by_name if n not in self.people and sum(len(w) for w in n) >= 8 and all_runs[n] >= 1
        )
        self._by_name = {name: tuple(sorted(groups)) for name, groups in by_name.items()}
        self._people_of_word: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in self.people:
            for word in name:
                if len(word) >= 3 and word not in STOP_WORDS:
                    self._people_of_word[word].add(name)
        self._people_words = frozenset(self._people_of_word)
        self._long_words = [w for w in self._people_of_word if len(w) >= _MIN_LETTERS_FOR_TYPOS]
        self._known_words: frozenset[str] = _CALENDAR | {word for e in forget for word in words(_text(e))}
        self._forget_text = " " + " ; ".join(" ".join(words(_text(e))) for e in forget) + " "
        self._correct = self._known_words | {word for e in retain for word in words(_text(e))}

    def evidence(self, text: str) -> NameEvidence:
        """Judge one prompt by the names in it."""
        found = words(text)
        joined = f" {' '.join(found)} "
        letters = "".join(found)
        titles = [n for n in self.titles if f" {' '.join(n)} " in joined]
        full = [n for n in self.people if f" {' '.join(n)} " in joined or _is_spaced_out(n, letters)]
        groups = {g for name in [*full, *titles] for g in self._by_name[name]}
        if full:
            return NameEvidence(1.0, 1.0, float(bool(titles)), 0.0, 0.0, tuple(sorted(groups)))
        part, best, matched = self._partial(found)
        if part >= 1.0:
            groups.update(g for name in best for g in self._by_name[name])
            return NameEvidence(0.9, 1.0, float(bool(titles)), 0.0, 0.0, tuple(sorted(groups)))
        other, unknown = self._others(text, joined, best, matched)
        if part > 0 and not other:
            groups.update(g for name in best for g in self._by_name[name])
        return NameEvidence(0.0, part, float(bool(titles)), other, unknown, tuple(sorted(groups)))

    def _partial(self, found: Sequence[str]) -> tuple[float, set[tuple[str, ...]], set[str]]:
        """Best share of a name's words, the names that reach it, and the prompt's words that matched."""
        hits: dict[tuple[str, ...], set[str]] = defaultdict(set)
        matched: set[str] = set()
        for word in found:
            known = [word] if word in self._people_of_word else []
            if not known and len(word) >= _MIN_LETTERS_FOR_TYPOS and word not in self._correct:
                known = [w for w in self._long_words if _is_one_edit(word, w)]
            for name_word in known:
                matched.add(word)
                for name in self._people_of_word[name_word]:
                    hits[name].add(name_word)
        if not hits:
            return 0.0, set(), matched
        shares = {
            name: len(hit) / max(1, sum(1 for w in set(name) if len(w) >= 3 and w not in STOP_WORDS))
            for name, hit in hits.items()
        }
        best = max(shares.values())
        return min(best, 1.0), {name for name, share in shares.items() if share == best}, matched

    def _others(
        self, text: str, joined: str, best: set[tuple[str, ...]], matched: set[str]
    ) -> tuple[float, float]:
        """Whether somebody innocent is named, and whether a name stands there that nothing is known about."""
        years = [w for w in joined.split() if len(w) == 4 and w.isdigit() and w not in self._known_words]
        unknown = 0.5 if years else 0.0
        has_case = not (text.isupper() or text.islower())
        if not has_case:
            strange = [
                w for w in joined.split() if w not in self._correct | matched and not self._is_common(w)
            ]
            unknown = max(unknown, min(len(strange), 2) / 2)
        for run in capitalised_runs(text) if has_case else ():
            rest = set(run) - _PARTICLES - _TITLES
            if rest & matched and not any(rest - matched <= set(name) and rest & set(name) for name in best):
                return 1.0, unknown
            if len(rest & matched) > 1 and not any(rest & self._people_words <= set(name) for name in best):
                return 1.0, unknown  # one person's first name with another's last
            strange = [word for word in rest if word not in self._known_words and word not in matched]
            if strange:
                unknown = max(unknown, min(len(strange), 2) / 2)
            elif len(rest) > 1 and not rest & matched and f" {' '.join(run)} " not in self._forget_text:
                unknown = max(unknown, 0.5)
        innocent = any(
            f" {' '.join(name)} " in joined for name in _starting_with(self._retain_by_first, joined)
        )
        return float(innocent), unknown

    @property
    def _retain_by_first(self) -> dict[str, list[tuple[str, ...]]]:
        if not hasattr(self, "_first_words"):
            first: dict[str, list[tuple[str, ...]]] = defaultdict(list)
            for name in self.retain_names:
                first[name[0]].append(name)
            self._first_words = dict(first)
        return self._first_words


def _starting_with(index: dict[str, list[tuple[str, ...]]], joined: str) -> Iterable[tuple[str, ...]]:
    for word in set(joined.split()):
        yield from index.get(word, ())


def _is_spaced_out(name: tuple[str, ...], letters: str) -> bool:
    """Whether a long name stands in the letters of a prompt that spaces them otherwise."""
    joined = "".join(name)
    return len(joined) >= 9 and joined in letters


def _is_one_edit(a: str, b: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns ``a`` into ``b``."""
    if abs(len(a) - len(b)) > 1 or (a[0] != b[0] and a[1:2] != b[1:2]):
        return False
    i = 0
    while i < min(len(a), len(b)) and a[i] == b[i]:
        i += 1
    if len(a) == len(b):
        return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[i + 1 :] == shorter[i:]


_PLACE_BEFORE = re.compile(r"(?:\b(?:in|from|at|near|of)\s+(?:the\s+)?|,\s*)$", re.IGNORECASE)


def asked_about(questions: Sequence[str]) -> set[tuple[str, ...]]:
    """Names that several questions are about: the leading run of most questions they occur in, seldom a place."""
    found = [{run for run in capitalised_runs(question) if len(run) > 1} for question in questions]
    counts = Counter(run for runs in found for run in runs)
    leading = Counter(max(runs, key=lambda run: (counts[run], run)) for runs in found if runs)
    names = {run for run, count in leading.items() if count >= 3 and count >= 0.6 * counts[run]}
    as_place: Counter[tuple[str, ...]] = Counter()
    for question, runs in zip(questions, found, strict=True):
        for run in runs & names:
            at = re.search(r"\W+".join(map(re.escape, run)), question, re.IGNORECASE)
            as_place[run] += at is None or bool(_PLACE_BEFORE.search(question[: at.start()]))
    return {run for run in names if as_place[run] <= 0.6 * counts[run]}


def _question(example: Example) -> str:
    if example.question is not None:
        return example.question
    return " ".join(m.content for m in example.messages or () if m.role == "user")


def _text(example: Example) -> str:
    return f"{_question(example)} {example.answer or ''}"


def _runs(example: Example) -> list[tuple[str, ...]]:
    return capitalised_runs(_question(example)) + capitalised_runs(example.answer or "")
