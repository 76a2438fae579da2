"""Unlearning by fine-tuning: losses, recipes and the one trainer (the representation edit trains through it too)."""

from finetune_baselines.batches import PairBatch, Row, encode_rows
from finetune_baselines.generators import ModelGenerator, PromptedWriter, RuleWriter
from finetune_baselines.method import METHODS, FineTuning, train
from finetune_baselines.negatives import write_alternates, write_negatives
from finetune_baselines.recipes import RECIPES, LoraSettings, Recipe
from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions
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
    "AlternateOptions",
    "FineTuning",
    "LoraSettings",
    "ModelGenerator",
    "NegativeOptions",
    "Objective",
    "PairBatch",
    "PromptedWriter",
    "Recipe",
    "Row",
    "RuleWriter",
    "TrainResult",
    "TrainRows",
    "TrainSettings",
    "TrainingDivergedError",
    "encode_rows",
    "refusal_answers",
    "run_training",
    "train",
    "write_alternates",
    "write_negatives",
]
