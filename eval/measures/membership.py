"""Six membership attacks on rows of any kind: was this text in the training data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.metrics import entries
from eval.metrics.gradnorm import gradient_norms, no_gradients
from eval.partial import resumed
from eval.processes import spread
from eval.report.open_unlearning import item_values

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.measures.plan import Context, Plan
    from eval.models.scoring import TokenScores
    from eval.types import Example

__all__ = ["ATTACKS", "Membership", "membership_log"]

ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm", "mia_reference")
"""Names of the membership attacks, as in logs."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The six attacks on two splits of whole documents."""

    forget: str
    """Split of rows the target was taught."""
    holdout: str
    """Split of rows no model was taught."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score both splits with moments."""
        if benchmark.splits.get(self.holdout):
            for split in (self.forget, self.holdout):
                rows = benchmark.splits[split]
                plan.score(f"{split} mia", rows, [[str(row.answer)] for row in rows], moments=True)

    def entries(self, context: Context) -> dict[str, Any]:
        """Log each row's score under each attack."""
        splits = context.benchmark.splits
        if not splits.get(self.holdout):
            return absent_attacks(context.why_absent(self.holdout))
        forget, holdout = (
            [row[0] for row in context.answers.scores[f"{split} mia"]]
            for split in (self.forget, self.holdout)
        )
        return membership_log(
            context, (splits[self.forget], forget), (splits[self.holdout], holdout), has_end=False
        )


def absent_attacks(reason: str) -> dict[str, Any]:
    """Stand in for every attack, with the reason why none can be made."""
    return {name: entries.absent_entry(reason) for name in ATTACKS}


def membership_log(
    context: Context,
    forget: tuple[Sequence[Example], Sequence[TokenScores]],
    holdout: tuple[Sequence[Example], Sequence[TokenScores]],
    *,
    has_end: bool,
) -> dict[str, Any]:
    """Log all six attacks on rows and their scores with moments.

    Args:
        context: The model, and the retain model's log for the reference attack.
        forget: Rows the target was taught, and their answers' scores.
        holdout: Likewise rows no model was taught.
        has_end: Whether each answer's last token is the end of the sequence, which token-wise attacks leave out.
    """
    texts = [context.decode(scores) for _, scores in (forget, holdout)]
    log = entries.membership_entries(forget[1], holdout[1], *texts, has_end=has_end)
    return log | {
        "mia_gradnorm": _gradnorm(context, forget[0], holdout[0], has_end=has_end),
        "mia_reference": _against_reference(log["mia_loss"], context.reference),
    }


def _gradnorm(
    context: Context, forget: Sequence[Example], holdout: Sequence[Example], *, has_end: bool
) -> dict[str, Any]:
    reason = no_gradients(context.lm) if context.gradnorm else "switched off: one backward pass for each row"
    if reason is not None:
        return entries.absent_entry(reason)

    def norm_of(rows: Sequence[Example]) -> list[float | None]:
        return gradient_norms(context.lm, rows, [str(row.answer) for row in rows], has_end=has_end)

    def norms_of(rows: list[Example]) -> list[float | None]:
        found = resumed(
            "gradient norms",
            [[row] for row in dict.fromkeys(rows)],
            norm_of,
            name=lambda batch: (has_end, context.lm.encode(batch, [str(row.answer) for row in batch])),
            write=lambda _, norm: {"norm": norm},
            read=lambda _, value: value["norm"],
            partial=context.partial,
            progress=context.progress,
        )
        return [found[row] for row in rows]

    every = [*forget, *holdout]
    norms = spread(every, norms_of) if context.is_spread else norms_of(every)
    return entries.attack_entry(norms[: len(forget)], norms[len(forget) :])


def _against_reference(loss: Mapping[str, Any], reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Loss minus the retain model's loss of the same row, which that model's log holds."""
    known = reference.get("mia_loss") if reference is not None else None
    if not isinstance(known, Mapping):
        return entries.absent_entry(
            "needs the retain model's log with mia_loss (an oracle, or --reference LOG)"
        )
    parts: list[list[float | None]] = []
    for part in ("forget", "holdout"):
        own, other = item_values(loss[part]), item_values(known.get(part))
        if len(own) != len(other):
            return entries.absent_entry(
                f"the retain model's log has {len(other)} {part} rows where this evaluation has {len(own)}"
            )
        pairs = zip(own, other, strict=True)
        parts.append([None if a is None or b is None else a - b for a, b in pairs])
    return entries.attack_entry(*parts)
