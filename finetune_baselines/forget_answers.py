"""What stands after a forget question: its gold answer, or one of the other answers that methods train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from eval.data.pairing import draw
from eval.errors import DataError
from eval.types import UnlearningData
from finetune_baselines.recipes import Recipe
from finetune_baselines.recipes.options import RandomMatching
from finetune_baselines.refusals import refusal_answers

__all__ = ["ANSWERS", "AnswerSource", "Texts"]

Texts = list[tuple[str, ...]]
"""For each forget row the answers of one kind that training may put after its question."""


@dataclass(frozen=True, kw_only=True)
class AnswerSource:
    """Where one kind of answer comes from."""

    texts: Callable[[UnlearningData, Recipe, int, int], Texts]
    """``texts(data, recipe, epochs, seed)``; raises `DataError` where what it needs was not given."""
    draws: Callable[[Recipe], int] = lambda recipe: 1
    """How many of them a question gets in one epoch."""


def _gold(data: UnlearningData, recipe: Recipe, epochs: int, seed: int) -> Texts:
    return [(row.answer or "",) for row in data.forget]


def _refusals(data: UnlearningData, recipe: Recipe, epochs: int, seed: int) -> Texts:
    return refusal_answers(len(data.forget), data.refusals, variants=epochs, seed=seed)


def _random(data: UnlearningData, recipe: Recipe, epochs: int, seed: int) -> Texts:
    """Answers of retain rows, never one that also answers a forget row."""
    forbidden = {row.answer for row in data.forget}
    pool = list(dict.fromkeys(row.answer for row in data.retain if row.answer not in forbidden))
    texts = [text for text in pool if text]
    wanted = recipe.get(RandomMatching).random_answers
    if len(texts) < wanted:
        raise DataError(
            f"{recipe.name} puts {wanted} random retain answers after each forget question, but {len(texts)} "
            "different ones were given; give retain rows, or lower random_answers."
        )
    count = min(wanted * epochs, len(texts))
    starts = [draw(len(texts), seed, "random answer", row) for row in range(len(data.forget))]
    return [tuple(texts[(start + k) % len(texts)] for k in range(count)) for start in starts]


def _given(what: str, rows: Sequence[str], texts: Mapping[str, tuple[str, ...]], recipe: Recipe) -> Texts:
    missing = [row for row in rows if not texts.get(row)]
    if missing:
        raise DataError(
            f"{recipe.name} needs {what} for every forget row; {len(missing)} of {len(rows)} have none, the first "
            f"is {missing[0]!r}."
        )
    return [tuple(texts[row]) for row in rows]


def _alternates(data: UnlearningData, recipe: Recipe, epochs: int, seed: int) -> Texts:
    return _given("alternate answers", [row.id for row in data.forget], data.alternates, recipe)


def _negatives(data: UnlearningData, recipe: Recipe, epochs: int, seed: int) -> Texts:
    """A row that no further answer could be written for has none: its other terms remain."""
    if not any(data.negatives.values()):
        _given("gradual negatives", [row.id for row in data.forget], {}, recipe)
    return [tuple(data.negatives.get(row.id, ())) for row in data.forget]


ANSWERS: Mapping[str, AnswerSource] = MappingProxyType(
    {
        "gold": AnswerSource(texts=_gold),
        "refusal": AnswerSource(texts=_refusals),
        "random": AnswerSource(texts=_random, draws=lambda recipe: recipe.get(RandomMatching).random_answers),
        "alternate": AnswerSource(texts=_alternates),
        "negative": AnswerSource(texts=_negatives),
    }
)
"""Every kind of answer by name."""
