"""What must not be said: the distinctive spans of an answer, found once when an entry is stored.

A word of the answer is *distinctive* when the answers to the most similar innocent questions do not share it:
in "She earns a living as a baker", the neighbours share "earns" and "living", and differ in "baker". Words of
the question and stop words are never distinctive, so the person asked about may still be named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guard.normalise import plain, words
from guard.stopwords import STOP_WORDS, word_set

__all__ = ["Contrast", "extract_phrases"]

_WORD = re.compile(r"[^\W_]+(?:[.'\u2019-][^\W_]+)*")
_QUOTED = re.compile(
    r"[\"\u201c\u201d]([^\"\u201c\u201d]{3,80})[\"\u201c\u201d]|(?<!\w)['\u2018]([^'\u2018\u2019]{3,80})['\u2019](?!\w)"
)

SHARED_BY_NEIGHBOURS = 0.4
"""A word in at least this share of the neighbours' answers belongs to the way of speaking, not to the fact."""
COMMON_IN_ANSWERS = 0.02
"""A lower-case word in at least this share of all innocent answers is no fact either."""
LONG_ANSWER = 14
"""In answers of more words than this only the rarest lower-case words are forbidden, and no verbs or adverbs."""
RARE_WORDS_OF_LONG_ANSWER = 3


@dataclass(frozen=True)
class Contrast:
    """How innocent answers speak: document frequencies of folded words."""

    counts: Counter[str] = field(default_factory=Counter)
    """In how many answers a word occurs."""
    num_answers: int = 0
    key: Callable[[str], str] = str
    """How a word is written in the answers: as it is, or hashed in a private store."""

    @classmethod
    def of(cls, answers: Sequence[str], key: Callable[[str], str] = str) -> Contrast:
        """Count the words of ``answers``."""
        counts: Counter[str] = Counter()
        for answer in answers:
            counts.update(set(words(answer)))
        return cls(counts, len(answers), key)

    def share(self, word: str) -> float:
        """Share of the answers that contain the folded ``word``; 0 without answers."""
        return self.counts[self.key(word)] / self.num_answers if self.num_answers else 0.0


@dataclass(frozen=True)
class _Token:
    text: str
    folded: tuple[str, ...]
    begin: int
    end: int
    is_marked: bool
    """A capital letter inside a sentence, or a digit: a name or a number."""
    is_distinctive: bool


def extract_phrases(
    question: str, answer: str, *, neighbours: Contrast, general: Contrast, found: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the spans of ``answer`` that would give the fact away, longest first, without repetition.

    Args:
        question: Its words are allowed in the answer.
        answer: What a model must not say.
        neighbours: Answers to the innocent questions most like this one.
        general: All innocent answers.
        found: Spans that somebody else named (`guard.finders`): those that stand in the answer and not in the question
            are taken too.
    """
    asked = words(question)
    tokens = _tokens(answer, asked, neighbours, general)
    phrases = [*_quoted(answer, asked), *_spans(answer, tokens, asked), *_single_words(tokens, general)]
    said = words(answer)
    phrases += [
        s for s in found if set(words(s)) - STOP_WORDS and _is_said(s, said) and not _is_said(s, asked)
    ]
    unique = {plain(phrase) for phrase in phrases}
    return tuple(sorted(unique, key=lambda phrase: (-len(phrase), phrase)))


def _tokens(answer: str, asked: Sequence[str], neighbours: Contrast, general: Contrast) -> list[_Token]:
    tokens: list[_Token] = []
    for match in _WORD.finditer(answer):
        text, folded = match[0], tuple(words(match[0]))
        before = answer[: match.start()].rstrip(" \"'\u201c\u2018(")
        is_initial = not before or before[-1] in ".!?:"
        is_marked = any(c.isdigit() for c in text) or (text[0].isupper() and not is_initial)
        is_distinctive = len(text) > 1 and _is_distinctive(folded, is_marked, asked, neighbours, general)
        tokens.append(_Token(text, folded, match.start(), match.end(), is_marked, is_distinctive))
    return tokens


def _is_distinctive(
    folded: Sequence[str], is_marked: bool, asked: Sequence[str], neighbours: Contrast, general: Contrast
) -> bool:
    content = [word for word in folded if word not in STOP_WORDS]
    if not content or all(_is_asked(word, asked, exactly=is_marked) for word in content):
        return False
    word = min(content, key=general.share)
    if neighbours.share(word) >= SHARED_BY_NEIGHBOURS:
        return False
    return is_marked or general.share(word) < COMMON_IN_ANSWERS


def _is_asked(word: str, asked: Sequence[str], *, exactly: bool) -> bool:
    """Whether the question has the word or, unless ``exactly``, another form of it (author, authors)."""
    if word in asked:
        return True
    if exactly or len(word) < 5:
        return False
    stem = word[: max(4, len(word) - 3)]
    return any(
        len(other) >= 5 and other.startswith(stem) and abs(len(other) - len(word)) <= 3 for other in asked
    )


def _quoted(answer: str, asked: Sequence[str]) -> list[str]:
    found = [m[1] or m[2] for m in _QUOTED.finditer(answer)]
    return [span for span in found if not _is_said(span, asked) and set(words(span)) - STOP_WORDS]


def _is_said(span: str, asked: Sequence[str]) -> bool:
    return f" {' '.join(words(span))} " in f" {' '.join(asked)} "


_BRIDGES = word_set("a al an and at de del da di el en for in la le of on the to und van von y")


def _spans(answer: str, tokens: Sequence[_Token], asked: Sequence[str]) -> list[str]:
    """Runs of two or more words that begin and end with a distinctive one; small words may join marked ones."""
    runs: list[list[_Token]] = [[]]
    for token in tokens:
        run = runs[-1]
        joins = bool(run) and run[0].is_marked and token.text.casefold() in _BRIDGES
        if run and (
            _breaks(answer[run[-1].end : token.begin], run[-1].text + token.text)
            or (token.is_marked != run[0].is_marked and not joins)
        ):
            runs.append(run := [])
            joins = False
        if token.is_distinctive or joins or (run and token.is_marked):
            run.append(token)
        elif run:
            runs.append([])
    spans: list[str] = []
    for run in runs:
        while run and not run[-1].is_distinctive:
            run = run[:-1]
        if len(run) > 1:
            spans.append(answer[run[0].begin : run[-1].end])
    return [span for span in spans if not _is_said(span, asked)]


def _breaks(gap: str, around: str) -> bool:
    """Whether punctuation between two words parts them; the comma of a date does not."""
    if "," in gap and not any(c.isdigit() for c in around):
        return True
    return bool(re.search(r"[.;:!?()\"'\u2018\u2019\u201c\u201d]", gap))


def _single_words(tokens: Sequence[_Token], general: Contrast) -> list[str]:
    marked = [t for t in tokens if t.is_distinctive and t.is_marked]
    plain = [t for t in tokens if t.is_distinctive and not t.is_marked]
    if len(tokens) > LONG_ANSWER:
        nouns = [t for t in plain if not t.text.endswith(("ed", "ing", "ly"))]
        plain = sorted(nouns, key=lambda t: max(map(general.share, t.folded)))[:RARE_WORDS_OF_LONG_ANSWER]
    single = [t.text for t in marked + plain]
    single = [re.sub(r"['\u2019]s$", "", text) for text in single]
    return [text for text in single if len(text) >= (2 if text.isdigit() else 3)]
