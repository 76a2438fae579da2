"""From examples to token ids: the answer mask, the padding and the pad-token rules, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from eval.errors import DataError
from eval.types import Batch, Example, Message

if TYPE_CHECKING:
    from eval.models.templates import Template

__all__ = ["Encoded", "collate", "encode", "encode_prompts", "pad_left", "pad_token_id"]


@dataclass(frozen=True)
class Encoded:
    """One (example, answer) pair as token ids."""

    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """The answer with its end-of-sequence or end-of-turn token."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


def pad_token_id(tokenizer: Any) -> int:
    """Return the id to pad with: the pad token, else eos, else 0.

    Padding is hidden by length-based masks, never by comparing ids, so an eos that serves as pad token
    stays visible wherever it is real.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0


def encode_prompts(
    tokenizer: Any, template: Template, prompts: Sequence[tuple[Message, ...]]
) -> list[tuple[int, ...]]:
    """Return the token ids of each rendered conversation."""
    if not prompts:
        return []
    texts = [template.render(messages) for messages in prompts]
    return [
        tuple(ids) for ids in tokenizer(texts, add_special_tokens=template.add_special_tokens)["input_ids"]
    ]


def encode(
    tokenizer: Any, template: Template, examples: Sequence[Example], answers: Sequence[str]
) -> list[Encoded]:
    """Tokenise each example's prompt with the answer beside it in ``answers``.

    The prompt's tokens are the same whatever the answer: the whole text is tokenised at once where that keeps
    the prompt's tokens as a prefix, and prompt and answer apart where a merge would cross the boundary.

    Raises:
        DataError: If an answer has no token at all.
    """
    conversations = [example.conversation for example in examples]
    distinct = list(dict.fromkeys(conversations))
    prompt_ids = dict(zip(distinct, encode_prompts(tokenizer, template, distinct), strict=True))
    rendered = {messages: template.render(messages) for messages in distinct}
    completions = [template.completion(m, a) for m, a in zip(conversations, answers, strict=True)]
    if not completions:
        return []
    full = tokenizer(
        [rendered[m] + c for m, c in zip(conversations, completions, strict=True)],
        add_special_tokens=template.add_special_tokens,
    )["input_ids"]
    eos = (
        (int(tokenizer.eos_token_id),) if template.appends_eos and tokenizer.eos_token_id is not None else ()
    )
    out: list[Encoded] = []
    for example, messages, completion, ids in zip(examples, conversations, completions, full, strict=True):
        prompt = prompt_ids[messages]
        if tuple(ids[: len(prompt)]) == prompt:
            answer = tuple(ids[len(prompt) :])
        else:
            answer = tuple(tokenizer(completion, add_special_tokens=False)["input_ids"])
        if template.add_special_tokens and eos and answer[-1:] == eos:
            answer = answer[:-1]
        if not answer:
            raise DataError(f"Example {example.id!r} has an empty answer; remove it or give it one.")
        out.append(Encoded(messages, prompt, answer + eos))
    return out


def collate(rows: Sequence[Encoded], pad_token_id: int, *, ou_compat: bool = False) -> Batch:
    """Pad encoded rows on the right into one batch.

    Args:
        rows: At least one row.
        pad_token_id: What to fill with.
        ou_compat: Mask every token equal to the pad token, real ones included, as the published
            OpenUnlearning numbers did on models whose pad token is their eos token.
    """
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100, dtype=torch.long)
    groups: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(rows):
        ids = torch.tensor(row.prompt_ids + row.answer_ids, dtype=torch.long)
        input_ids[i, : len(ids)] = ids
        attention_mask[i, : len(ids)] = 1
        labels[i, len(row.prompt_ids) : len(ids)] = ids[len(row.prompt_ids) :]
        groups.setdefault(row.prompt_ids, len(groups))
    if ou_compat:
        attention_mask = attention_mask * (input_ids != pad_token_id)
    return Batch(
        messages=tuple(row.messages for row in rows),
        input_ids=input_ids,
        attention_mask=attention_mask,
        prompt_end=torch.tensor([len(row.prompt_ids) for row in rows]),
        labels=labels,
        prompt_group=torch.tensor([groups[row.prompt_ids] for row in rows]),
    )


def pad_left(
    rows: Sequence[Sequence[int]], pad_token_id: int, *, ou_compat: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad prompts on the left for generation; return input ids and attention mask, shape ``(B, T)`` each."""
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        input_ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        attention_mask[i, width - len(row) :] = 1
    if ou_compat:
        attention_mask = attention_mask * (input_ids != pad_token_id)
    return input_ids, attention_mask
