"""Which user turns does a tokenised prompt hold? Recovered by the template's own rule, or not at all.

The rule is read off the template: a conversation of marked turns is rendered, and what stands around the marks is
what surrounds a turn. Where these surroundings hold special tokens, turns are told apart by them. Where they are
plain words ("Question: ... Answer:"), a user could write them too, so everything from the first turn on counts as
the user's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from eval.errors import ConfigError
from eval.models.templates import Template
from eval.types import Message

__all__ = ["TurnRule"]

_MARKS = ("Zqxuone", "Zqxatwo", "Zqxuthree")


@dataclass(frozen=True)
class TurnRule:
    """What surrounds the user's turns in rendered text."""

    opening: str
    """Directly before a user turn."""
    closing: str
    """Between a user turn and the answer to it."""
    special: tuple[str, ...]
    """The tokenizer's special tokens."""
    tells_turns_apart: bool
    """Whether opening and closing hold special tokens, so that several turns can be told apart."""

    @classmethod
    def of(cls, template: Template, tokenizer: Any) -> TurnRule:
        """Read the rule off a template.

        Raises:
            ConfigError: If the template does not show a user turn as it was written.
        """
        special = tuple(str(token) for token in tokenizer.all_special_tokens)
        first, answer, last = _MARKS
        before, found, after = template.render([Message("user", first)]).partition(first)
        if not found:
            raise ConfigError(
                f"The template {template.name!r} does not show the user's words as they were written, so the guard "
                "cannot judge a tokenised prompt; use guard.generate with the messages."
            )
        try:
            turns = [Message("user", first), Message("assistant", answer), Message("user", last)]
            chat = template.render(turns)
        except TemplateError:  # a template for one turn
            chat = ""
        _, _, rest = chat.partition(first)
        to_answer, _, rest = rest.partition(answer)
        to_user = rest.partition(last)[0]
        opening = _from_special(_common_suffix(before, to_user), special)
        closing = _common_prefix(after, to_answer).rstrip()
        if opening and any(token in closing for token in special):
            return cls(opening, closing, special, True)
        return cls(before, after.rstrip(), special, False)

    def user_turns(self, text: str) -> tuple[Message, ...]:
        """Return the user turns of a rendered prompt, the last one last.

        An answer that the prompt begins itself counts as the user's words.

        Raises:
            ConfigError: If the text is not a prompt of this template.
        """
        opening, closing = self.opening.strip(), self.closing.strip()
        begin, end = text.find(opening), text.rfind(closing) if closing else len(text)
        begun = text[end + len(closing) :]
        is_prompt = 0 <= begin <= end - len(opening) and not (opening and opening in begun)
        if not is_prompt:
            raise ConfigError(
                "The prompt does not follow the model's template, so the guard cannot tell what the user said and "
                "refuses it; render it with the template up to where the answer begins, or name the template it "
                "has: guard.wrap(..., template=...)."
            )
        body = text[begin + len(opening) : end]
        parts = [body]
        if self.tells_turns_apart:
            parts = [part.partition(closing)[0] for part in body.split(opening)]
        parts[-1] = f"{parts[-1].strip()} {begun.strip()}"
        return tuple(Message("user", self._without_special(part)) for part in parts)

    def _without_special(self, text: str) -> str:
        for token in self.special:
            text = text.replace(token, " ")
        return text.strip()


def _common_prefix(first: str, second: str) -> str:
    pairs = zip(first, second, strict=False)
    return first[: sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))]


def _common_suffix(first: str, second: str) -> str:
    return _common_prefix(first[::-1], second[::-1])[::-1]


def _from_special(text: str, special: tuple[str, ...]) -> str:
    """The text from its first special token on; empty if it has none."""
    places = [text.find(token) for token in special if token in text]
    return text[min(places) :] if places else ""
