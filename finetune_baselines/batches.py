"""What a training step is given: forget and retain rows in one batch, with what the reference said about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eval.data.collate import Encoded
from eval.types import Batch, Example

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["PairBatch", "Row", "collate_pairs", "encode_rows", "every_position", "take_rows"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One (example, answer) pair ready for training."""

    encoded: Encoded
    kind: str = "gold"
    """What its answer is: see `finetune_baselines.forget_answers`; nobody asks it of a retain row."""
    reference_logps: tuple[float, ...] | None = None
    """Log-probability of each answer token under the reference model, nats; ``None``: nobody needs it."""


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Forget rows and their retain partners, padded together so that one forward serves both.

    Rows ``[0, num_forget)`` of ``both`` stand after forget questions, the rest are retained. Where a method looks
    at several answers to the same question (gold and refusal, say), the forget rows come kind by kind, each kind
    in the order of the questions.
    """

    both: Batch
    num_forget: int
    kinds: tuple[tuple[str, int], ...] = ()
    """Kind and number of the forget rows, in order; empty: nothing is known, all count as ``gold``."""
    reference_logps: Tensor | None = None
    """Gold-token log-probabilities under the reference, in the order of ``both.targets``, nats, shape ``(N,)``;
    NaN where a row has none. Constant: computed once, before the first step."""
    step: int = 0
    """Optimizer steps done so far in this run."""
    num_steps: int = 0
    """Optimizer steps of the whole run."""
    is_filler: bool = False
    """Keeps a process busy whose share of the step has no rows; counts for nothing."""

    def __len__(self) -> int:
        return len(self.both)

    @property
    def num_retain(self) -> int:
        """Rows to keep."""
        return len(self.both) - self.num_forget

    @property
    def lengths(self) -> Tensor:
        """Answer tokens of each row, shape ``(B,)``."""
        return (self.both.labels[:, 1:] != -100).sum(1)

    @property
    def num_forget_tokens(self) -> int:
        """Answer tokens of the forget rows: the first so many of ``both.targets`` belong to them."""
        return int(self.lengths[: self.num_forget].sum())

    @property
    def sections(self) -> dict[str, slice]:
        """Rows of each kind of answer after the forget questions, then those of ``retain`` (perhaps none)."""
        out: dict[str, slice] = {}
        start = 0
        for kind, count in self.kinds or (("gold", self.num_forget),):
            out[kind] = slice(start, start + count)
            start += count
        return out | {"retain": slice(start, len(self.both))}

    def size(self, unit: str) -> int:
        """Number of rows or answer tokens of one kind (``forget``: of all kinds): see `training.Unit`."""
        if self.is_filler:
            return 0
        kind, _, what = unit.rpartition("_")
        whole = {"forget": slice(0, self.num_forget), "all": slice(0, len(self.both))}
        rows = whole.get(kind) or self.sections.get(kind, slice(0, 0))
        return rows.stop - rows.start if what == "rows" else int(self.lengths[rows].sum())

    @property
    def forget(self) -> Batch:
        """The forget rows alone, trimmed to their own width."""
        return take_rows(self.both, 0, self.num_forget)

    @property
    def retain(self) -> Batch:
        """The retain rows alone, trimmed to their own width."""
        return take_rows(self.both, self.num_forget, len(self.both))

    def split(self, side: str) -> tuple[PairBatch, PairBatch]:
        """Return the rows of one side (``forget``, ``retain`` or ``both``) and the others, each as a batch."""
        cut = self.num_forget
        forget, retain, none = self._rows(0, cut), self._rows(cut, len(self)), self._rows(0, 0)
        parts = {"forget": (forget, retain), "retain": (retain, forget), "both": (self, none)}
        return parts[side]

    def _rows(self, start: int, stop: int) -> PairBatch:
        """Return the rows of one side, or none."""
        lengths, reference = self.lengths, self.reference_logps
        tokens = slice(int(lengths[:start].sum()), int(lengths[:stop].sum()))
        has_forget = start == 0 and stop > 0
        return replace(
            self,
            both=take_rows(self.both, start, stop),
            num_forget=self.num_forget if has_forget else 0,
            kinds=tuple((kind, count if has_forget else 0) for kind, count in self.kinds),
            reference_logps=None if reference is None else reference[tokens],
        )

    def to(self, device: torch.device | str) -> PairBatch:
        """Return the batch with every tensor on ``device``."""
        reference = self.reference_logps
        return replace(
            self,
            both=self.both.to(device),
            reference_logps=None if reference is None else reference.to(device),
        )


def take_rows(batch: Batch, start: int, stop: int) -> Batch:
    """Return rows ``[start, stop)`` of a batch, without the padding columns that no row of them needs."""
    mask = batch.attention_mask[start:stop]
    used = mask.any(0).nonzero() if stop > start else mask.new_zeros(0)
    width = int(used.max()) + 1 if used.numel() else 0
    return replace(
        batch,
        messages=batch.messages[start:stop],
        input_ids=batch.input_ids[start:stop, :width],
        attention_mask=mask[:, :width],
        prompt_end=batch.prompt_end[start:stop],
        labels=batch.labels[start:stop, :width],
        prompt_group=None,
    )


def every_position(batch: Batch) -> Batch:
    """Return the batch as if every position predicted an answer token: ``answer_logits`` then gives ``B * T`` rows.

    One padding column is added on the right, for the last position to predict.
    """
    pad = torch.nn.functional.pad
    ids = pad(batch.input_ids, (0, 1))
    return replace(
        batch, input_ids=ids, attention_mask=pad(batch.attention_mask, (0, 1)), labels=ids, prompt_group=None
    )


def encode_rows(
    lm: LanguageModel,
    examples: Sequence[Example],
    answers: Sequence[str],
    *,
    reference: LanguageModel | None = None,
    kind: str = "gold",
) -> list[Row]:
    """Tokenise examples with the answers beside them, once for the whole run.

    Args:
        lm: Whose tokenizer and template to use.
        examples: The prompts.
        answers: One for each example.
        reference: Score the answers under this model (evaluation mode, no gradient, fp32 log-softmax) and store
            the log-probabilities with the rows; ``None``: the objective needs none.
        kind: What the answers are.
    """
    encoded = lm.encode(examples, answers)
    if reference is None:
        return [Row(encoded=row, kind=kind) for row in encoded]
    scores = reference.score(examples, answers)
    return [
        Row(encoded=row, kind=kind, reference_logps=tuple(score.logps.tolist()))
        for row, score in zip(encoded, scores, strict=True)
    ]


def collate_pairs(lm: LanguageModel, forget: Sequence[Row], retain: Sequence[Row]) -> PairBatch:
    """Pad forget rows and retain rows into one batch, forget rows first and sorted by kind."""
    counts = Counter(row.kind for row in forget)  # in the order of first appearance
    order = {kind: place for place, kind in enumerate(counts)}
    rows = [*sorted(forget, key=lambda row: order[row.kind]), *retain]
    reference = None
    if any(row.reference_logps is not None for row in rows):
        missing = float("nan")
        reference = torch.tensor(
            [
                logp
                for row in rows
                for logp in (row.reference_logps or (missing,) * len(row.encoded.answer_ids))
            ]
        )
    return PairBatch(
        both=lm.collate([row.encoded for row in rows]),
        num_forget=len(forget),
        kinds=tuple(counts.items()),
        reference_logps=reference,
    )
