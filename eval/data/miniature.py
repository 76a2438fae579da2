"""What generated miniatures are made of: a few people of the embedded world, as documents and questions.

A benchmark's ``mini`` variant writes rows in that benchmark's own format from these, so that its loader, its
metrics and its report run without any download. Numbers on a miniature say that the path works, nothing more.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.data.world import rows_about
from eval.data.world_people import Person, World, make_world
from eval.types import Example

__all__ = ["Article", "articles", "multiple_choice"]


@dataclass(frozen=True, kw_only=True)
class Article:
    """What is written about one fictitious person."""

    subject: str
    rows: tuple[Example, ...]
    """Nine questions with right and wrong answers."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """An opening and one sentence for each fact, in a fixed shuffled order."""
        order = np.random.default_rng(zlib.crc32(self.subject.encode())).permutation(len(self.rows))
        return (f"This is about {self.subject}.", *(str(self.rows[i].paraphrased_answer) for i in order))

    @property
    def text(self) -> str:
        """All sentences as one text of about 70 words."""
        return " ".join(self.sentences)


def articles(seed: int, *, forget: int, retain: int, holdout: int) -> dict[str, tuple[Article, ...]]:
    """Return articles about so many people each, by part; ``holdout`` has at most 20.

    The forgotten are the last of the taught people, as in the embedded world, whose seed this is.
    """
    world = make_world(seed)
    parts: dict[str, Sequence[Person]] = {
        "forget": world.taught[-forget:],
        "retain": world.taught[:retain],
        "holdout": world.holdout[:holdout],
    }
    return {part: tuple(_article(world, person) for person in people) for part, people in parts.items()}


def _article(world: World, person: Person) -> Article:
    return Article(subject=person.name, rows=rows_about(world, [person]))


def multiple_choice(row: Example) -> dict[str, Any]:
    """Return ``question``, four ``choices`` and the right one's index ``answer``, as WMDP and MMLU have them."""
    order = np.random.default_rng(zlib.crc32(row.id.encode())).permutation(4).tolist()
    options = [str(row.paraphrased_answer), *row.perturbed_answers[:3]]
    return {"question": row.question, "choices": [options[i] for i in order], "answer": order.index(0)}
