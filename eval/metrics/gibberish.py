"""Is a generated text language at all? A character n-gram model and a repetition test, stated and self-contained.

No outside model is used: a classifier's verdict changes with its version. The reference language is the benchmark's
own answers, on which the threshold is calibrated by cross-fitting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from math import log2

import numpy as np

__all__ = ["CharacterModel", "TextJudge"]

ORDER = 4
"""Characters of context."""
START = "\x02"
QUANTILE = 0.99
"""Share of true answers that must pass."""
MARGIN = 0.5
"""Bits a character above that quantile which other wordings (a refusal) may need."""
MIN_DISTINCT = 0.5
"""Share of different word triples below which a text repeats itself."""
MIN_TRIPLES = 6

MAX_TEXTS = 200
"""True answers that are learnt from, spread over those given."""

_SPACE = re.compile(r"\s+")


class CharacterModel:
    """Witten-Bell smoothed character n-grams: how many bits a character of a text costs.

    Args:
        texts: What it learns from.
        order: Characters of context.
    """

    def __init__(self, texts: Sequence[str], *, order: int = ORDER) -> None:
        self.order = order
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for text in texts:
            padded = self._padded(text)
            for i in range(order, len(padded)):
                for start in range(i - order, i + 1):
                    self._counts[padded[start:i]][padded[i]] += 1
        self._totals = {context: sum(counts.values()) for context, counts in self._counts.items()}
        self._alphabet = len(self._counts[""]) + 1
        self._known: dict[tuple[str, str], float] = {}

    def _padded(self, text: str) -> str:
        return START * self.order + _SPACE.sub(" ", text.strip().lower())

    def bits_per_character(self, text: str) -> float:
        """Return the mean cost in bits; infinite for an empty text."""
        padded = self._padded(text)
        costs = [
            -log2(self._probability(padded[i - self.order : i], padded[i]))
            for i in range(self.order, len(padded))
        ]
        return sum(costs) / len(costs) if costs else float("inf")

    def _probability(self, context: str, character: str) -> float:
        key = (context, character)
        if key not in self._known:
            probability = self._probability(context[1:], character) if context else 1.0 / self._alphabet
            total = self._totals.get(context, 0)
            if total:
                counts = self._counts[context]
                probability = (counts.get(character, 0) + len(counts) * probability) / (total + len(counts))
            self._known[key] = probability
        return self._known[key]


class TextJudge:
    """Tells text from gibberish: costly characters, endless repetition, or nothing at all.

    The limit on bits a character is the 99th percentile of true answers under a model of the other half of them,
    plus half a bit.

    Args:
        texts: True answers of the benchmark, at least four.

    Raises:
        ValueError: If there are fewer.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        distinct = distinct[:: max(1, -(-len(distinct) // MAX_TEXTS))]
        if len(distinct) < 4:
            raise ValueError(f"A judge of gibberish needs at least four true texts, not {len(distinct)}.")
        halves = distinct[::2], distinct[1::2]
        costs: list[float] = []
        for learned, judged in (halves, halves[::-1]):
            model = CharacterModel(learned)
            costs += [model.bits_per_character(text) for text in judged]
        self.limit = float(np.quantile(costs, QUANTILE)) + MARGIN
        self._model = CharacterModel(distinct)

    def bits_per_character(self, text: str) -> float:
        """Return the cost of a text under the model of all true answers."""
        return self._model.bits_per_character(text)

    def is_text(self, text: str) -> bool:
        """Return whether a generation reads as language: not empty, not garbled, not one phrase for ever."""
        words = text.lower().split()
        triples = list(zip(words, words[1:], words[2:], strict=False))
        repeats = len(triples) >= MIN_TRIPLES and len(set(triples)) < MIN_DISTINCT * len(triples)
        return bool(words) and not repeats and self.bits_per_character(text) <= self.limit
