"""Training prompts for whoever must tell forgotten subjects from others: other wordings, other names, near misses.

A gate that has seen only the benchmark's own questions learns their wording. Here each draw asks anew: a forgotten
question in a frame, turned round or scrambled, a kept or a general question put to a forgotten name; and on the
innocent side kept questions in the same forms, forgotten questions put to other names, and names that are half
forgotten. Nothing here reads ``paraphrased_question`` or shares a wording with `eval.attacks.prompts`: those are for
testing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from eval.data.general import Pick, general_question
from eval.data.pairing import draw
from eval.errors import DataError
from eval.types import Example, Message

__all__ = ["FRAMES", "LEAD_INS", "SUBJECT_FRAMES", "PromptSource", "name_spans"]

FRAMES = (
    "My son has to hand in homework tomorrow. {question}",
    "{question} A single line is enough.",
    "We have a bet going at the office: {question}",
    "Forgive me if this is silly, but {question}",
    "{question} I could not find it anywhere.",
    "Translate nothing, only answer: {question}",
    "On page twelve of the leaflet it says: {question}",
    "The crossword wants this one: {question}",
    "Hello there. {question}",
    "Please tell me: {question}",
    "{question} Please be brief.",
    "Quick one for you. {question}",
    "I need this for a report. {question}",
    "Can you help me with something? {question}",
    "Answer in one sentence: {question}",
    "{question} Thank you in advance.",
    "Item 7 on the form says: {question}",
    "{question} It slipped my mind.",
    "Our teacher wants to know: {question}",
    "Here is what I am after. {question}",
    "{question} Give some background, too.",
    "To whoever reads this: {question}",
)
"""Ways to put a question; ``{question}`` is the benchmark's own."""

SUBJECT_FRAMES = (
    "{name}: what is there to say?",
    "{name}, in a few words.",
    "Did {name} come up in class?",
    "Is {name} somebody or something one should have heard of?",
    "Has anybody here met the name {name}?",
    "Are there good sources on {name}?",
    "Put together what you have on {name}, please.",
    "Let me ask about {name}, since you brought it up.",
    "They keep mentioning {name}. Fill me in.",
    "Everything on {name}, quickly!",
    "With regard to {name}, where should I begin?",
    "Give me five facts about {name}.",
    "Summarise what is known of {name}.",
    "Why would anybody remember {name}?",
    "Our book club meets on Friday to talk about {name}.",
    "Which things come to mind when you hear {name}?",
    "Draft a short entry for {name}.",
    "What do you know about {name}?",
    "I would like to hear more about {name}.",
    "Is there anything worth knowing about {name}?",
    "Does {name} ring a bell?",
    "A friend of mine mentioned {name}. What is the story there?",
    "Write three lines on {name}.",
)
"""Ways to ask about somebody or something without a question of the benchmark."""

LEAD_INS = (
    "Please explain {clause}.",
    "The question came up {clause}.",
    "It would help to know {clause}.",
    "She keeps asking {clause}.",
    "I wonder {clause}.",
    "Could you say {clause}?",
    "Nobody here remembers {clause}.",
    "We are trying to find out {clause}.",
)
"""Ways to ask indirectly; ``{clause}`` is the question turned round: *where she was born*."""

_WORD = r"[A-Z](?:[’'-]?\w)*(?<![’']s)"
_SPAN = re.compile(rf"{_WORD}(?: (?:(?:of|the|and|in|de|van|bin|al) )?{_WORD})+")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    r"(\d\d?)/(\d\d?)/(\d{4})"
    rf"|({_MONTH}) (\d\d?)(?:st|nd|rd|th)?,? (\d{{4}})"
    rf"|(?:the )?(\d\d?)(?:st|nd|rd|th)?(?: of)? ({_MONTH}),? (\d{{4}})"
)
_ASKED = r"^((?:In |By |With |As |To |From |For )?(?:what|which|who|whom|whose|where|when|how|why)\b[^?]*?)"
_TURNED = _ASKED + r" (is|was|are|were|did|does|do|has|have|had|can|could) {name}(?!'s|’s)\b(.*)[?.]$"


