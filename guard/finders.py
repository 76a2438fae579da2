"""Who else may say which spans of an answer give it away: a named-entity recogniser, or a language model.

The rules of `guard.phrases` need no model and always run; a finder adds to them, once, when an entry is stored. What it
names must stand in the answer and not in the question: a span that a model invents is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from eval.errors import DataError
from eval.types import Generator

__all__ = ["SpanFinder", "entities", "written"]

SpanFinder: TypeAlias = Callable[[Sequence[tuple[str, str]]], Sequence[Sequence[str]]]
"""Takes (question, answer) pairs and returns the telling spans of each answer."""

PROMPT = (
    "List the words of the answer that give the fact away: names, numbers, dates, titles. One a line, exactly as they "
    "stand in the answer, nothing else.\nQuestion: {question}\nAnswer: {answer}\nWords:"
)
"""What `written` asks."""

_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s*|[\s.;,]+$")


def entities(pipeline: Any, labels: Iterable[str] | None = None) -> SpanFinder:
    """Return a finder of named entities.

    Args:
        pipeline: A spaCy pipeline (``spacy.load(...)``), or anything whose ``pipe(texts)`` yields documents with
            ``ents`` that have ``text`` and ``label_``.
        labels: Kinds of entities to take; ``None``: every kind.
    """
    wanted = None if labels is None else frozenset(labels)

    def find(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
        documents = pipeline.pipe([answer for _, answer in pairs])
        return [[e.text for e in doc.ents if wanted is None or e.label_ in wanted] for doc in documents]

    return find


def written(generator: Generator, prompt: str = PROMPT, *, seed: int = 0) -> SpanFinder:
    """Return a finder that asks a language model.

    Args:
        generator: Who is asked (`eval.types.Generator`).
        prompt: With ``{question}`` and ``{answer}``; the reply is read line by line.
        seed: Given to the generator.

    Raises:
        DataError: If ``prompt`` lacks one of its fields.
    """
    for name in ("{question}", "{answer}"):
        if name not in prompt:
            raise DataError(f"The prompt for telling spans has no {name}; put it where the text belongs.")

    def find(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
        prompts = [prompt.replace("{question}", q).replace("{answer}", a) for q, a in pairs]
        replies = generator.write(prompts, seed=seed)
        return [[_BULLET.sub("", line) for line in reply.splitlines()] for reply in replies]

    return find
