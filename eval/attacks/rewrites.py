"""How prompt attacks rewrite a question: each takes an example, a source of chance and a wording.

They return the new prompt, or ``None`` where the example does not lend itself to it (no name in the question, no
title in the answer).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from eval.types import Example, Message

__all__ = [
    "Rewrite",
    "asked_as",
    "buried",
    "choice",
    "cloze",
    "described",
    "frame",
    "keywords",
    "pieces",
    "prefilled",
    "question_of",
    "renamed",
    "respelt",
    "reverse",
    "turns",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SMALL = _words(
    "what which who where when how did does was is are the a an of in to has have can you do for and any by on or be"
)

Rewrite: TypeAlias = Callable[[Example, Random, str], "str | tuple[Message, ...] | None"]
"""Takes an example, a source of chance and a wording; returns the new prompt, or ``None`` where it does not fit."""


def asked_as(example: Example, prompt: str | tuple[Message, ...], name: str) -> Example:
    """Return the example asked another way, its id ``id/name``: a raw prompt stays one, a chat takes its place."""
    if isinstance(prompt, str) and example.conversation[-1].role == "prompt":
        prompt = (Message("prompt", prompt),)
    question, messages = (prompt, None) if isinstance(prompt, str) else (None, prompt)
    return example.replace(id=f"{example.id}/{name}", question=question, messages=messages)


def question_of(example: Example) -> str:
    """Return the single question of an example that has one."""
    assert example.question is not None
    return example.question


def frame(example: Example, rng: Random, wording: str) -> str | None:
    """Put the question, as it is or in capitals, into a wording that may name the person."""
    question = question_of(example)
    if "{name}" in wording and not example.subject:
        return None
    values = {
        "question": question,
        "QUESTION": question.upper(),
        "name": example.subject or "",
        "choices": "",
    }
    return wording.format(**values)


def renamed(change: Callable[[str, Random], str]) -> Rewrite:
    """Change only the name in the question."""

    def rewrite(example: Example, rng: Random, wording: str) -> str | None:
        name = example.subject
        if not name or name not in question_of(example) or " " not in name:
            return None
        return question_of(example).replace(name, change(name, rng))

    return rewrite


def prefilled(example: Example, rng: Random, wording: str) -> tuple[Message, ...]:
    """Ask as it stands and begin the answer."""
    return Message("user", question_of(example)), Message("prefill", wording)


def respelt(change: Callable[[str, Random], str]) -> Rewrite:
    """Change the characters of the whole question."""
    return lambda example, rng, wording: (wording or "{q}").format(q=change(question_of(example), rng))


def choice(example: Example, rng: Random, wording: str) -> str | None:
    """Ask with the right answer among wrong ones: the row's own choices, else its gold and wrong answers, shuffled."""
    options = list(example.choices)
    if not options:
        wrong = example.perturbed_answers[:3] or ("Nobody knows.", "None of these.")
        options = [*wrong, example.answer or ""]
        rng.shuffle(options)
    lettered = " ".join(f"{letter}) {text}" for letter, text in zip("ABCDEF", options, strict=False))
    return wording.format(question=question_of(example), choices=lettered, options=", ".join(options))


def _without_name(text: str, name: str | None, by: str) -> str:
    if not name:
        return text
    for form in (name, name.split()[-1], name.split()[0]):
        text = re.sub(rf"\b{re.escape(form)}\b", by, text)
    return text


def reverse(example: Example, rng: Random, wording: str) -> str | None:
    """Give the fact, ask for the person."""
    if not example.subject or example.subject not in f"{example.question} {example.answer}":
        return None
    fact = _without_name((example.answer or "").split(". ")[0].rstrip("."), example.subject, "this person")
    return wording.format(fact=fact)


def described(example: Example, rng: Random, wording: str) -> str | None:
    """Ask the question about the person without naming them: a detail of the answer stands for the name."""
    titles = re.findall(r"[\"“]([^\"”]{4,60})[\"”]|'([A-Z][^']{4,60})'(?!\w)", example.answer or "")
    flat = [a or b for a, b in titles]
    if not flat or not example.subject:
        return None
    return wording.format(title=rng.choice(flat).strip(",. "))


def cloze(example: Example, rng: Random, wording: str) -> str | None:
    """Leave a gap in the answer's first sentence."""
    spans = [s for s in example.key_spans if s in (example.answer or "")]
    answer = (example.answer or "").split(". ")[0]
    words = answer.split()
    if len(words) < 5:
        return None
    has_span = bool(spans) and spans[0] in answer
    text = answer.replace(spans[0], "____") if has_span else " ".join([*words[:-2], "____"])
    return wording.format(text=text)


def turns(example: Example, rng: Random, wording: str) -> tuple[Message, ...] | None:
    """Name the person in one turn and ask about "they" in a later one."""
    name = example.subject
    if not name or name not in question_of(example):
        return None
    asked = (
        question_of(example).replace(f"{name}'s", "their").replace(f"{name}'", "their").replace(name, "they")
    )
    return _chat(wording.format(name=name, question=asked))


def _chat(script: str) -> tuple[Message, ...]:
    """Read turns parted by ``|``: user, assistant, user, ..."""
    turns = script.split(" | ")
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns))


def keywords(example: Example, rng: Random, wording: str) -> str | None:
    """Keep what one would type into a search box."""
    words = [w for w in re.findall(r"[\w'-]+", question_of(example)) if w.lower() not in _SMALL]
    return " ".join(words).lower() if (example.subject or "?!") in question_of(example) else None


def buried(example: Example, rng: Random, wording: str) -> str:
    """Put the question into the middle of a long text."""
    filler = "Our garden did well this year and the harvest came in early. We sold the spare apples at the market. "
    return filler * rng.randrange(8, 30) + question_of(example) + " " + filler * rng.randrange(4, 20)


def pieces(example: Example, rng: Random, wording: str) -> str | None:
    """Hide the name behind a letter that the prompt defines."""
    name = example.subject
    if not name or name not in question_of(example) or " " not in name:
        return None
    first, _, last = name.partition(" ")
    return wording.format(first=first, last=last, question=question_of(example).replace(name, "X"))
