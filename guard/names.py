"""Names: who a prompt is about, as far as words alone can tell."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from eval.types import Example
from guard.census import Census
from guard.hashing import is_veiled
from guard.normalise import words
from guard.runs import PARTICLES, Run, capitalised_runs, whole_text
from guard.spelling import Spellings
from guard.stopwords import STOP_WORDS, word_set
from guard.titles import LONGEST_TITLE

__all__ = ["NameEvidence", "NameIndex"]

_TITLES = word_set("author dr lady lord madam miss mister mr mrs ms novelist prof professor sir writer")
_CALENDAR = word_set(
    """
    january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday
    """
)
_MIN_LETTERS_FOR_TYPOS = 5
_SHORT_WORD = 3
"""Letters of the words that a long name may have otherwise although they are words ("El-Hashim", "Le Williams")."""
_MIN_LETTERS_JOINED = 9
"""Letters of a name from which it is recognised inside a text that spaces its letters otherwise."""
_MIN_LETTERS_JOINED_TYPOS = 12
_MIN_LETTERS_THREE_TYPOS = 18
_OF_NAMES = re.compile(
    r"\ban? (?:[\w-]+ ){0,2}(?:sur)?name\b|\b(?:sur)?name \S+ (?:mean|come|have|popular|common)|\bnickname\b"
    r"|\b(?:pronounce|spell|meaning of|origin of|mean in|names?d? after)\b|\bdoes \S+ mean\b",
    re.IGNORECASE,
)
"""Talk about a name as a word: what it means, how it is spelt, whether it is common."""


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
    as_word: float = 0.0
    """1 where part of a forgotten name stands in talk about names themselves ("Is Roe a common name?")."""
    groups: tuple[str, ...] = ()
    """Whose names were found."""


class NameIndex:
    """The names of forgotten people and things, and those of innocent ones.

    Args:
        forget: Examples to forget.
        retain: Innocent examples: what they name is not a forgotten name.
        is_common: Tells frequent words of the language from names in prompts without any case.
        aliases: Further names that are forgotten ones whatever the texts say, each with its group.
    """

    def __init__(
        self,
        forget: Sequence[Example],
        retain: Sequence[Example],
        is_common: Callable[[str], bool] = lambda word: False,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._is_common = is_common
        self._census = Census(retain, is_common)
        self._retain_words = {word for e in retain for word in words(whole_text(e))}
        self._name_words: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()
        self._people_of_word: dict[str, set[Run]] = {}
        self._spellings = Spellings()
        self._joined: dict[str, set[Run]] = {}
        self._joined_from: dict[str, set[str]] = defaultdict(set)
        self._joined_spellings = Spellings()
        self._retain_by_first: dict[str, list[Run]] = defaultdict(list)
        for name in self._census.retain_names:
            self._retain_by_first[name[0]].append(name)
        self.add(forget, aliases)

    def add(self, forget: Sequence[Example], aliases: Sequence[tuple[str, str]] = ()) -> None:
        """Take further forgotten examples and names in; the index is then the one of all of them."""
        changes = self._census.add(forget, aliases)
        for name in changes.went:
            self._forget_name(name)
        for name in changes.came:
            self._learn_name(name)

    def _learn_name(self, name: Run) -> None:
        self._name_words.update(name)
        self._lengths[len(name)] += 1
        for word in set(_significant(name)):
            self._people_of_word.setdefault(word, set()).add(name)
            self._spellings.add(word)
        if len(name) > 1:
            joined = "".join(name)
            self._joined.setdefault(joined, set()).add(name)
            if len(joined) >= _MIN_LETTERS_JOINED:
                self._joined_from[joined[:_MIN_LETTERS_JOINED]].add(joined)
            if len(joined) >= _MIN_LETTERS_JOINED_TYPOS:
                self._joined_spellings.add(joined)

    def _forget_name(self, name: Run) -> None:
        self._name_words.subtract(name)
        for word in name:
            if not self._name_words[word]:
                del self._name_words[word]
        self._lengths -= Counter([len(name)])
        for word in set(_significant(name)):
            self._people_of_word[word].discard(name)
            if not self._people_of_word[word]:
                del self._people_of_word[word]
                self._spellings.remove(word)
        joined = "".join(name)
        if joined in self._joined:
            self._joined[joined].discard(name)
            if not self._joined[joined]:
                del self._joined[joined]
                self._joined_from[joined[:_MIN_LETTERS_JOINED]].discard(joined)
                self._joined_spellings.remove(joined)

    @property
    def people(self) -> Collection[Run]:
        """Names of forgotten people and subjects."""
        return self._census.people

    @property
    def titles(self) -> Collection[Run]:
        """Names of works, prizes, firms and the like that only the forgotten texts have."""
        return self._census.titles

    @property
    def places(self) -> Collection[Run]:
        """Names that stand where a place, a field or a group is meant."""
        return self._census.places

    @property
    def retain_names(self) -> Collection[Run]:
        """Names that innocent questions are about."""
        return self._census.retain_names

    @property
    def name_words(self) -> Collection[str]:
        """The words of forgotten people's names; it follows what is added."""
        return self._name_words

    def groups_of(self, name: Run) -> tuple[str, ...]:
        """Return the groups a name or title of the forgotten texts belongs to."""
        return tuple(sorted(self._census.groups_of(name)))

    def knows(self, word: str) -> bool:
        """Whether a folded word stands in the forgotten texts."""
        return word in self._census.words or word in _CALENDAR

    def evidence(self, text: str) -> NameEvidence:
        """Judge one prompt by the names in it."""
        found = words(text)
        joined = f" {' '.join(found)} "
        titles = {run for run in _windows(found, LONGEST_TITLE) if run in self.titles}
        full = self._in_full(found)
        groups = {g for name in [*full, *titles] for g in self._census.groups_of(name)}
        title = float(bool(titles))
        if full:
            return NameEvidence(1.0, 1.0, title, groups=tuple(sorted(groups)))
        part, best, matched = self._partial(found)
        misspelt = self._misspelt(found) or (best if part >= 1.0 else set())
        if misspelt:
            groups.update(g for name in misspelt for g in self._census.groups_of(name))
            return NameEvidence(0.9, 1.0, title, groups=tuple(sorted(groups)))
        other, unknown = self._others(text, joined, best, matched)
        if part > 0 and not other:
            groups.update(g for name in best for g in self._census.groups_of(name))
        as_word = float(part > 0 and bool(_OF_NAMES.search(text)))
        return NameEvidence(0.0, part, title, other, unknown, as_word, tuple(sorted(groups)))

    @property
    def _longest(self) -> int:
        return max(self._lengths, default=0)

    def _in_full(self, found: Sequence[str]) -> set[tuple[str, ...]]:
        """Names that stand in full, whatever parts their letters."""
        full = {run for run in _windows(found, self._longest) if run in self.people}
        letters = "".join(found)
        for at in range(len(letters) - _MIN_LETTERS_JOINED + 1):
            for joined in self._joined_from.get(letters[at : at + _MIN_LETTERS_JOINED], ()):
                if letters.startswith(joined, at):
                    full |= self._joined[joined]
        for run in _windows(found, self._longest + 2):
            full |= self._joined.get("".join(run), set())
        return full

    def _misspelt(self, found: Sequence[str]) -> set[tuple[str, ...]]:
        """Long names that stand there whole with one or two typing errors, also across their spaces."""
        misspelt: set[tuple[str, ...]] = set()
        for run in _windows(found, self._longest + 1):
            letters = "".join(run)
            if is_veiled(run[0]) or len(letters) < _MIN_LETTERS_JOINED_TYPOS - 1 or len(letters) > 60:
                continue
            for near in self._joined_spellings.near(letters, 2 + (len(letters) >= _MIN_LETTERS_THREE_TYPOS)):
                for name in self._joined[near]:
                    changed = [word for word in run if word not in name and len(word) > _SHORT_WORD]
                    if not any(self._is_correct(word) for word in changed):
                        misspelt.add(name)
        return misspelt

    def _is_correct(self, word: str) -> bool:
        """Whether a word is one in its own right and no misspelling of a name."""
        return self._is_written(word) or (len(word) > 2 and self._is_common(word))

    def _is_written(self, word: str) -> bool:
        """Whether a word stands in the forgotten or the innocent texts."""
        return self.knows(word) or word in self._retain_words

    def _partial(self, found: Sequence[str]) -> tuple[float, set[tuple[str, ...]], set[str]]:
        """Best share of a name's words, the names that reach it, and the prompt's words that matched.

        One typing error in a word of five letters or more is overlooked; two, or one in a word of four, where
        the name's other words stand beside it.
        """
        hits: dict[tuple[str, ...], set[str]] = defaultdict(set)
        weak: dict[tuple[str, ...], set[str]] = defaultdict(set)
        matched: set[str] = set()
        for i, word in enumerate(found):
            if word in self._people_of_word:
                matched.add(word)
                for name in self._people_of_word[word]:
                    hits[name].add(word)
                    if _has_initial(found, i, name):
                        weak[name].update(_significant(name))
                continue
            if len(word) < 4 or self._is_written(word) or is_veiled(word):
                continue
            is_odd = not self._is_common(word)
            for near, distance in self._spellings.near(word, 1 + (is_odd and len(word) > 4)).items():
                is_strong = distance == 1 and min(len(word), len(near)) >= _MIN_LETTERS_FOR_TYPOS
                for name in self._people_of_word[near]:
                    if is_strong:
                        matched.add(word)
                        hits[name].add(near)
                    elif is_odd and self._is_beside(found, i, name, near):
                        weak[name].add(near)
        if not hits and not weak:
            return 0.0, set(), matched
        shares: dict[tuple[str, ...], float] = {}
        for name in {*hits, *weak}:
            needed = set(_significant(name))
            share = len(hits[name]) / max(1, len(needed))
            if hits[name] & {name[0], name[-1]}:
                share = max(share, 0.5)  # a first or last name alone says as much, however many stand between
            if any(self._is_distinctive(word) for word in hits[name]):
                share = max(share, 0.75)
            is_whole = hits[name] | weak[name] >= needed and (
                len(needed) > 1 or len(name) == 1 or bool(weak[name])
            )
            shares[name] = 1.0 if is_whole else min(share, 0.75)
        best = max(shares.values())
        return min(best, 1.0), {name for name, share in shares.items() if share == best and share}, matched

    def _is_distinctive(self, word: str) -> bool:
        """Whether a word of a forgotten name is nobody else's, as far as one can tell."""
        return word not in self._retain_words and not self._is_common(word)

    def _is_beside(self, found: Sequence[str], i: int, name: tuple[str, ...], own: str) -> bool:
        """Whether another word of the name, in some spelling, stands next to the word at ``i``."""
        others = [w for w in _significant(name) if w != own]
        around = [*found[max(0, i - 2) : i], *found[i + 1 : i + 3]]
        spelt = Spellings(others)
        return any(spelt.near(word, 1 if len(word) < 6 else 2) for word in around if len(word) > 2)

    def _others(
        self, text: str, joined: str, best: set[tuple[str, ...]], matched: set[str]
    ) -> tuple[float, float]:
        """Whether somebody innocent is named, and whether a name stands there that nothing is known about."""
        years = [w for w in joined.split() if len(w) == 4 and w.isdigit() and not self.knows(w)]
        unknown = 0.5 if years else 0.0
        has_case = not (text.isupper() or text.islower())
        if not has_case:
            strange = [
                w for w in joined.split() if not (self._is_written(w) or w in matched or self._is_common(w))
            ]
            unknown = max(unknown, min(len(strange), 2) / 2)
        for run in capitalised_runs(text) if has_case else ():
            rest = set(run) - PARTICLES - _TITLES
            if rest & matched:
                initials = {word[0] for name in best for word in name}
                rest -= {word for word in rest if len(word) == 1 and word in initials}
            if rest & matched and not any(rest - matched <= set(name) and rest & set(name) for name in best):
                return 1.0, unknown
            if len(rest & matched) > 1 and not any(
                rest & self._people_of_word.keys() <= set(name) for name in best
            ):
                return 1.0, unknown  # one person's first name with another's last
            strange = [word for word in rest if not self.knows(word) and word not in matched]
            if strange:
                unknown = max(unknown, min(len(strange), 2) / 2)
            elif len(rest) > 1 and not rest & matched and not self._census.says(run):
                unknown = max(unknown, 0.5)
        innocent = any(
            f" {' '.join(name)} " in joined
            for name in _starting_with(self._retain_by_first, joined)
            if name in self.retain_names
        )
        return float(innocent), unknown


def _starting_with(index: dict[str, list[tuple[str, ...]]], joined: str) -> Iterable[tuple[str, ...]]:
    for word in set(joined.split()):
        yield from index.get(word, ())


def _significant(name: Sequence[str]) -> list[str]:
    """The words of a name that tell it from others; all of them where they are all short."""
    return [w for w in name if len(w) >= 3 and w not in STOP_WORDS] or list(name)


def _has_initial(found: Sequence[str], i: int, name: tuple[str, ...]) -> bool:
    """Whether the last word of a name at ``i`` has the initial of the first before it ("J. Roe")."""
    if found[i] != name[-1] or len(name) < 2:
        return False
    while i > 0 and found[i - 1] in name[1:]:
        i -= 1
    initials = [word for word in found[max(0, i - len(name)) : i] if len(word) == 1]
    return bool(initials) and initials[0] == name[0][0] and len(found[i - 1]) == 1


def _windows(found: Sequence[str], longest: int) -> Iterable[tuple[str, ...]]:
    """Runs of one word to ``longest``."""
    for begin in range(len(found)):
        for end in range(begin + 1, min(begin + longest, len(found)) + 1):
            yield tuple(found[begin:end])
