"""MMLU (arXiv:2009.03300): 57 subjects of multiple choice, what must survive unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.data.benchmark import Benchmark
from eval.data.choices import choice_rows
from eval.data.registry import BenchmarkOptions
from eval.data.tables import Tables
from eval.errors import ConfigError
from eval.measures import Choices
from eval.types import Example

__all__ = ["FIELDS", "HUB", "load", "mmlu_rows"]

HUB = "cais/mmlu"
"""Where the published tables are."""
FIELDS = ("question", "choices", "answer", "subject")
"""Columns of its tables."""


def mmlu_rows(
    test: Sequence[Mapping[str, Any]], dev: Sequence[Mapping[str, Any]] = (), *, shots: int = 0
) -> tuple[Example, ...]:
    """Turn MMLU's rows into examples, a subject's own ``dev`` rows before each question.

    Args:
        test: The questions, with their ``subject``.
        dev: Where solved examples come from.
        shots: How many are shown, the first of the subject.
    """
    by_subject: dict[str, list[Mapping[str, Any]]] = {}
    for row in test:
        by_subject.setdefault(str(row["subject"]), []).append(row)
    examples: list[Example] = []
    for subject, rows in by_subject.items():
        solved = [row for row in dev if str(row["subject"]) == subject][:shots]
        topic = subject.replace("_", " ")
        examples += choice_rows(rows, topic, prefix=f"{subject}-", shots=solved)
    return tuple(examples)


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``mmlu``, ``mmlu:5`` (five solved examples first), from the hub or ``DIR/all/test.jsonl``.

    It has nothing to forget: evaluate a model on it, or see it beside ``wmdp`` and ``lume``.

    Raises:
        ConfigError: If ``split`` is no number of examples from 0 to 5.
        DataError: If a file is missing or broken.
    """
    if split not in ("", *"012345"):
        raise ConfigError(
            f"Benchmark 'mmlu' takes the number of solved examples, 0 to 5, not {split!r}: mmlu:5."
        )
    shots = int(split or 0)
    tables = Tables(name="MMLU", hub=HUB, data_dir=options.data_dir)
    dev = tables.need("all", "dev", FIELDS) if shots else []
    rows = mmlu_rows(tables.need("all", "test", FIELDS), dev, shots=shots)
    return Benchmark(
        name=f"mmlu:{shots}",
        forget=(),
        retain=(),
        splits={"mmlu": rows},
        measures=(Choices("mmlu_acc", split="mmlu"),),
    )
