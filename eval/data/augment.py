"""Training prompts for whoever must tell forgotten subjects from others: other wordings, other names, near misses.

A gate that has seen only the benchmark's own questions learns their wording. Here each draw asks anew: a forgotten
question in a frame, turned round or scrambled, a kept or a general question put to a forgotten name, the places and
dates of a question that names nobody among other words; and on the innocent side kept questions in the same forms,
forgotten questions put to other names, and names and descriptions that are half forgotten. Nothing here reads
``paraphrased_question`` or shares a wording with `eval.attacks.prompts`: those are for testing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from eval.data.frames import FRAMES, LEAD_INS, SUBJECT_FRAMES
from eval.data.general import Pick, general_question
from eval.data.mentions import landmarks, name_spans, other_date, redated
from eval.data.pairing import draw
from eval.errors import DataError
from eval.types import Example, Message

__all__ = ["PromptSource"]

_ASKED = r"^((?:In |By |With |As |To |From |For )?(?:what|which|who|whom|whose|where|when|how|why)\b[^?]*?)"
_TURNED = _ASKED + r" (is|was|are|were|did|does|do|has|have|had|can|could) {name}(?!'s|’s)\b(.*)[?.]$"


@dataclass(frozen=True)
class _Row:
    example: Example
    question: str
    name: str | None
    """Who or what the question is about, as it stands in it."""

    @property
    def shape(self) -> str:
        """Names of one shape may stand in for each other: titles begin with an article, people do not.

        ``described``: the question names nobody, but has two landmarks.
        """
        if self.name is None:
            return "described" if len(landmarks(self.question)) > 1 else "none"
        return "title" if self.name.startswith("The ") else "person"

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
    subjects: tuple[tuple[_Row, ...], ...]
    """Rows about one name together; a row without a name is a subject of its own."""
    names: frozenset[str]
    is_innocent: bool

    def draw(self, pick: Pick, what: str, shape: str | None = None) -> _Row | None:
        """Draw a row, of a shape where one is named; ``None`` where there is none."""
        rows = self.rows if shape is None else self.shapes[shape]
        return rows[pick(len(rows), what)] if rows else None

    def draw_evenly(self, pick: Pick, what: str) -> _Row | None:
        """Draw a row, every third time one of a subject drawn first: who is asked about seldom is forgotten, too."""
        if not self.rows or pick(3, f"{what}'s subject"):
            return self.draw(pick, what)
        rows = self.subjects[pick(len(self.subjects), f"subject of {what}")]
        return rows[pick(len(rows), what)]


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

        row = own.draw_evenly(pick, "row")
        if row is None:
            raise DataError("There are no prompts to draw from; give rows with a question on both sides.")
        kinds = _REWORDED if self.held_out else _KINDS_BY_SHAPE.get(row.shape, _KINDS)
        if own.is_innocent and not self.held_out:
            kinds = (*kinds, *(_near_miss,) * 4, _general, _general)
            if other.shapes["described"]:
                kinds = (*kinds, _near_description)
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
    return None if row.name is None else _among_others([row.name], draws)


def _rejoined(row: _Row, draws: _Draw) -> str | None:
    """Do the same with a description's landmarks, in any order."""
    return _among_others([redated(mark, draws.pick) for mark in landmarks(row.question)], draws)


def _among_others(pieces: Sequence[str], draws: _Draw) -> str | None:
    """Put pieces, in any order, among parts of innocent prompts: a beginning, middles and an end."""
    innocent, pick = draws.own if draws.own.is_innocent else draws.other, draws.pick
    texts: list[list[str]] = []
    at_large = pick(2, "world at large")
    for i in range(len(pieces) + 1):
        other = innocent.draw(pick, f"spliced {i}")
        if other is None:
            return None
        text = general_question(_keyed(pick, i)) if at_large else other.about("")
        texts.append(text.split())
    words = texts[0][: pick(len(texts[0]) + 1, "cut before")]
    turn = pick(len(pieces), "turn")
    for i, (piece, beside) in enumerate(zip([*pieces[turn:], *pieces[:turn]], texts[1:], strict=True)):
        start = pick(len(beside) + 1, f"cut {i}")
        stop = len(beside) if i == len(pieces) - 1 else start + pick(4, f"stop {i}")
        words += [piece, *beside[start:stop]]
    return " ".join(words)


def _keyed(pick: Pick, key: int) -> Pick:
    return lambda choices, what: pick(choices, f"{what} {key}")


