"""Wrong answers about the generated world, step by step further from the truth, by rule instead of by a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile

from eval.data.pairing import draw
from eval.data.world import fill, key_spans
from eval.data.world_people import POPULATION, Person, World, make_world
from eval.data.world_wordings import BY_WORK, WORDINGS, Wording
from eval.types import Example

__all__ = ["STEPS", "WorldRules"]

STEPS = ("a near fact", "a far fact", "a far fact about somebody else", "another kind of fact")
"""What each step changes; the gold answer's own wording is kept for the first three."""

_ID = re.compile(r"w(\d+)-p(\d+)-([a-z-]+)-(\d+)")
_NEAREST = 4
"""A near fact is one of so many that are spelled most like the true one."""

_make_world = lru_cache(maxsize=4)(make_world)


class WorldRules:
    """Writes wrong answers to questions of `eval.data.world`, in wordings that stand in their gold answers.

    The wordings in which paraphrased and perturbed answers are tested are never used.
    """

    name = "rules of the generated world"

    @staticmethod
    def know(rows: Sequence[Example]) -> bool:
        """Say whether every row is one of the generated world's questions about a person."""
        return all(_parsed(row) is not None for row in rows)

    def wrong_answer(self, row: Example, step: int, *key: int | str) -> str:
        """Return a wrong answer.

        Args:
            row: A question of the generated world, with its gold answer.
            step: How far it goes: an index into `STEPS`; the last one where it is beyond.
            key: What the choice among equally far answers depends on.

        Raises:
            ValueError: If the row is not one of the generated world's.
        """
        parsed = _parsed(row)
        if parsed is None:
            raise ValueError(f"Row {row.id!r} is no question of the generated world.")
        world, person, kind, number = parsed
        if step >= 2:
            person = _another(world, person, row.id, *key)
        if step >= 3:
            others = [name for name in WORDINGS if name not in (kind, "maker")]
            kind = others[draw(len(others), row.id, "kind", *key)]
        trait, wordings = _asked(kind, person)
        truth = parsed[1].fact(trait)
        values = _ordered(world, parsed[1], trait, truth)
        share = values[:_NEAREST] if step == 0 else values[len(values) // 2 :]
        return fill(wordings[number].answer, person, share[draw(len(share), row.id, "value", *key)])


def _parsed(row: Example) -> tuple[World, Person, str, int] | None:
    match = _ID.fullmatch(row.id)
    if match is None:
        return None
    world = _make_world(int(match[1]))
    index, kind, number = int(match[2]), match[3], int(match[4])
    if index >= POPULATION or kind not in (*WORDINGS, "by-work"):
        return None
    person = world.taught[index]
    trait, wordings = _asked(kind, person)
    if number >= len(wordings) or fill(wordings[number].answer, person, person.fact(trait)) != row.answer:
        return None
    return world, person, kind, number


def _asked(kind: str, person: Person) -> tuple[str, tuple[Wording, ...]]:
    """Return the trait a kind of question asks for, and its wordings."""
    if kind != "by-work":
        return kind, WORDINGS[kind]
    trait = list(BY_WORK)[person.index % len(BY_WORK)]
    return trait, BY_WORK[trait]


def _another(world: World, person: Person, *key: int | str) -> Person:
    """Return another taught person who is asked the same by the book alone."""
    alike = [other for other in world.taught if other.index % len(BY_WORK) == person.index % len(BY_WORK)]
    others = [other for other in alike if other.name != person.name]
    return others[draw(len(others), "person", *key)]


def _ordered(world: World, person: Person, trait: str, truth: str) -> list[str]:
    """Return the other values of a trait, those spelled most like the truth first."""
    values = [p.name for p in world.taught] if trait == "maker" else world.lexicon.values[trait]
    spans = key_spans(person, trait)
    wrong = [value for value in dict.fromkeys(values) if not any(span in value for span in spans)]
    return sorted(wrong, key=lambda value: -_likeness(truth, value))


def _likeness(first: str, second: str) -> int:
    """Return the number of letters that two texts share at their beginning and at their end."""
    forwards = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    backwards = takewhile(lambda pair: pair[0] == pair[1], zip(first[::-1], second[::-1], strict=False))
    return sum(1 for _ in forwards) + sum(1 for _ in backwards)
