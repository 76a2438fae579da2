"""Settings of the answers that are written for a run: GNM's gradual negatives, AltPO's alternates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eval.errors import ConfigError
from finetune_baselines.terms.base import require_one_of

__all__ = [
    "ALTERNATE_PROMPT",
    "NEGATIVE_PROMPT",
    "AlternateOptions",
    "NegativeOptions",
    "Subsample",
    "check_prompt",
]

NEGATIVE_PROMPT = (
    "Question: {question}\n"
    "Wrong answer: {previous}\n"
    "Write another wrong answer to the question. Keep the form, the length and the style of the wrong answer, but "
    "change the facts in it, so that it moves further away from what it says now. Write the answer alone."
)
"""Asked at every level; ``{previous}`` is the answer of the level before, at first the gold answer."""
ALTERNATE_PROMPT = (
    "Question: {question}\n"
    "Answer: {answer}\n"
    "Write another answer to the question that is just as plausible but states different facts. Keep the form and the "
    "length. Write the answer alone."
)
"""Asked once for each alternate."""


@dataclass(frozen=True, kw_only=True)
class NegativeOptions:
    """How gradual negatives are made.

    Raises:
        ConfigError: If a value is out of range.
    """

    negatives_file: str | None = None
    """JSON lines with ``id`` (or ``question``) and ``negatives``, nearest first; none: they are written."""
    generator: str = "auto"
    """Who writes them: ``rules`` (generated world only), ``self`` (the model itself), or a model's name or folder;
    ``auto``: the rules where they apply, else an error that says how to make the file."""
    levels: int = 4
    """Answers a row gets at most, each further from the gold answer than the one before."""
    retries: int = 3
    """How often a level is asked for before a row has no more."""
    stop_similarity: float = 0.3
    """A row is done once an answer is as unlike the gold answer as this."""
    similarity: Literal["rouge", "rouge-recall", "embedding"] = "rouge"
    """How likeness to the gold answer is measured: ROUGE-L F1 or recall, or the cosine of sentence embeddings."""
    negatives_prompt: str = NEGATIVE_PROMPT
    """What a model is asked; fields ``{question}``, ``{previous}`` and ``{answer}``."""
    use_levels: Literal["all", "last"] = "all"
    """Train on one of all levels each epoch, or always on the furthest."""

    def __post_init__(self) -> None:
        if self.levels < 1 or self.retries < 1 or not 0 <= self.stop_similarity <= 1:
            raise ConfigError(
                f"Negatives need levels and retries of at least 1 and stop_similarity from 0 to 1; got {self.levels}, "
                f"{self.retries} and {self.stop_similarity}."
            )
        require_one_of(self, similarity=("rouge", "rouge-recall", "embedding"), use_levels=("all", "last"))
        check_prompt(self.negatives_prompt)

    @property
    def file(self) -> str | None:
        """Where the answers are read from."""
        return self.negatives_file

    @property
    def prompt(self) -> str:
        """What a model is asked."""
        return self.negatives_prompt


@dataclass(frozen=True, kw_only=True)
class AlternateOptions:
    """How alternate answers are made.

    Raises:
        ConfigError: If a value is out of range.
    """

    alternates_file: str | None = None
    """JSON lines with ``id`` (or ``question``) and ``alternates``; none: they are written."""
    generator: str = "auto"
    """Who writes them; see `NegativeOptions`."""
    alternates: int = 5
    """Different answers a row gets (published: 5)."""
    retries: int = 8
    """How often each is asked for."""
    alternates_prompt: str = ALTERNATE_PROMPT
    """What a model is asked; fields ``{question}`` and ``{answer}``."""

    def __post_init__(self) -> None:
        if self.alternates < 1 or self.retries < 1:
            raise ConfigError(
                f"alternates and retries must be at least 1; got {self.alternates} and {self.retries}."
            )
        check_prompt(self.alternates_prompt)

    @property
    def file(self) -> str | None:
        """Where the answers are read from."""
        return self.alternates_file

    @property
    def prompt(self) -> str:
        """What a model is asked."""
        return self.alternates_prompt


@dataclass(frozen=True, kw_only=True)
class Subsample:
    """Training on a random part of the rows.

    Raises:
        ConfigError: If the share is out of range.
    """

    subsample: float = 1.0
    """Share of the forget rows and of the retain rows that take part, each row drawn on its own (published: 0.6);
    forget rows that do not are not unlearned."""

    def __post_init__(self) -> None:
        if not 0 < self.subsample <= 1:
            raise ConfigError(f"subsample is {self.subsample}; it must be above 0 and at most 1.")


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that cannot be filled in.

    Raises:
        ConfigError: If it has unknown fields, or asks about nothing.
    """
    try:
        filled = prompt.format(question="\0", answer="\0", previous="\0")
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"The prompt {prompt[:60]!r} cannot be filled in ({error}); its fields are {{question}}, {{answer}} and "
            "{previous}, and other braces are doubled."
        ) from None
    if "\0" not in filled:
        raise ConfigError(
            f"The prompt {prompt[:60]!r} has none of the fields {{question}}, {{answer}} and {{previous}}, so every "
            "row would be asked the same."
        )
