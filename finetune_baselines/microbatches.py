"""A schedule as what the Trainer's data loader reads: item ``i`` is one micro-batch of one process."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.utils.data import Dataset

from eval.data.pairing import draw
from finetune_baselines.batches import Row
from finetune_baselines.sampling import Schedule
from finetune_baselines.training import TrainRows

__all__ = ["MicroBatch", "MicroBatches"]


@dataclass
class MicroBatch:
    """The rows of one forward."""

    forget: list[Row] = field(default_factory=list)
    retain: list[Row] = field(default_factory=list)
    is_filler: bool = False
    """The step had no rows left for this place: these keep the process busy and count for nothing."""


class MicroBatches(Dataset[MicroBatch]):
    """Every step of a schedule, cut into equally many micro-batches.

    Args:
        rows: What the schedule's indices mean.
        schedule: The whole run.
        batch_size: Items of a full step.
        parts: Micro-batches of a step, over all processes; divides ``batch_size``.
        seed: Of the run: which of several answers a forget row shows in an epoch.
    """

    def __init__(
        self, rows: TrainRows, schedule: Schedule, *, batch_size: int, parts: int, seed: int
    ) -> None:
        self.rows, self.schedule, self.parts, self.seed = rows, schedule, parts, seed
        self._width = batch_size // parts

    def __len__(self) -> int:
        return len(self.schedule) * self.parts

    def __getitem__(self, index: int) -> MicroBatch:
        step, part = divmod(index, self.parts)
        items = self.schedule[step]
        mine = items[part * self._width : (part + 1) * self._width]
        batch = MicroBatch(is_filler=not mine)
        for item in mine or items[:1]:
            for i in item.forget:
                batch.forget += self._answers(item.epoch, i)
            batch.retain += [self.rows.retain[i] for i in item.retain]
        return batch

    def _answers(self, epoch: int, index: int) -> list[Row]:
        """Return one answer of every kind (more of those in ``rows.draws``) to a forget question."""
        choices: dict[str, list[Row]] = {}
        for row in self.rows.forget[index]:
            choices.setdefault(row.kind, []).append(row)
        chosen: list[Row] = []
        for kind, rows in choices.items():
            first = draw(len(rows), self.seed, "answer", epoch, index)
            count = min(self.rows.draws.get(kind, 1), len(rows))
            chosen += [rows[(first + k) % len(rows)] for k in range(count)]
        return chosen
