"""Which tokens would complete a forbidden phrase, whatever the tokenisation, case, accents or spacing.

Text is compared in folded form: letters and digits only, with the places where words begin. A phrase matches
where its letters stand in a row, beginning at a word's beginning and ending at a word's end; spacing and
punctuation between do not count, so ``K a r a c h i`` and ``kara-chi`` match ``Karachi``, ``Karachiites`` does not.
A long phrase (`LONG` letters) matches inside a word too, where only a text that was bent around the ban has it.
Phrases match spelt backwards as well.

A token is banned when, after it, a phrase would be complete, or when it commits to the phrase's last word: a
fragment of that word which is not a word of its own and already gives most of it away. Banning the commitment
rather than only the last piece keeps broken half-words out of the text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.errors import ConfigError
from guard.normalise import fold
from guard.vocabulary import NONE, Ids, Vocabulary, commit_point, union

__all__ = ["Matcher", "PhraseSet"]

LONG = 8
"""Letters from which a phrase is told apart even when other letters stand directly before it."""

REVERSED_FROM = 5
"""Letters from which a phrase is banned spelt backwards too: of shorter ones ordinary words come out."""


@dataclass(frozen=True)
class PhraseSet:
    """Forbidden phrases in folded form.

    Raises:
        ConfigError: If a phrase has no letter or digit.
    """

    phrases: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for phrase in self.phrases:
            if not fold(phrase).letters:
                raise ConfigError(
                    "A forbidden phrase without any letter or digit cannot be matched; remove it."
                )

    def __hash__(self) -> int:
        return hash(self.phrases)


class Matcher:
    """The banned tokens after any text, for one set of phrases and one vocabulary.

    Holds no state of a generation: every answer is derived from the tokens given.
    """

    def __init__(self, phrases: PhraseSet, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        targets: dict[str, int] = {}
        for phrase in phrases.phrases:
            folded = fold(phrase)
            commit = commit_point(folded)
            targets[folded.letters] = min(commit, targets.get(folded.letters, commit))
        for letters in [*targets]:
            if len(letters) >= REVERSED_FROM and letters.isalpha():
                targets.setdefault(letters[::-1], len(letters))
        self._targets = targets
        self._lengths = sorted({len(letters) for letters in targets})
        self._reach = max(self._lengths, default=0)
        self._prefixes: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for letters, commit in targets.items():
            for length in range(1, len(letters)):
                self._prefixes[letters[:length]].append((letters[length:], commit - length))
        self._after: dict[tuple[str, bool], Ids] = {}
        always: list[Ids] = []
        at_word_start: list[Ids] = []
        for letters, commit in targets.items():
            begins = self.vocabulary.completing(letters, commit)
            at_word_start.append(begins)
            always.append(begins[vocabulary.leads[begins]])
            if len(letters) >= LONG:
                always.append(vocabulary.ending.get(letters, NONE))
            always.append(vocabulary.inside.get(letters, NONE))
            always.extend(
                vocabulary.inside_unfinished.get(letters[:end], NONE) for end in range(commit, len(letters))
            )
        self._always = union(always)
        self._at_word_start = union([self._always, *at_word_start])

    def banned(self, tokens: Sequence[int]) -> Ids:
        """Return the ids that must not follow the generated ``tokens``; unique, in no order."""
        if not self._targets:
            return NONE
        folded, has_fragment = self.vocabulary.tail(tokens, self._reach)
        letters, starts, is_open = folded
        words = set(starts)
        found = [self._always if is_open and letters else self._at_word_start]
        found.extend(self._following(letters[start:], start in words) for start in range(len(letters)))
        if has_fragment:
            found.append(self._completing_bytes(tokens))
        return union(found)

    def _following(self, prefix: str, begins_word: bool) -> Ids:
        """Tokens banned after a text that ends in ``prefix``, found once for each prefix."""
        remainders = self._prefixes.get(prefix)
        if remainders is None:
            return NONE
        known = self._after.get((prefix, begins_word))
        if known is None:
            if begins_word:
                found = [self.vocabulary.completing(remainder, commit) for remainder, commit in remainders]
            else:
                long = (remainder for remainder, _ in remainders if len(prefix) + len(remainder) >= LONG)
                found = [self.vocabulary.ending.get(remainder, NONE) for remainder in long]
            known = self._after[prefix, begins_word] = union(found)
        return known

    def _completing_bytes(self, tokens: Sequence[int]) -> Ids:
        """Tokens that finish the character whose first bytes end the text, and with it a phrase."""
        candidates = self.vocabulary.fragments
        finished = [
            token
            for token in candidates.tolist()
            if self.matches(self.vocabulary.decode([*tokens[-64:], token]), at_end=True)
        ]
        return np.array(finished, dtype=np.int64)

    def matches(self, text: str, *, at_end: bool = False) -> bool:
        """Whether the text contains a phrase (or, ``at_end``, ends in one)."""
        letters, starts, _ = fold(text)
        begins = {0, *starts}
        for end in {len(letters)} if at_end else {*starts, len(letters)}:
            for length in self._lengths:
                begin = end - length
                if begin < 0:
                    break
                if (begin in begins or length >= LONG) and letters[begin:end] in self._targets:
                    return True
        return False

    def held(self, text: str) -> int:
        """Return how many characters at the end of a text could still grow into a phrase."""
        held, letters = 0, ""
        for position in range(len(text) - 1, -1, -1):
            folded = fold(text[position]).letters
            letters = folded + letters
            if len(letters) > self._reach:
                break
            if not folded or not (letters in self._targets or letters in self._prefixes):
                continue
            begins = position == 0 or not fold(text[position - 1]).letters
            if begins or self._can_be_long(letters):
                held = len(text) - position
        return held

    def _can_be_long(self, letters: str) -> bool:
        remainders = self._prefixes.get(letters, ())
        return any(len(letters) + len(remainder) >= LONG for remainder, _ in remainders)
