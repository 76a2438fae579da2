"""What every edit on a base model shares: the base's module, the switch back to it, Hugging Face's way to call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from eval.artifacts import fingerprint
from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Message
from grun.hooks import silenced
from grun.hub import HubMixin

__all__ = ["HuggingFaceView", "OnBase"]

_DISABLED: ContextVar[frozenset[int]] = ContextVar("grun_disabled", default=frozenset())


class OnBase(HubMixin, LanguageModel):
    """A `LanguageModel` that stands on another one and shares its `nn.Module`: the base stays plain.

    Args:
        base: What it stands on.
        label: Added to the base's name.
    """

    def __init__(self, base: LanguageModel, label: str) -> None:
        super().__init__(
            base.model,
            base.tokenizer,
            template=base.template,
            name=f"{base.name} + {label}",
            kind="edit",
            ou_compat=base.ou_compat,
        )
        self.base = base

    @property
    def is_disabled(self) -> bool:
        """Whether this thread is inside `edit_disabled`."""
        return id(self) in _DISABLED.get()

    @contextmanager
    def edit_disabled(self) -> Iterator[None]:
        """Give the base back inside the block, bit for bit, in this thread."""
        with silenced(), self.switched_off():
            yield

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Leave this edit alone out of forwards that start inside the block, in this thread."""
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            yield
        finally:
            _DISABLED.reset(token)

    def processors(self, prompts: Sequence[tuple[Message, ...]], prompt_length: int) -> list[Any]:
        """Return the base's logits processors: the edit needs none."""
        return self.base.processors(prompts, prompt_length)

    def trainable_base(self) -> Any:
        """Return the base model's weights, which the edit never touched."""
        return self.base.trainable_base()

    @property
    def identity(self) -> str:
        """The base's: an edit changes no weight."""
        return self.base.identity

    @property
    def state_digest(self) -> str | None:
        """The base's state and the edit's own."""
        state = self.base.state_digest
        return None if state is None else fingerprint([state, self.edit_digest()])

    def edit_digest(self) -> str:
        """Return a SHA-256 over the edit: its shape, settings and every value."""
        raise NotImplementedError

    # --- for users of plain Hugging Face ----------------------------------------------------------

    def editing(self, inputs: Tensor, attention_mask: Tensor | None = None) -> AbstractContextManager[Any]:
        """Edit every call of ``model`` inside the block, in this thread, for prompts given as tensors::

            inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
            with edited.editing(inputs.input_ids, inputs.attention_mask):
                tokens = edited.model.generate(**inputs, num_beams=4)

        Args:
            inputs: The prompts that the call will be given: ids ``(B, T)`` or embeddings ``(B, T, D)``.
            attention_mask: Theirs, shape ``(B, T)``; checked for padding on the wrong side.

        Raises:
            ConfigError: If a row is padded on the right, where its prompt's end cannot be the last column.
        """
        num_rows, width = inputs.shape[:2]
        if attention_mask is not None and not bool(attention_mask[:, -1].all()):
            raise ConfigError(
                "A prompt is padded on the right, so the edit cannot find its last token; "
                'pad on the left: tokenizer(..., padding=True, padding_side="left").'
            )
        return self.forward_context(torch.full((num_rows,), width, device=inputs.device))

    def huggingface(self) -> HuggingFaceView:
        """Return a stand-in for ``model`` whose ``generate`` takes tensors and edits by itself, in any thread."""
        return HuggingFaceView(self)


class HuggingFaceView:
    """A Hugging Face model with its edit on: ``generate(**inputs)`` and ``view(**inputs)`` as always.

    A `ContextVar` is not inherited by new threads; this view activates the edit in the thread that calls it, so
    it also works with ``Thread(target=view.generate, kwargs={..., "streamer": streamer})``. Everything else
    (``config``, ``device``, ...) is the model's.

    Args:
        edited: The edited model.
    """

    def __init__(self, edited: OnBase) -> None:
        self.edited = edited

    def __getattr__(self, name: str) -> Any:
        return getattr(self.edited.model, name)

    def generate(self, inputs: Tensor | None = None, **arguments: Any) -> Any:
        """Generate with the edit at the end of each prompt; takes and returns what the model's ``generate`` does.

        Raises:
            ConfigError: If there is no prompt, or one is padded on the right.
        """
        name = "inputs_embeds" if arguments.get("inputs_embeds") is not None else "input_ids"
        prompts = inputs if inputs is not None else arguments.get(name)
        if prompts is None:
            raise ConfigError("generate was given no prompt; pass input_ids (or inputs_embeds).")
        given = {} if inputs is None else {"inputs": inputs}
        with self.edited.editing(prompts, arguments.get("attention_mask")):
            return self.edited.model.generate(**given, **arguments)

    def __call__(self, input_ids: Tensor, *, prompt_end: Tensor | None = None, **arguments: Any) -> Any:
        """Run one forward.

        Args:
            input_ids: Shape ``(B, T)``.
            prompt_end: Column one past the last prompt token of each row, shape ``(B,)``; ``None``: the rows are
                prompts without answers, so it is their last column.
            **arguments: As the model's ``forward``.
        """
        if prompt_end is None:
            context = self.edited.editing(input_ids, arguments.get("attention_mask"))
        else:
            context = self.edited.forward_context(prompt_end)
        with context:
            return self.edited.model(input_ids=input_ids, **arguments)
