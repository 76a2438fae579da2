"""Multiple choice by the likelihood of the options' letters (WMDP, MMLU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics import entries

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.measures.plan import Context, Plan

__all__ = ["Choices"]


@dataclass(frozen=True)
class Choices:
    """Accuracy: the share of questions whose right letter is the likeliest of the four.

    The letters' log-probabilities are summed over their tokens; ties go to the first letter, as in
    lm-evaluation-harness. Chance is 0.25, and that is what forgetting aims at.
    """

    name: str
    """Of the log entry, such as ``wmdp_bio_acc``."""
    split: str
    """Rows of `eval.data.choices.choice_rows`."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score every letter after every question."""
        from eval.data.choices import LETTERS

        rows = benchmark.splits.get(self.split, ())
        plan.score(self.name, rows, [list(LETTERS[: len(row.choices)]) for row in rows])

    def entries(self, context: Context) -> dict[str, Any]:
        """Log which letter was chosen and the log-probability of each."""
        if not context.benchmark.splits.get(self.split):
            return {self.name: entries.absent_entry(context.why_absent(self.split))}
        items = []
        for row, scores in zip(
            context.benchmark.splits[self.split], context.answers.scores[self.name], strict=True
        ):
            logps = [entries.finite(score.sum_logp) for score in scores]
            known = [logp for logp in logps if logp is not None]
            chosen = int(np.argmax(known)) if len(known) == len(logps) else None
            items.append(
                {
                    "score": None if chosen is None else float(chosen == row.choice),
                    "chosen": chosen,
                    "right": row.choice,
                    "logps": logps,
                    "subject": row.subject,
                }
            )
        return {self.name: entries.entry(items)}
