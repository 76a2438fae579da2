"""No verbatim continuation of a document: the word that would complete a run of its words is banned.

A run is `NUM_WORDS` folded words in a row. Cost per step does not depend on the document's length: the last
words of the text are looked up, and only what would follow them in the document is banned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from sys import intern

from guard.normalise import Folded, fold
from guard.vocabulary import Ids, Vocabulary, commit_point, union

__all__ = ["NUM_WORDS", "RunMatcher", "last_words", "run_matcher", "split_words"]

NUM_WORDS = 4
"""Words of a run that is never reproduced: shorter runs are common speech."""


def split_words(text: Folded) -> list[str]:
    """Return the words of a folded text."""
    edges = sorted({0, *text.starts, len(text.letters)})
    return [text.letters[a:b] for a, b in pairwise(edges)]


class RunMatcher:
    """The banned tokens after any text, for one or several documents and one vocabulary; holds no state.

    Args:
        passages: What must not be reproduced; runs do not cross from one to the next.
        vocabulary: Of the model's tokenizer.
        num_words: Length of a run, at least 2.
    """

    def __init__(
        self, passages: Sequence[str], vocabulary: Vocabulary, *, num_words: int = NUM_WORDS
    ) -> None:
        self.vocabulary = vocabulary
        self.num_words = num_words
        self._next: dict[int, tuple[str, ...]] = {}
        """Hash of the words before the last of a run to what its last word may be: small also for a library."""
        longest = 0
        for passage in passages:
            words = [intern(word) for word in split_words(fold(passage))]
            for i in range(len(words) - num_words + 1):
                key, last = hash(tuple(words[i : i + num_words - 1])), words[i + num_words - 1]
                known = self._next.get(key, ())
                if last not in known:
                    self._next[key] = (*known, last)
                longest = max(longest, sum(map(len, words[i : i + num_words])))
        self._reach = longest

    def _following(self, words: Sequence[str]) -> tuple[str, ...]:
        return self._next.get(hash(tuple(words)), ())

    def banned(self, tokens: Sequence[int]) -> Ids:
        """Return the ids that must not follow the generated ``tokens``."""
        text, _ = self.vocabulary.tail(tokens, self._reach)
        words = split_words(text)
        size = self.num_words - 1
        found: list[Ids] = []
        if len(words) >= size:
            for word in self._following(words[-size:]):
                begins = self.vocabulary.completing(word, commit_point(fold(word)))
                found.append(begins[self.vocabulary.leads[begins]] if text.is_open else begins)
        if text.is_open and len(words) > size:
            begun = words[-1]
            for word in self._following(words[-size - 1 : -1]):
                if word.startswith(begun) and len(word) > len(begun):
                    commit = commit_point(fold(word)) - len(begun)
                    found.append(self.vocabulary.completing(word[len(begun) :], commit))
        return union(found)

    def matches(self, text: str) -> bool:
        """Whether the text reproduces a run."""
        words = split_words(fold(text))
        size = self.num_words - 1
        return any(words[i + size] in self._following(words[i : i + size]) for i in range(len(words) - size))

    def held(self, text: str) -> int:
        """Return how many characters at the end of a text could still grow into a run: its last words."""
        return last_words(text, self.num_words)


@lru_cache(maxsize=16)
def run_matcher(passages: tuple[str, ...], vocabulary: Vocabulary) -> RunMatcher:
    """Return the `RunMatcher` of passages; recent ones are kept, since building a book's takes a while."""
    return RunMatcher(passages, vocabulary)


def last_words(text: str, num_words: int) -> int:
    """Return the number of characters from the beginning of the last ``num_words`` words to the end."""
    begins = [match.start() for match in re.finditer(r"\S+", text)]
    return len(text) - begins[-num_words:][0] if begins else 0
