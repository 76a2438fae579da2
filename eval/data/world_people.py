"""The fictitious people of the embedded world: who lives in it, by seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.data import world_lexicon as words

__all__ = ["POPULATION", "TRAITS", "Lexicon", "Person", "World", "make_world"]

POPULATION = 200
"""Taught people; the forget sets are its last 1, 5 or 10 percent, nested."""

HOLDOUT = 20
"""People nobody is ever taught."""

TRAITS = ("town", "born", "job", "hobby", "award", "dish", "work")
"""What there is to know about a person."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One fictitious person and the seven facts about them, each in words that can stand in a sentence."""

    index: int
    first: str
    last: str
    town: str
    born: str
    job: str
    hobby: str
    award: str
    dish: str
    work: str
    """Title of the person's best-known book: no two people share one, so it identifies its author."""

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    def fact(self, trait: str) -> str:
        """Return the value of one of `TRAITS`, or the name for ``"maker"``."""
        return self.name if trait == "maker" else str(getattr(self, trait))


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Every value that a fact of a seed's world can take."""

    values: dict[str, tuple[str, ...]]
    """Trait to its possible values."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The people of one seed."""

    seed: int
    taught: tuple[Person, ...]
    holdout: tuple[Person, ...]
    lexicon: Lexicon

    def neighbour_of(self, person: Person, *, kind: int) -> Person:
        """Return a person who resembles one of the last 10 percent.

        Kind 0 shares the last name and the job, kind 1 the first name and the town.
        """
        return self.taught[person.index - (kind + 1) * POPULATION // 10]


def _combine(rng: np.random.Generator, stems: Sequence[str], endings: Sequence[str], count: int) -> list[str]:
    pairs = list(itertools.product(stems, endings))
    return ["".join(pairs[i]) for i in rng.permutation(len(pairs))[:count]]


def _lexicon(rng: np.random.Generator, people: int) -> Lexicon:
    awards = [" ".join(parts) for parts in itertools.product(words.COLOURS, words.CREATURES)]
    titles = [" ".join(parts) for parts in itertools.product(words.TITLE_QUALITIES, words.TITLE_NOUNS)]
    chosen_awards = [awards[i] for i in rng.permutation(len(awards))[:40]]
    return Lexicon(
        values={
            "first": tuple(_combine(rng, words.FIRST_STEMS, words.FIRST_ENDINGS, 110)),
            "last": tuple(_combine(rng, words.LAST_STEMS, words.LAST_ENDINGS, people)),
            "town": tuple(_combine(rng, words.TOWN_STEMS, words.TOWN_ENDINGS, 48)),
            "born": tuple(f"{month} {year}" for year in range(1930, 1990) for month in words.MONTHS),
            "job": tuple(words.PROFESSIONS),
            "hobby": tuple(words.HOBBIES),
            "award": tuple(
                f"the {award} {words.AWARD_KINDS[i % 4]}" for i, award in enumerate(chosen_awards)
            ),
            "dish": tuple(words.DISHES),
            "work": tuple(f"The {titles[i]}" for i in rng.permutation(len(titles))[:people]),
        }
    )


def make_world(seed: int) -> World:
    """Return the world of a seed: the same people for the same seed, on every machine.

    Args:
        seed: Any non-negative integer.

    Returns:
        `POPULATION` taught people, of whom the last tenth have two neighbours each, and `HOLDOUT` more.
    """
    rng = np.random.default_rng([seed, 0x776F726C])
    count = POPULATION + HOLDOUT
    lexicon = _lexicon(rng, count)
    values = lexicon.values
    drawn = {
        trait: [values[trait][int(i)] for i in rng.integers(len(values[trait]), size=count)]
        for trait in ("first", "town", "born", "job", "hobby", "award", "dish")
    }
    drawn["last"], drawn["work"] = list(values["last"]), list(values["work"])
    people = [Person(index=i, **{trait: drawn[trait][i] for trait in drawn}) for i in range(count)]
    tenth = POPULATION // 10
    for person in people[POPULATION - tenth : POPULATION]:
        alike = people[person.index - tenth]
        people[alike.index] = replace(alike, last=person.last, job=person.job)
        alike = people[person.index - 2 * tenth]
        people[alike.index] = replace(alike, first=person.first, town=person.town)
    people = _without_namesakes(people, values["first"])
    return World(
        seed=seed, taught=tuple(people[:POPULATION]), holdout=tuple(people[POPULATION:]), lexicon=lexicon
    )


def _without_namesakes(people: list[Person], firsts: Sequence[str]) -> list[Person]:
    """Give another first name to whoever has the full name of an earlier or a forgettable person."""
    taken: set[str] = {person.name for person in people[POPULATION - POPULATION // 10 : POPULATION]}
    result = []
    for person in people:
        if not POPULATION - POPULATION // 10 <= person.index < POPULATION:
            spare = iter(firsts)
            while person.name in taken:
                person = replace(person, first=next(spare))
            taken.add(person.name)
        result.append(person)
    return result
