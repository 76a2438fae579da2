"""Prompt templates: a tokenizer's own chat template, a named one, or a user's format string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eval.errors import ConfigError
from eval.types import Message

__all__ = [
    "ChatTemplate",
    "FormatTemplate",
    "PrefilledTemplate",
    "RawTemplate",
    "Template",
    "resolve_template",
    "template_for",
]

DATE = "10 Apr 2025"
"""Pinned: chat templates that insert today's date would move every number every day."""

_FORMATS = {
    "qa": "Question: {question}\nAnswer:",
    "raw": "{question}",
}


class Template(Protocol):
    """How a conversation becomes the text before an answer, and how an answer ends."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    @property
    def add_special_tokens(self) -> bool:
        """Whether the tokenizer should add its own beginning-of-sequence token to the rendered prompt."""
        ...

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt text up to the point where the answer begins."""
        ...

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """Return the text that follows the prompt: the answer and, if it is text, the end of the turn."""
        ...

    @property
    def appends_eos(self) -> bool:
        """Whether `completion` lacks the end-of-sequence token, so that the encoder must append its id."""
        ...


@dataclass(frozen=True)
class FormatTemplate:
    """A format string with ``{question}``; earlier turns are rendered by the same format, a blank line apart."""

    name: str
    format: str
    add_special_tokens: bool = True

    @property
    def appends_eos(self) -> bool:
        """A plain format has no end-of-turn text."""
        return True

    @property
    def _gap(self) -> str:
        return "" if self.format[-1:].isspace() or self.format.endswith("}") else " "

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt text up to the point where the answer begins."""
        parts: list[str] = []
        for role, content in messages:
            if role == "user":
                parts.append(self.format.replace("{question}", content))
            elif role == "assistant":
                parts.append(f"{self._gap}{content}\n\n")
            else:
                parts.append(f"{content}\n\n")
        return "".join(parts)

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """Return the answer, set off by a space where the format does not end in white space."""
        return f"{self._gap}{answer}"


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template, with the date pinned."""

    name: str
    tokenizer: Any
    system: str | None = None
    add_special_tokens: bool = False

    @property
    def appends_eos(self) -> bool:
        """A chat template ends the turn itself."""
        return False

    def _chat(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        chat = [{"role": role, "content": content} for role, content in messages]
        if self.system is not None and not any(turn["role"] == "system" for turn in chat):
            chat.insert(0, {"role": "system", "content": self.system})
        return chat

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt text up to the point where the answer begins."""
        return str(
            self.tokenizer.apply_chat_template(
                self._chat(messages), tokenize=False, add_generation_prompt=True, date_string=DATE
            )
        )

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """Return the answer and its end-of-turn marker, without what a template may add after it."""
        chat = [*self._chat(messages), {"role": "assistant", "content": answer}]
        full = str(self.tokenizer.apply_chat_template(chat, tokenize=False, date_string=DATE))
        prompt = self.render(messages)
        if not full.startswith(prompt):
            return answer + str(self.tokenizer.eos_token or "")
        rest = full[len(prompt) :]
        markers = [str(token) for token in self.tokenizer.all_special_tokens]
        ends = [rest.index(marker) + len(marker) for marker in markers if marker in rest]
        return rest[: min(ends)] if ends else rest + str(self.tokenizer.eos_token or "")


@dataclass(frozen=True)
class RawTemplate:
    """No template at all: for prompts that a benchmark or a corpus gives as raw text."""

    name: str
    appends_eos: bool = False
    has_gap: bool = True
    add_special_tokens: bool = True

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text itself."""
        return messages[-1].content

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """Return the answer, set off by a space where neither side has white space (unless ``has_gap`` is off)."""
        text = messages[-1].content
        needs_gap = self.has_gap and text and not text[-1].isspace() and not answer[:1].isspace()
        return f" {answer}" if needs_gap else answer


@dataclass(frozen=True)
class PrefilledTemplate:
    """A template around a conversation that ends in an answer already begun (a ``prefill`` turn): the model goes on."""

    inner: Template

    @property
    def name(self) -> str:
        """The inner template's."""
        return self.inner.name

    @property
    def add_special_tokens(self) -> bool:
        """The inner template's."""
        return self.inner.add_special_tokens

    @property
    def appends_eos(self) -> bool:
        """The inner template's."""
        return self.inner.appends_eos

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt and the beginning of the answer, said once where the template itself ends in it."""
        prompt, begun = self.inner.render(messages[:-1]), messages[-1].content
        if prompt.rstrip().endswith(begun.rstrip()):
            return prompt
        gap = "" if prompt[-1:].isspace() or self.inner.completion(messages[:-1], "x")[0] == "x" else " "
        return f"{prompt}{gap}{begun}"

    def completion(self, messages: Sequence[Message], answer: str) -> str:
        """Return the rest of the answer, set off by a space, and the end of the turn."""
        rest = self.inner.completion(messages[:-1], answer)
        return rest if rest[:1].isspace() or messages[-1].content[-1:].isspace() else f" {rest}"


_RAW = {
    "text": RawTemplate("text"),
    "verbatim": RawTemplate("verbatim", has_gap=False),
    "prompt": RawTemplate("prompt", appends_eos=True),
}


def template_for(template: Template, messages: Sequence[Message]) -> Template:
    """Return the template of one conversation: ``template``, unless it is raw text or ends in a prefill (`Message`)."""
    if messages[-1].role == "prefill":
        return PrefilledTemplate(template_for(template, messages[:-1]))
    return _RAW.get(messages[-1].role, template)


def resolve_template(template: str | Template, tokenizer: Any) -> Template:
    r"""Turn ``--template``'s value into a template.

    Args:
        template: ``auto`` (the chat template where the tokenizer has one, else ``qa``), ``chat``, ``ou-llama3``
            (chat with OpenUnlearning's system prompt), ``qa``, ``raw``, or a format that contains
            ``{question}``, in which a written ``\n`` means a newline. A `Template` is returned as it is.
        tokenizer: The model's tokenizer.

    Raises:
        ConfigError: If the name is unknown or the tokenizer has no chat template.
    """
    if not isinstance(template, str):
        return template
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if template == "auto":
        template = "chat" if has_chat else "qa"
    if template in ("chat", "ou-llama3"):
        if not has_chat:
            raise ConfigError(
                f"Template {template!r} needs a tokenizer with a chat template, and this one has none; "
                "use 'qa', 'raw' or a format such as 'Question: {question}\\nAnswer:'."
            )
        system = "You are a helpful assistant." if template == "ou-llama3" else None
        return ChatTemplate(template, tokenizer, system)
    if template in _FORMATS:
        return FormatTemplate(template, _FORMATS[template])
    if "{question}" in template:
        return FormatTemplate("format", template.replace("\\n", "\n"))
    raise ConfigError(
        f"Unknown template {template!r}; use auto, chat, ou-llama3, {', '.join(_FORMATS)}, "
        "or a format that contains {question}."
    )
