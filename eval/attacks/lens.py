"""Logit lens: is the forgotten fact still among the first guesses of some block (arXiv:2402.16835 lists the probe)?

Each block's output goes through the final norm and the output embedding as if it were the last one. The answer is
given up to a key span, and the span's first token is looked for among the five likeliest of each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from eval.attacks.base import Attack
from eval.data.key_spans import derive_key_spans
from eval.models.blocks import decoder_blocks
from eval.models.forward import evaluating
from eval.models.language_model import LanguageModel
from eval.types import Example

__all__ = ["ATTACKS", "TOP", "lens_hits"]

TOP = 5
"""Guesses of each block that count."""
BATCH = 32


def lens_hits(lm: LanguageModel, examples: Sequence[Example]) -> list[float | None]:
    """Return for each question 1 if any block ranks the first token of a key span among its `TOP`, else 0.

    A question whose answer contains no key span has no value.
    """
    blocks, norm = _anatomy(lm.model)
    head = lm.model.get_output_embeddings()
    rows = [(i, *cut) for i, e in enumerate(examples) if (cut := _cut(e)) is not None]
    hits: list[float | None] = [None] * len(examples)
    with evaluating(lm.model):
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            encoded = lm.encode([examples[i] for i, _, _ in chunk], [answer for _, _, answer in chunk])
            before = lm.encode([examples[i] for i, _, _ in chunk], [prefix for _, prefix, _ in chunk])
            batch = lm.collate(encoded).to(lm.device)
            places = [
                len(row.prompt_ids) + _common(row.answer_ids, short.answer_ids)
                for row, short in zip(encoded, before, strict=True)
            ]
            seen = _hidden(lm, batch, blocks, torch.tensor(places) - 1)
            wanted = batch.input_ids[torch.arange(len(chunk)), torch.tensor(places, device=lm.device)]
            best = torch.zeros(len(chunk), dtype=torch.bool, device=lm.device)
            for hidden in seen:
                logits = head(norm(hidden.to(head.weight.device))).to(lm.device)
                best |= (logits.topk(TOP).indices == wanted[:, None]).any(1)
            for (i, _, _), hit in zip(chunk, best.tolist(), strict=True):
                hits[i] = float(hit)
    return hits


def _cut(example: Example) -> tuple[str, str] | None:
    """Return the answer up to its first key span, and the whole answer."""
    answer = example.answer or ""
    places = [answer.find(span) for span in example.key_spans or derive_key_spans(example)]
    found = [place for place in places if place >= 0]
    return (answer[: min(found)].rstrip(), answer) if found else None


def _common(whole: Sequence[int], part: Sequence[int]) -> int:
    """Return how many tokens the two share at their beginning, leaving at least one of ``whole``."""
    shared = 0
    while shared < min(len(whole) - 1, len(part)) and whole[shared] == part[shared]:
        shared += 1
    return shared


def _hidden(lm: LanguageModel, batch: Any, blocks: nn.ModuleList, columns: Tensor) -> list[Tensor]:
    """Return each block's output at one column of each row, shape ``(B, D)``."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        seen.append(hidden[torch.arange(len(hidden)), columns.to(hidden.device)].detach())

    with ExitStack() as stack:
        for block in blocks:  # registered last: sees the output after an edit's own hook
            stack.callback(block.register_forward_hook(keep).remove)
        stack.enter_context(lm.forward_context(batch.prompt_end))
        lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return seen


def _anatomy(model: Any) -> tuple[nn.ModuleList, nn.Module]:
    """Return the decoder blocks and the norm that stands behind them."""
    path, blocks = decoder_blocks(model)
    parent, _, name = path.rpartition(".")
    modules = dict(model.get_submodule(parent).named_children())
    later = list(modules)[list(modules).index(name) + 1 :]
    norm = next((modules[n] for n in later if "norm" in n.lower() or n.startswith("ln")), nn.Identity())
    return blocks, norm


ATTACKS = (
    Attack(
        name="logit-lens",
        family="probing",
        summary=f"Looks for the forgotten word among the {TOP} first guesses of every block.",
        probe=lens_hits,
    ),
)
"""Attacks of this family."""
