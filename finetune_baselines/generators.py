"""Who writes other answers to forget questions: a model by prompting, or the rules of the generated world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.data.world_rules import WorldRules
from eval.errors import DataError
from eval.models import GenerationOptions, LanguageModel
from eval.types import Example, Generator

__all__ = ["ModelGenerator", "PromptedWriter", "Request", "RuleWriter", "Writer", "choose_writer"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to write."""

    row: Example
    """The question with its gold answer."""
    previous: str
    """The text to move away from."""
    level: int
    """How far from the gold answer it should be, from 1."""
    attempt: int = 0
    """How often it was asked for already, in vain."""


class Writer(Protocol):
    """Writes one answer for each request."""

    name: str

    def write(self, requests: Sequence[Request], *, seed: int) -> list[str]:
        """Return one text for each request; the same for the same seed."""
        ...


class PromptedWriter:
    """A `Generator` asked with a prompt.

    Args:
        generator: Who answers prompts.
        prompt: With fields ``{question}``, ``{previous}`` and ``{answer}`` (`recipes.written`).
    """

    def __init__(self, generator: Generator, prompt: str) -> None:
        self.generator, self.prompt, self.name = generator, prompt, generator.name

    def write(self, requests: Sequence[Request], *, seed: int) -> list[str]:
        """Ask for all of them at once; only the first paragraph of what comes back counts."""
        prompts = [
            self.prompt.format(
                question=request.row.conversation[-1].content,
                answer=request.row.answer,
                previous=request.previous,
            )
            for request in requests
        ]
        return [_answer_alone(text) for text in self.generator.write(prompts, seed=seed)]


class RuleWriter:
    """The rules of the generated world: each level, and each attempt in vain, goes one step further."""

    name = WorldRules.name

    def write(self, requests: Sequence[Request], *, seed: int) -> list[str]:
        """Apply the rules; see `eval.data.world_rules`."""
        rules = WorldRules()
        return [rules.wrong_answer(r.row, r.level - 1 + r.attempt, seed, r.attempt) for r in requests]


class ModelGenerator:
    """A language model that answers prompts, as a `Generator`.

    Args:
        lm: Any model; one that follows instructions writes better answers.
        max_new_tokens: Length of an answer.
        temperature: Of the sampling.
    """

    def __init__(self, lm: LanguageModel, *, max_new_tokens: int = 100, temperature: float = 1.0) -> None:
        self.lm, self.name = lm, lm.name
        self.max_new_tokens, self.temperature = max_new_tokens, temperature

    def write(self, prompts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Sample one answer for each prompt."""
        options = GenerationOptions(
            max_new_tokens=self.max_new_tokens, do_sample=True, temperature=self.temperature, seed=seed
        )
        return [answer.text for answer in self.lm.generate(prompts, options)]


def choose_writer(
    name: str, rows: Sequence[Example], lm: LanguageModel | None, *, prompt: str, kind: str
) -> Writer:
    """Return the writer that a setting names.

    Args:
        name: ``auto``, ``rules``, ``self``, or a model's name or folder.
        rows: The forget rows.
        lm: The model that is to unlearn; ``None`` where it is not at hand and not asked for.
        prompt: What a model is asked.
        kind: ``negatives`` or ``alternates``.

    Raises:
        DataError: If the rules are to write and do not know the rows; says how to make the file.
    """
    if name in ("auto", "rules"):
        if WorldRules.know(rows):
            return RuleWriter()
        raise DataError(
            f"The forget rows have no {kind}, and the rules that write some know the generated world alone. Let a "
            f"model that follows instructions write them: `unlearn negatives --kind {kind} --generator MODEL --output "
            f"{kind}.jsonl` with the same --benchmark, look at them, and give --set {kind}_file={kind}.jsonl; or set "
            "generator to a model's name, or to self."
        )
    if name == "self" and lm is not None:
        return PromptedWriter(ModelGenerator(lm), prompt)
    from eval.models import load

    return PromptedWriter(ModelGenerator(load(name, device="auto" if lm is None else str(lm.device))), prompt)


def _answer_alone(text: str) -> str:
    """Return the first paragraph without the label or the quotation marks that models like to put around it."""
    paragraph = text.strip().split("\n\n")[0].split("\n")[0].strip()
    for label in ("Answer:", "Wrong answer:", "New answer:"):
        paragraph = paragraph.removeprefix(label).strip()
    if len(paragraph) > 1 and paragraph[0] == paragraph[-1] == '"':
        paragraph = paragraph[1:-1].strip()
    return paragraph
