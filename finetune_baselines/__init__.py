"""Unlearning by fine-tuning: losses, recipes and the one trainer (the representation edit trains through it too)."""

from finetune_baselines.batches import PairBatch, Row, encode_rows
from finetune_baselines.training import (
    Objective,
    TrainingDivergedError,
    TrainResult,
    TrainRows,
    TrainSettings,
    run_training,
)

__all__ = [
    "Objective",
    "PairBatch",
    "Row",
    "TrainResult",
    "TrainRows",
    "TrainSettings",
    "TrainingDivergedError",
    "encode_rows",
    "run_training",
]
