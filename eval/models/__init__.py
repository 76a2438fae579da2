"""Loading, prompting, scoring and generating: one way for every method."""

from eval.models.language_model import Generation, GenerationOptions, LanguageModel
from eval.models.loading import load
from eval.models.scoring import TokenScores

__all__ = ["Generation", "GenerationOptions", "LanguageModel", "TokenScores", "load"]
