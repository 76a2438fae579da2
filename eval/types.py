"""What flows between the packages: examples in, batches to the model, results out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = [
    "Batch",
    "Example",
    "Generator",
    "Kind",
    "Message",
    "MetricResult",
    "Progress",
    "Prompt",
    "UnlearningData",
    "UnlearningMethod",
    "conversation",
]

Kind = Literal["none", "suppression", "edit", "weights"]
"""What a method changes: nothing, the output (a filter), hidden states (an adapter), or weights."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""``progress(what, done, total)``: called often; cheap; never prints to stdout."""


class Message(NamedTuple):
    """One turn of a conversation; ``role`` is ``system``, ``user`` or ``assistant``.

    Three roles stand alone and are rendered without any template: ``text`` (running text that the model continues;
    nothing ends the continuation), ``verbatim`` (likewise, without a space put before what follows) and ``prompt``
    (a raw prompt whose answer ends like any other). ``prefill`` stands last: how the assistant's answer already begins.
    """

    role: str
    content: str

    @property
    def is_prompt(self) -> bool:
        """Whether this turn is what the model is asked: a user's turn, or raw text."""
        return self.role in ("user", "text", "verbatim", "prompt")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One thing a model may know, and every wording of it that a metric needs."""

    id: str
    """Unique within its split."""
    question: str | None = None
    """A single-turn prompt; ``None`` for a chat or a document."""
    messages: tuple[Message, ...] | None = None
    """A chat that ends with a user turn, in place of ``question``."""
    answer: str | None = None
    """The gold answer."""
    text: str | None = None
    """A document (book, news) that is forgotten or kept verbatim."""
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    """Wrong answers of the same form as ``paraphrased_answer`` (TOFU: five, or three)."""
    choices: tuple[str, ...] = ()
    choice: int | None = None
    """Index of the right one of ``choices``."""
    subject: str | None = None
    """Person or topic: for splits by group."""
    key_spans: tuple[str, ...] = ()
    """What would be a leak if it were said; given by the benchmark, else derived by `eval.data.key_spans`."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The prompt as a chat.

        Raises:
            ValueError: If the example is a document and has no prompt.
        """
        if self.messages is not None:
            return self.messages
        if self.question is not None:
            return (Message("user", self.question),)
        raise ValueError(f"Example {self.id!r} has neither a question nor messages, so it has no prompt.")

    def replace(self, **changes: Any) -> Example:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


Prompt: TypeAlias = str | Example | Sequence[Mapping[str, str]] | Sequence[Message]
"""A question, an example, or a chat."""


def conversation(prompt: Prompt) -> tuple[Message, ...]:
    """Return any kind of prompt as a tuple of messages; a bare string is one user turn."""
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    if isinstance(prompt, Example):
        return prompt.conversation
    turns: list[Message] = []
    for turn in prompt:
        if isinstance(turn, Mapping):
            turns.append(Message(turn["role"], turn["content"]))
        else:
            turns.append(Message(*turn))
    return tuple(turns)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What every model call needs, built in one place (`eval.data.collate`) from examples.

    Rows are padded on the right. Position ``t`` of ``labels`` names the token at position ``t`` of
    ``input_ids`` (not shifted: the only shift by one is `eval.models.scoring`'s and ``answer_logits``').
    """

    messages: tuple[tuple[Message, ...], ...]
    """The bare conversation of each row, without template."""
    input_ids: Tensor
    """Token ids, shape ``(B, T)``."""
    attention_mask: Tensor
    """1 at real tokens, shape ``(B, T)``."""
    prompt_end: Tensor
    """One past the last prompt token of each row, shape ``(B,)``; the edit's position is ``prompt_end - 1``."""
    labels: Tensor
    """Answer token ids, -100 elsewhere, shape ``(B, T)``."""
    prompt_group: Tensor | None = None
    """Rows with equal values share one prompt (same tokens), shape ``(B,)``; ``None``: nothing is known."""

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def predicting(self) -> Tensor:
        """Positions whose logits predict an answer token, bool, shape ``(B, T)``: the labels shifted left by one."""
        mask = torch.zeros_like(self.labels, dtype=torch.bool)
        mask[:, :-1] = self.labels[:, 1:] != -100
        return mask

    @property
    def targets(self) -> Tensor:
        """The answer token ids in the row-major order of ``answer_logits``' rows, shape ``(N,)``."""
        shifted = self.labels[:, 1:]
        return shifted[shifted != -100]

    @property
    def rows(self) -> Tensor:
        """For each of the ``N`` answer positions, the row of the batch it belongs to, shape ``(N,)``."""
        return self.predicting.nonzero()[:, 0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with every tensor on ``device``."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("input_ids", "attention_mask", "prompt_end", "labels")
        }
        if self.prompt_group is not None:
            moved["prompt_group"] = self.prompt_group.to(device)
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class UnlearningData:
    """What a method is given to unlearn with. Test wordings and test answers are never in here."""

    forget: tuple[Example, ...]
    retain: tuple[Example, ...]
    background: tuple[Example, ...] = ()
    """Innocent prompts of other kinds (neighbours, world facts) a gate may learn from; never the tested rows."""
    refusals: tuple[str, ...] = ()
    """"I don't know" answers; empty: the package's own list."""
    alternates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Plausible other answers to forget questions, by the example's id (for AltPO)."""
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Gradual negatives of forget answers, nearest to the gold answer first, by the example's id (for GNM)."""


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One aggregate: what ``results`` in `report.json` holds."""

    value: float | None
    ci: tuple[float, float] | None = None
    """95 % bootstrap interval."""
    n: int = 0
    """Number of per-example values behind the aggregate."""
    reason: str | None = None
    """Why ``value`` is null or not comparable."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Statistics that belong to the value, such as the Kolmogorov-Smirnov ``D`` of a p-value."""

    def as_json(self) -> dict[str, Any]:
        """Return the plain form written to `report.json`."""
        out: dict[str, Any] = {"value": self.value, "ci": list(self.ci) if self.ci else None, "n": self.n}
        if self.reason is not None:
            out["reason"] = self.reason
        return out | dict(self.extra)


@runtime_checkable
class UnlearningMethod(Protocol):
    """One way to make a model stop revealing something."""

    name: str
    kind: Kind
    summary: str
    """One line: what it does."""
    paper: str
    """Where it comes from, such as an arXiv number."""

    def settings(self, target: LanguageModel) -> Mapping[str, Any]:
        """Return every setting a run on ``target`` would use, for the report."""
        ...

    def unlearn(
        self,
        target: LanguageModel,
        data: UnlearningData,
        output_dir: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Return a model that no longer reveals ``data.forget``; write its artifact to ``output_dir``.

        ``target`` itself stays usable and unchanged.
        """
        ...

    def load(self, target: LanguageModel, output_dir: Path) -> LanguageModel:
        """Return the model that an earlier `unlearn` of the same target left in ``output_dir``.

        Raises:
            ArtifactError: If the artifact is missing, half-written or of another base model.
        """
        ...


class Generator(Protocol):
    """Who writes new text: a model by prompting, a user's file, rules, or a scripted fake in tests."""

    name: str

    def write(self, prompts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Return one text for each prompt."""
        ...
