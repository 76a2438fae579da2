"""What a benchmark asks of a model: each measure says what to score and to generate, and logs what came out."""

from eval.measures.choices import Choices
from eval.measures.extraction import Extraction
from eval.measures.membership import Membership
from eval.measures.plan import Answers, Context, Measure, Plan
from eval.measures.questions import Questions
from eval.measures.texts import Generated, Memorized, Perplexity

__all__ = [
    "Answers",
    "Choices",
    "Context",
    "Extraction",
    "Generated",
    "Measure",
    "Membership",
    "Memorized",
    "Perplexity",
    "Plan",
    "Questions",
]