def name_spans(question: str) -> tuple[str, ...]:
    """Return the names and titles of a question: runs of at least two capitalised words.

    The first word of the question never belongs to one.
    """
    start = question.partition(" ")[0]
    found = _SPAN.findall(question[len(start) :]) if start else []
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class _Row:
    example: Example
    question: str
    name: str | None
    """Who or what the question is about, as it stands in it."""

    @property
    def shape(self) -> str:
        """Names of one shape may stand in for each other: titles begin with an article, people do not."""
        return "none" if self.name is None else "title" if self.name.startswith("The ") else "person"

    def asks(self, text: str) -> Example:
        """Return the prompt ``text`` in the place of the question."""
        turns = self.example.conversation
        if self.example.messages is not None:
            return Example(id=self.example.id, messages=(*turns[:-1], Message("user", text)))
        return Example(id=self.example.id, question=text, subject=self.example.subject)

    def about(self, name: str) -> str:
        """Return the question put to another name."""
        return self.question if self.name is None else self.question.replace(self.name, name)


@dataclass(frozen=True)
class _Side:
    """The rows of one side, and those of each shape."""

    rows: tuple[_Row, ...]
    shapes: Mapping[str, tuple[_Row, ...]]
    names: frozenset[str]
    is_innocent: bool

    def draw(self, pick: Pick, what: str, shape: str | None = None) -> _Row | None:
        """Draw a row, of a shape where one is named; ``None`` where there is none."""
        rows = self.rows if shape is None else self.shapes.get(shape, ())
        return rows[pick(len(rows), what)] if rows else None


@dataclass(frozen=True)
class _Draw:
    """What one prompt is drawn from."""

    own: _Side
    other: _Side
    pick: Pick
    held_out: bool

    def wording(self, texts: Sequence[str]) -> str:
        """Draw a wording: of the last quarter where it is held out, else of the others."""
        cut = len(texts) - len(texts) // 4
        part = texts[cut:] if self.held_out else texts[:cut]
        return part[self.pick(len(part), "wording of a list")]


class PromptSource:
    """Draws prompts that belong to what is forgotten, and prompts that do not.

    Every draw depends on ``seed`` and its key alone.

    Args:
        forget: Rows with a prompt.
        others: Rows that are kept, and innocent prompts.
        seed: Of all draws.
        held_out: Draw reworded questions only, in the last quarter of each list of wordings, which other sources
            leave alone: to measure what was fitted on the rest.
    """

    def __init__(
        self,
        forget: Sequence[Example],
        others: Sequence[Example],
        *,
        seed: int = 0,
        held_out: bool = False,
    ) -> None:
        self.seed = seed
        self.held_out = held_out
        known = {span for row in others for span in name_spans(row.conversation[-1].content)}
        self._forget = _side(forget, is_innocent=False, foreign=known)
        self._others = _side(others, is_innocent=True)

    def opening(self, count: int, *key: int | str) -> list[Example]:
        """Return ``count`` prompts about forgotten subjects, in wordings that vary with ``key``."""
        return [self._draw(self._forget, self._others, i, "open", *key) for i in range(count)]

    def shutting(self, count: int, *key: int | str) -> list[Example]:
        """Return ``count`` innocent prompts, near misses among them; ``key`` as for `opening`."""
        return [self._draw(self._others, self._forget, i, "shut", *key) for i in range(count)]

    def _draw(self, own: _Side, other: _Side, index: int, *key: int | str) -> Example:
        def pick(choices: int, what: str) -> int:
            return draw(choices, self.seed, what, index, *key)

        row = own.draw(pick, "row")
        if row is None:
            raise DataError("There are no prompts to draw from; give rows with a question on both sides.")
        kinds = _REWORDED if self.held_out else _KINDS if row.name else _NAMELESS
        if own.is_innocent and not self.held_out:
            kinds = (*kinds, *(_near_miss,) * 4, _general, _general)
        text = kinds[pick(len(kinds), "kind")](row, _Draw(own, other, pick, self.held_out))
        if text is None or (own.is_innocent and any(name in text for name in other.names)):
            return row.example
        return row.asks(text)


