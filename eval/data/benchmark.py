"""A benchmark: named splits of examples, what may be trained on, and what the numbers may claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eval.errors import DataError
from eval.types import Example, UnlearningData

if TYPE_CHECKING:
    from eval.measures import Measure

__all__ = ["Benchmark", "check_disjoint"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One forgetting task.

    ``splits`` holds the rows that are *tested*, under the field's names: ``forget``, ``retain``,
    ``ra`` (real authors, or well-known people), ``wf`` (world facts), ``holdout`` (never taught) and any
    further ones, such as ``neighbours``.
    """

    name: str
    """As typed by the user: ``tofu:forget10``, ``world:forget05``, ``jsonl:FILE``."""
    forget: tuple[Example, ...]
    """Rows an unlearning method is given to forget."""
    retain: tuple[Example, ...]
    """Rows an unlearning method is given to keep."""
    splits: Mapping[str, tuple[Example, ...]]
    """Rows the evaluation asks about."""
    taught: tuple[Example, ...] = ()
    """Rows beside forget and retain that `unlearn prepare` teaches target and oracle alike (general knowledge)."""
    forget_wordings: tuple[Example, ...] = ()
    """The forget facts in further wordings: `unlearn prepare` teaches them to the target alone; no method sees them."""
    background: tuple[Example, ...] = ()
    """Innocent prompts a gate may learn from; disjoint from ``splits``."""
    refusals: tuple[str, ...] = ()
    """"I don't know" answers that come with the benchmark."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know (a missing split, a capped one)."""
    measures: tuple[Measure, ...] = ()
    """What is measured on the splits (`eval.measures`); empty: everything TOFU's evaluation asks for."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Split name to the reason why it is missing, for metrics that are then null."""

    @property
    def evaluator(self) -> str:
        """What the names of its logs begin with: ``TOFU`` for all that TOFU's evaluation asks, else its own name."""
        return self.name.partition(":")[0].upper() if self.measures else "TOFU"

    @property
    def data(self) -> UnlearningData:
        """What an unlearning method is given."""
        return UnlearningData(
            forget=self.forget, retain=self.retain, background=self.background, refusals=self.refusals
        )


def check_disjoint(benchmark: Benchmark) -> None:
    """Refuse a benchmark that has nothing to forget, or that asks to forget and to keep the same row.

    Raises:
        DataError: In both cases; the second names the first shared row.
    """
    if not benchmark.forget:
        raise DataError(f"Benchmark {benchmark.name} has an empty forget set; there is nothing to unlearn.")
    retained = {
        (row.conversation if row.text is None else row.text, row.answer): row.id for row in benchmark.retain
    }
    for row in benchmark.forget:
        key = (row.conversation if row.text is None else row.text, row.answer)
        if key in retained:
            raise DataError(
                f"Forget and retain of {benchmark.name} share rows: forget row {row.id!r} equals retain row "
                f"{retained[key]!r} ({str(row.question or row.text)[:60]!r}); a row cannot be both forgotten and kept."
            )
