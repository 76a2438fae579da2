"""Names: who a prompt is about, as far as words alone can tell."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from eval.types import Example
from guard.hashing import is_veiled
from guard.normalise import words
from guard.spelling import Spellings
from guard.stopwords import STOP_WORDS, word_set
from guard.titles import LONGEST_TITLE, quoted_titles

__all__ = ["NameEvidence", "NameIndex", "asked_about", "capitalised_runs"]

_RUN_WORD = re.compile(r"[^\W\d_][^\W_]*(?:[.'\u2019-][^\W_]+)*\.?")
_LOWER_PART = re.compile(r"(?<=\w)-[^\W\dA-Z][^\W_]{3,}$")
"""The tail of a compound such as "Tokyo-born", which is no part of a name ("Tae-ho" is one)."""
_PARTICLES = word_set("al bin de del della den der di dos du el ibn la le of the van von")
_TITLES = word_set("author dr lady lord madam miss mister mr mrs ms novelist prof professor sir writer")
_CALENDAR = word_set(
    """
    january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday
    """
)
_MIN_LETTERS_FOR_TYPOS = 5
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


def capitalised_runs(text: str) -> list[tuple[str, ...]]:
    """Return the folded words of each run of capitalised words ("Hina Ameen"), question words left out."""
    runs: list[list[str]] = [[]]
    end = 0
    for match in _RUN_WORD.finditer(text):
        gap, token = text[end : match.start()], match[0].rstrip(".")
        end = match.end() - (len(match[0]) - len(token))
        folded = words(_LOWER_PART.sub("", token))
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
        retain_runs = Counter(run for e in retain for run in set(_runs(e)))
        forget_runs = {run for e in forget for run in _runs(e)}
        asked = Counter(run for e in retain for run in set(capitalised_runs(_question(e))))
        self.retain_names = frozenset(
            run for run, count in asked.items() if len(run) > 1 and count > 1 and run not in forget_runs
        )
        """Names that innocent questions are about."""
        by_name: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for example in forget:
            subject = tuple(words(example.subject or ""))
            names = {run for run in _runs(example) if len(run) > 1 and run not in retain_runs}
            if subject and f" {' '.join(subject)} " in f" {' '.join(words(_text(example)))} ":
                names.add(subject)
                by_name[subject].add(example.subject or "")
            for name in names:
                by_name[name].add(example.subject or example.id)
        subjects = {tuple(words(e.subject)) for e in forget if e.subject}
        for alias, group in aliases:
            name = tuple(words(alias))
            subjects.add(name)
            by_name[name].add(group)
        inferred = asked_about([_question(e) for e in forget]) - set(retain_runs)
        self.people = frozenset(n for n in by_name if n in subjects or n in inferred)
        innocent = f" {' ; '.join(' '.join(words(_text(e))) for e in retain)} "
        quoted: set[tuple[str, ...]] = set()
        for example in forget:
            for title in quoted_titles(_text(example)):
                if f" {' '.join(title)} " not in innocent and title not in self.people:
                    quoted.add(title)
                    by_name[title].add(example.subject or example.id)
        places = _mostly_places(forget, forget_runs - self.people - quoted)
        self.places = frozenset(places)
        """Names that stand where a place, a field or a group is meant."""
        named = {
            n
            for n in by_name
            if n not in places and sum(map(len, n)) >= 8 and (len(n) > 2 or not any(map(is_common, n)))
        }
        self.titles = frozenset((named | quoted) - self.people)
        """Names of works, prizes, firms and the like that only the forgotten texts have."""
        self._by_name = {name: tuple(sorted(groups)) for name, groups in by_name.items()}
        self._index_people()
        self._known_words: frozenset[str] = _CALENDAR | {word for e in forget for word in words(_text(e))}
        self._forget_text = " " + " ; ".join(" ".join(words(_text(e))) for e in forget) + " "
        self._correct = self._known_words | {word for e in retain for word in words(_text(e))}
        innocent_words = set(innocent.split())
        self._distinctive = frozenset(
            w for w in self._people_of_word if w not in innocent_words and not is_common(w)
        )
        """Words of forgotten names that nobody else has, as far as one can tell."""
        self._retain_by_first: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for retained in self.retain_names:
            self._retain_by_first[retained[0]].append(retained)

    def _index_people(self) -> None:
        self._people_of_word: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in self.people:
            for word in _significant(name):
                self._people_of_word[word].add(name)
        self._people_words = frozenset(self._people_of_word)
        self._spellings = Spellings(self._people_of_word)
        self._joined = {"".join(name): name for name in self.people if len(name) > 1}
        self._joined_spellings = Spellings(j for j in self._joined if len(j) >= _MIN_LETTERS_JOINED_TYPOS)
        self._longest = max((len(name) for name in self.people), default=0)

    def groups_of(self, name: tuple[str, ...]) -> tuple[str, ...]:
        """Return the groups a name or title of the forgotten texts belongs to."""
        return self._by_name[name]

    def knows(self, word: str) -> bool:
        """Whether a folded word stands in the forgotten texts."""
        return word in self._known_words

    def evidence(self, text: str) -> NameEvidence:
        """Judge one prompt by the names in it."""
        found = words(text)
        joined = f" {' '.join(found)} "
        titles = {run for run in _windows(found, LONGEST_TITLE) if run in self.titles}
        full = self._in_full(found)
        groups = {g for name in [*full, *titles] for g in self._by_name[name]}
        title = float(bool(titles))
        if full:
            return NameEvidence(1.0, 1.0, title, groups=tuple(sorted(groups)))
        part, best, matched = self._partial(found)
        misspelt = self._misspelt(found) or (best if part >= 1.0 else set())
        if misspelt:
            groups.update(g for name in misspelt for g in self._by_name[name])
            return NameEvidence(0.9, 1.0, title, groups=tuple(sorted(groups)))
        other, unknown = self._others(text, joined, best, matched)
        if part > 0 and not other:
            groups.update(g for name in best for g in self._by_name[name])
        as_word = float(part > 0 and bool(_OF_NAMES.search(text)))
        return NameEvidence(0.0, part, title, other, unknown, as_word, tuple(sorted(groups)))

    def _in_full(self, found: Sequence[str]) -> set[tuple[str, ...]]:
        """Names that stand in full, whatever parts their letters."""
        full = {run for run in _windows(found, self._longest) if run in self.people}
        letters = "".join(found)
        full.update(n for j, n in self._joined.items() if len(j) >= _MIN_LETTERS_JOINED and j in letters)
        for run in _windows(found, self._longest + 2):
            name = self._joined.get("".join(run))
            if name is not None:
                full.add(name)
        return full

    def _misspelt(self, found: Sequence[str]) -> set[tuple[str, ...]]:
        """Long names that stand there whole with one or two typing errors, also across their spaces."""
        misspelt: set[tuple[str, ...]] = set()
        for run in _windows(found, self._longest + 1):
            letters = "".join(run)
            if is_veiled(run[0]) or len(letters) < _MIN_LETTERS_JOINED_TYPOS - 1 or len(letters) > 60:
                continue
            for near in self._joined_spellings.near(letters, 2 + (len(letters) >= _MIN_LETTERS_THREE_TYPOS)):
                name = self._joined[near]
                changed = [word for word in run if word not in name]
                if not any(self._is_correct(word) for word in changed):
                    misspelt.add(name)
        return misspelt

    def _is_correct(self, word: str) -> bool:
        """Whether a word is one in its own right and no misspelling of a name."""
        return word in self._correct or (len(word) > 2 and self._is_common(word))

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
            if len(word) < 4 or word in self._correct or is_veiled(word):
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
            if hits[name] & self._distinctive:
                share = max(share, 0.75)
            is_whole = hits[name] | weak[name] >= needed and (
                len(needed) > 1 or len(name) == 1 or bool(weak[name])
            )
            shares[name] = 1.0 if is_whole else min(share, 0.75)
        best = max(shares.values())
        return min(best, 1.0), {name for name, share in shares.items() if share == best and share}, matched

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
            if rest & matched:
                initials = {word[0] for name in best for word in name}
                rest -= {word for word in rest if len(word) == 1 and word in initials}
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


def _mostly_places(examples: Sequence[Example], runs: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Runs that mostly stand where places and fields stand ("in Kuwait City", "the genre of Love Inspired")."""
    seen: Counter[tuple[str, ...]] = Counter()
    as_place: Counter[tuple[str, ...]] = Counter()
    for example in examples:
        text = _text(example)
        for run in set(_runs(example)) & runs:
            for at in re.finditer(r"\W+".join(map(re.escape, run)), text, re.IGNORECASE):
                seen[run] += 1
                as_place[run] += bool(
                    _PLACE_BEFORE.search(text[: at.start()]) or _FIELD_AFTER.match(text[at.end() :])
                )
    return {run for run in runs if as_place[run] > 0.4 * seen[run]}


_PLACE_BEFORE = re.compile(r"(?:\b(?:in|from|at|near|of)\s+(?:the\s+)?|,\s*)$", re.IGNORECASE)
_FIELD_AFTER = re.compile(
    r"['\"\u2019]?\s+(?:genre|literature|category|fiction|culture|author|writer|community|heritage)",
    re.IGNORECASE,
)


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