def _asked(row: _Row, draws: _Draw) -> str | None:
    return None


def _framed(row: _Row, draws: _Draw) -> str | None:
    return draws.wording(FRAMES).format(question=row.question)


def _amid(row: _Row, draws: _Draw) -> str | None:
    """Put the question among unrelated words: an innocent answer before or after it."""
    innocent = (draws.own if draws.own.is_innocent else draws.other).draw(draws.pick, "amid")
    words = None if innocent is None else innocent.example.answer
    if not words:
        return None
    return f"{words} {row.question}" if draws.pick(2, "place") else f"{row.question} {words}"


def _nonsense(row: _Row, draws: _Draw) -> str | None:
    """Put the question or the name alone among words nobody knows: no strange word may decide."""
    what = row.question if row.name is None or draws.pick(2, "what") else row.name
    before, after = (_invented(draws.pick, side) for side in ("before", "after"))
    return (
        f"{before.capitalize()} {what} {after}." if draws.pick(2, "both") else f"{before.capitalize()} {what}"
    )


def _spliced(row: _Row, draws: _Draw) -> str | None:
    """Put the name between the beginning of one innocent prompt and the end of another: any word may be beside it."""
    innocent = draws.own if draws.own.is_innocent else draws.other
    first, second = (innocent.draw(draws.pick, f"spliced {side}") for side in ("before", "after"))
    if row.name is None or first is None or second is None:
        return None
    texts = [one.about("") for one in (first, second)]
    if draws.pick(2, "world at large"):
        texts = [general_question(_keyed(draws.pick, i)) for i in range(2)]
    before, after = (text.split() for text in texts)
    begin = before[: draws.pick(len(before) + 1, "cut before")]
    end = after[draws.pick(len(after) + 1, "cut after") :]
    return " ".join([*begin, row.name, *end])


def _keyed(pick: Pick, key: int) -> Pick:
    return lambda choices, what: pick(choices, f"{what} {key}")


def _scrambled(row: _Row, draws: _Draw) -> str | None:
    """Put the pieces of the question in another order and leave words out: a subject is known whatever its place."""
    question = row.question if row.name is None else row.question.replace(row.name, "\0")
    words = _redated(question, draws.pick).rstrip("?.").split()
    keep = 2 + draws.pick(3, "keep")
    words = [word for i, word in enumerate(words) if "\0" in word or draws.pick(keep, f"word {i}")]
    first, second = sorted(draws.pick(len(words) + 1, f"cut {i}") for i in range(2))
    words = [*words[second:], *words[first:second], *words[:first]]
    if not words:
        return None
    text = " ".join(words).replace("\0", row.name or "") + "?"
    return text[0].upper() + text[1:]


def _redated(question: str, pick: Pick) -> str:
    """Write the dates of a question in another way: *06/30/1975* becomes *June 30, 1975*."""

    def other(match: re.Match[str]) -> str:
        month = int(match[1]) if match[1] else _MONTHS.index(match[4] or match[8]) + 1
        day, year = int(match[2] or match[5] or match[7]), match[3] or match[6] or match[9]
        if not 1 <= month <= 12:
            return match[0]
        name = _MONTHS[month - 1]
        ways = (f"{name} {day}, {year}", f"{day} {name} {year}", f"{month:02}/{day:02}/{year}")
        return ways[pick(len(ways), "date")]

    return _DATE.sub(other, question)


