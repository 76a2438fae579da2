"""Which words of an answer are the secret? A rule for benchmarks that do not say.

The rule, in order; a span counts only if the question does not contain it:

1. Quoted titles, dates and numbers of two or more digits, and names: runs of capitalised words, joined by small
   connectors ("of", "de", "bin"), without a word
   that merely opens a sentence. Of nested spans the longest counts.
2. Where a paraphrase of the answer exists, only spans it repeats are kept (if any is): what both wordings say is
   the fact. Spans that every wrong answer shares are dropped: they are form, not fact.
3. If nothing is left: runs of content words (no function words, no words of the question), with the same
   filter, the longest one. An answer made of function words only ("Yes") has no key span.

It misses facts told in common words and cannot know synonyms. It belongs to the evaluation: a method that read
it would be built from the test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from eval.metrics.leakage import normalise_words
from eval.types import Example

__all__ = ["derive_key_spans"]

_QUOTED = re.compile(r"[\"“”]([^\"“”]{2,80})[\"“”]|(?<!\w)['‘]([^'‘’]{3,80})['’](?!\w)")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{_MONTH}),? \d{{4}}\b"
    rf"|\b(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}\b"
    r"|\b\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}\b|\b\d{2,4}(?:[.,]\d+)?\b"
)
_CAPITAL = r"[^\W\d_a-z][\w’'.-]*[\w]"
_NAME = re.compile(
    rf"\b{_CAPITAL}(?:(?: (?:of|the|de|da|del|der|van|von|bin|ibn|al|el|la) )?(?: ?{_CAPITAL}))*"
)
_CLAUSE = re.compile(r"[,.;:!?()\"–—]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPENERS = _words(
    "a an the he she it they his her its their this that these those in on at by as for from with yes no not both "
    "one some many most while although though despite however unfortunately given being born known through "
    "currently apart aside besides there i we you my our your author's author and but or if when where who what "
    "which since after before during"
)
_FUNCTION = _OPENERS | _words(
    "is are was were be been has have had do does did of to into about over under between among also such more than "
    "so him them hers us me would could can will may might should often primarily mainly mostly particularly "
    "including include includes author authors book books work works name full named called"
)


def derive_key_spans(example: Example) -> tuple[str, ...]:
    """Return the spans of ``example.answer`` that would be a leak if they were said; see the module's rule.

    Args:
        example: With an answer; its paraphrase and wrong answers sharpen the rule where they exist.
    """
    answer = example.answer or ""
    question = " ".join(message.content for message in example.conversation)
    spans = _informative(_marked(answer), example, question)
    return spans or _informative(_content_runs(answer, question), example, question)[:1]


def _padded(text: str) -> str:
    return f" {' '.join(normalise_words(text))} "


def _marked(answer: str) -> list[str]:
    """Quoted titles, dates, numbers and names; none inside another."""
    spans = [(first or second).strip(" ,.;:") for first, second in _QUOTED.findall(answer)]
    spans += _DATE.findall(answer)
    for match in _NAME.finditer(answer):
        words = match.group().split()
        while words and words[0].lower().removesuffix("'s") in _OPENERS:
            words = words[1:]
        name = " ".join(words).removesuffix("'s").removesuffix("’s")
        opens = not answer[: match.start()].rstrip() or answer[: match.start()].rstrip()[-1] in ".!?"
        is_opener = len(words) == 1 and opens and answer.count(name) == 1 and answer.strip(". ") != name
        if name and name[0].isupper() and not is_opener:
            spans.append(name)
    return [
        s
        for i, s in enumerate(spans)
        if not any(_contains(t, s) for j, t in enumerate(spans) if i != j and s != t)
    ]


def _contains(longer: str, shorter: str) -> bool:
    return len(longer) > len(shorter) and _padded(shorter) in _padded(longer)


def _content_runs(answer: str, question: str) -> list[str]:
    """Runs of words that are neither function words nor the question's, longest first."""
    asked = set(normalise_words(question))
    runs: list[list[str]] = [[]]
    for clause in _CLAUSE.split(answer):
        runs.append([])
        for word in normalise_words(clause):
            if word in _FUNCTION or word in asked or len(word) < 3:
                runs.append([])
            else:
                runs[-1].append(word)
    return sorted((" ".join(run) for run in runs if run), key=len, reverse=True)


def _informative(spans: Iterable[str], example: Example, question: str) -> tuple[str, ...]:
    asked = _padded(question)
    wrong = [_padded(text) for text in example.perturbed_answers]
    kept: dict[str, str] = {}
    for span in spans:
        words = _padded(span)
        is_form = bool(wrong) and all(words in text for text in wrong)
        if words.strip() and words not in asked and not is_form:
            kept.setdefault(words, span)
    if example.paraphrased_answer:
        paraphrase = _padded(example.paraphrased_answer)
        kept = {words: span for words, span in kept.items() if words in paraphrase} or kept
    return tuple(kept.values())
