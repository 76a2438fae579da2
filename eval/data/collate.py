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

__all__ = [
    "MAX_DOCUMENT_TOKENS",
    "Encoded",
    "collate",
    "encode",
    "encode_prompts",
    "pad_left",
    "pad_token_id",
]

MAX_DOCUMENT_TOKENS = 2048
"""Tokens of a document that are read, as MUSE's evaluators do."""


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


def _tokenise(tokenizer: Any, texts: Sequence[str], *, add_special_tokens: bool) -> list[tuple[int, ...]]:
    if not texts:
        return []
    return [tuple(ids) for ids in tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]]


def encode_prompts(
    tokenizer: Any, template: Template, prompts: Sequence[tuple[Message, ...]]
) -> list[tuple[int, ...]]:
    """Return the token ids of each rendered conversation; raw prompts are rendered without the template."""
    from eval.models.templates import template_for

    templates = [template_for(template, messages) for messages in prompts]
    out: list[tuple[int, ...]] = [()] * len(prompts)
    for kind in {id(own): own for own in templates}.values():
        places = [i for i, own in enumerate(templates) if own is kind]
        texts = [kind.render(prompts[i]) for i in places]
        ids = _tokenise(tokenizer, texts, add_special_tokens=kind.add_special_tokens)
        for i, row in zip(places, ids, strict=True):
            out[i] = row
    return out


def encode(
    tokenizer: Any, template: Template, examples: Sequence[Example], answers: Sequence[str]
) -> list[Encoded]:
    """Tokenise each example's prompt with the answer beside it in ``answers``.

    The prompt's tokens are the same whatever the answer: the whole text is tokenised at once where that keeps
    the prompt's tokens as a prefix, and prompt and answer apart where a merge would cross the boundary. Without a
    prompt (a document) the first token, the beginning-of-sequence token where the tokenizer has one, stands for
    it, and the rest is cut to `MAX_DOCUMENT_TOKENS` or what the tokenizer allows.

    Raises:
        DataError: If an answer has no token at all.
    """
    from eval.models.templates import template_for

    conversations = [example.conversation for example in examples]
    distinct = list(dict.fromkeys(conversations))
    prompt_ids = dict(zip(distinct, encode_prompts(tokenizer, template, distinct), strict=True))
    templates = {messages: template_for(template, messages) for messages in distinct}
    rendered = {messages: templates[messages].render(messages) for messages in distinct}
    completions = [templates[m].completion(m, a) for m, a in zip(conversations, answers, strict=True)]
    full = _whole_texts(
        tokenizer,
        [(templates[m], rendered[m] + c) for m, c in zip(conversations, completions, strict=True)],
    )
    out: list[Encoded] = []
    for example, messages, completion, ids in zip(examples, conversations, completions, full, strict=True):
        own, prompt = templates[messages], prompt_ids[messages]
        ends = own.appends_eos and tokenizer.eos_token_id is not None
        eos = (int(tokenizer.eos_token_id),) if ends else ()
        if ids[: len(prompt)] == prompt:
            answer = ids[len(prompt) :]
        else:
            answer = tuple(tokenizer(completion, add_special_tokens=False)["input_ids"])
        if own.add_special_tokens and answer[-1:] == (tokenizer.eos_token_id,):
            answer = answer[:-1]
        if not rendered[messages]:
            limit = min(MAX_DOCUMENT_TOKENS, int(tokenizer.model_max_length))
            prompt, answer = (*prompt, *answer)[:1], (*prompt, *answer)[1:limit]
        if not answer:
            raise DataError(f"Example {example.id!r} has an empty answer; remove it or give it one.")
        out.append(Encoded(messages, prompt, answer + eos))
    return out


def _whole_texts(tokenizer: Any, texts: Sequence[tuple[Template, str]]) -> list[tuple[int, ...]]:
    """Tokenise texts whose templates may differ in whether special tokens are added."""
    out: list[tuple[int, ...]] = [()] * len(texts)
    for adds in (False, True):
        places = [i for i, (own, _) in enumerate(texts) if own.add_special_tokens == adds]
        ids = _tokenise(tokenizer, [texts[i][1] for i in places], add_special_tokens=adds)
        for i, row in zip(places, ids, strict=True):
            out[i] = row
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