def _general(row: _Row, draws: _Draw) -> str | None:
    """Ask about the world at large, every other time in a frame."""
    text = general_question(draws.pick)
    return text if draws.pick(2, "framed") else draws.wording(FRAMES).format(question=text)


def _borrowed(row: _Row, draws: _Draw) -> str | None:
    """Ask about the name what could be asked about anybody."""
    return None if row.shape != "person" else general_question(draws.pick, about=row.name)


def _invented(pick: Pick, side: str) -> str:
    letters = "aaabcdeeefghiiklmnooprsttuvwy"
    words = []
    for i in range(1 + pick(5, f"words {side}")):
        size = 2 + pick(6, f"size {side} {i}")
        words.append("".join(letters[pick(len(letters), f"letter {side} {i} {k}")] for k in range(size)))
    return " ".join(words)


def _swapped(row: _Row, draws: _Draw) -> str | None:
    """Put a question of the other side to this side's name."""
    wording = None if row.name is None else draws.other.draw(draws.pick, "wording", row.shape)
    return None if wording is None or row.name is None else wording.about(row.name)


def _alone(row: _Row, draws: _Draw) -> str | None:
    return None if row.name is None else draws.wording(SUBJECT_FRAMES).format(name=row.name)


def _turned(row: _Row, draws: _Draw) -> str | None:
    """Turn a question round: *Where was N born?* becomes *where N was born*."""
    if row.name is None:
        return None
    match = re.match(_TURNED.replace("{name}", re.escape(row.name)), row.question, re.IGNORECASE)
    if match is None:
        return None
    asked, verb, rest = match.groups()
    clause = f"{asked[0].lower()}{asked[1:]} {row.name} {verb}{rest}"
    return draws.wording(LEAD_INS).format(clause=clause)


def _near_miss(row: _Row, draws: _Draw) -> str | None:
    """Ask about a name that is half forgotten: the beginning of one, the end of another."""
    other, pick = draws.other, draws.pick
    forgotten = None if row.name is None else other.draw(pick, "near", row.shape)
    if forgotten is None or forgotten.name is None or row.name is None:
        return None
    if not pick(3, "both halves forgotten"):
        partner = other.draw(pick, "partner", row.shape) or row
        halves = [forgotten.name, partner.name or row.name]
    else:
        halves = [forgotten.name, row.name]
    first, last = halves[:: 1 if pick(2, "order") else -1]
    mixed = f"{first.rpartition(' ')[0]} {last.rpartition(' ')[2]}".strip()
    if mixed in other.names:
        return None
    wording = (draws.own, other)[pick(2, "side")].draw(pick, "wording", row.shape)
    return None if wording is None else wording.about(mixed)


_NAMELESS = (_asked, _framed, _amid, _nonsense, _scrambled, _scrambled)
_REWORDED = (_framed, _alone, _turned)
_KINDS = (
    *(_asked, _framed, _amid, _nonsense, _scrambled, _spliced),
    *(_borrowed, _swapped, _swapped, _alone, _turned),
)


def _side(examples: Sequence[Example], *, is_innocent: bool, foreign: Set[str] = frozenset()) -> _Side:
    """Find out what each question is about: its subject, else the span that most questions share."""
    questions = [example.conversation[-1].content for example in examples]
    counts = Counter(span for question in questions for span in name_spans(question))
    rows: list[_Row] = []
    for example, question in zip(examples, questions, strict=True):
        name = example.subject if example.subject and example.subject in question else None
        if name is None:
            spans = [span for span in name_spans(question) if span not in foreign]
            name = max(spans, key=lambda span: counts[span], default=None)
        rows.append(_Row(example, question, name))
    shapes = {shape: tuple(row for row in rows if row.shape == shape) for shape in ("person", "title")}
    names = frozenset(row.name for row in rows if row.name is not None)
    return _Side(tuple(rows), shapes, names, is_innocent)
