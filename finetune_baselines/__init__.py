"""Unlearning by fine-tuning: losses, recipes and the one trainer (the representation edit trains through it too)."""

from finetune_baselines.batches import PairBatch, Row, encode_rows
from finetune_baselines.method import METHODS, FineTuning, train
from finetune_baselines.recipes import RECIPES, LoraSettings, Recipe
from finetune_baselines.refusals import REFUSALS, refusal_answers
from finetune_baselines.training import (
    Objective,
    TrainingDivergedError,
    TrainResult,
    TrainRows,
    TrainSettings,
    run_training,
)

__all__ = [
    "METHODS",
    "RECIPES",
    "REFUSALS",
    "FineTuning",
    "LoraSettings",
    "Objective",
    "PairBatch",
    "Recipe",
    "Row",
    "TrainResult",
    "TrainRows",
    "TrainSettings",
    "TrainingDivergedError",
    "encode_rows",
    "refusal_answers",
    "run_training",
    "train",
]