def _scrambled(row: _Row, draws: _Draw) -> str | None:
    """Put the pieces of the question in another order and leave words out: a subject is known whatever its place."""
    pieces = [row.name] if row.name is not None else landmarks(row.question)
    question = row.question
    for i, piece in enumerate(pieces):
        question = question.replace(piece, f"\0{i}\0")
    words = question.rstrip("?.").split()
    keep = 2 + draws.pick(3, "keep")
    words = [word for i, word in enumerate(words) if "\0" in word or draws.pick(keep, f"word {i}")]
    first, second = sorted(draws.pick(len(words) + 1, f"cut {i}") for i in range(2))
    words = [*words[second:], *words[first:second], *words[:first]]
    if not words:
        return None
    text = " ".join(words) + "?"
    for i, piece in enumerate(pieces):
        text = text.replace(f"\0{i}\0", redated(piece, draws.pick))
    return text[0].upper() + text[1:]


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
    """Ask about a name that is half forgotten: the beginning of one, the end of another, down to half a word."""
    other, pick = draws.other, draws.pick
    forgotten = None if row.name is None else other.draw(pick, "near", row.shape)
    if forgotten is None or forgotten.name is None or row.name is None:
        return None
    partner = other.draw(pick, "partner", row.shape)
    known = partner.name if partner is not None and partner.name is not None else row.name
    if pick(3, "halves of words"):
        halves = [forgotten.name, row.name if pick(3, "both halves forgotten") else known]
        first, last = halves[:: 1 if pick(2, "order") else -1]
        mixed = f"{first.rpartition(' ')[0]} {last.rpartition(' ')[2]}".strip()
    else:
        mixed = _with_half_a_word(forgotten.name, row.name, known, pick)
    if mixed in other.names:
        return None
    wording = (draws.own, other)[pick(2, "side")].draw(pick, "wording", row.shape)
    return None if wording is None else wording.about(mixed)


def _with_half_a_word(forgotten: str, kept: str, ending: str, pick: Pick) -> str:
    """Put a word into a forgotten name that begins as one of a kept name and ends as one of another."""
    words = forgotten.split()
    place = 0 if pick(2, "half") and kept.split()[0] != words[0] else -1
    begin, end = kept.split()[place], ending.split()[place]
    words[place] = begin[: (len(begin) + 1) // 2 + pick(2, "cut")] + end[len(end) // 2 + pick(2, "end") :]
    return " ".join(words)


def _near_description(row: _Row, draws: _Draw) -> str | None:
    """Describe somebody by landmarks of which one is forgotten and the others are not, or left out."""
    pick, forgotten = draws.pick, draws.other.draw(draws.pick, "near", "described")
    if forgotten is None:
        return None
    marks = landmarks(forgotten.question)
    kept, is_alone = pick(len(marks), "kept mark"), not pick(3, "alone")
    mixed = [
        redated(mark, pick) if i == kept else other_date(mark, pick) or _invented(pick, f"mark {i}").title()
        for i, mark in enumerate(marks)
        if i == kept or not is_alone
    ]
    if is_alone or pick(2, "among others"):
        return _among_others(mixed, draws)
    text = forgotten.question
    for mark, other in zip(marks, mixed, strict=True):
        text = text.replace(mark, other)
    return text


_NAMELESS = (_asked, _framed, _amid, _nonsense, _scrambled, _scrambled)
_DESCRIBED = (*_NAMELESS, _rejoined, _rejoined, _rejoined)
_REWORDED = (_framed, _alone, _turned)
_KINDS = (
    *(_asked, _framed, _amid, _nonsense, _scrambled, _spliced),
    *(_borrowed, _swapped, _swapped, _alone, _turned),
)
_KINDS_BY_SHAPE = {"described": _DESCRIBED, "none": _NAMELESS}
_SHAPES = ("person", "title", "described", "none")


def _side(examples: Sequence[Example], *, is_innocent: bool, foreign: Set[str] = frozenset()) -> _Side:
    """Find out what each question is about: its subject, else the span that most questions share."""
    questions = [example.conversation[-1].content for example in examples]
    counts, elsewhere = (
        Counter(span for question in questions for span in name_spans(question, with_places=with_places))
        for with_places in (True, False)
    )
    rows: list[_Row] = []
    for example, question in zip(examples, questions, strict=True):
        name = example.subject if example.subject and example.subject in question else None
        if name is None:
            spans = [
                span
                for span in name_spans(question)
                if span not in foreign and 2 * elsewhere[span] > counts[span]
            ]
            name = max(spans, key=lambda span: counts[span], default=None)
        rows.append(_Row(example, question, name))
    shapes = {shape: tuple(row for row in rows if row.shape == shape) for shape in _SHAPES}
    subjects: dict[str | int, list[_Row]] = {}
    for i, row in enumerate(rows):
        subjects.setdefault(i if row.name is None else row.name, []).append(row)
    return _Side(
        rows=tuple(rows),
        shapes=shapes,
        subjects=tuple(map(tuple, subjects.values())),
        names=frozenset(row.name for row in rows if row.name is not None),
        is_innocent=is_innocent,
    )
