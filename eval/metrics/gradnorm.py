"""Membership by gradient norm (arXiv:2402.17012): what was trained on hardly moves the weights any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from eval.types import Example, Progress

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["gradient_norms", "no_gradients"]

MAX_CPU_PARAMETERS = 2 * 10**9
"""Above it one backward pass a row takes too long on a CPU to be made unasked."""


def no_gradients(lm: LanguageModel) -> str | None:
    """Return why gradients cannot be had from a model, or ``None`` where they can."""
    parameters = list(lm.model.parameters())
    if lm.kind == "suppression":
        return "not comparable: a filter changes no weight, so the gradient is that of the model behind it"
    if any(not p.is_floating_point() for p in parameters):
        return "quantized weights have no gradient"
    if lm.device.type == "cpu" and sum(p.numel() for p in parameters) > MAX_CPU_PARAMETERS:
        return "not measured on a CPU above 2 B parameters: one backward pass for each row"
    return None


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Let every parameter have a gradient inside the block; flags, gradients and modes come back afterwards."""
    parameters = list(model.parameters())
    flags = [p.requires_grad for p in parameters]
    kept = [p.grad for p in parameters]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        for p in parameters:
            p.requires_grad_(True)
            p.grad = None
        with torch.enable_grad():
            yield parameters
    finally:
        for p, flag, grad in zip(parameters, flags, kept, strict=True):
            p.requires_grad_(flag)
            p.grad = grad
        for module in training:
            module.training = True


def gradient_norms(
    lm: LanguageModel,
    examples: Sequence[Example],
    answers: Sequence[str],
    *,
    has_end: bool = True,
    progress: Progress | None = None,
) -> list[float | None]:
    """Return, for each answer, the mean over parameter tensors of the L2 norm of its mean loss's gradient.

    The mean is over tensors, not the norm over all parameters at once, as OpenUnlearning defines it; a tensor that
    two layers share counts once. Dropout is off.

    Args:
        lm: Any model with gradients (`no_gradients`).
        examples: Whose prompts, shape ``(N,)``.
        answers: The texts, shape ``(N,)``.
        has_end: Leave out the last token, the end of the sequence.
        progress: Told the number of rows done.

    Returns:
        One norm for each row; ``None`` where no token is left.
    """
    rows = lm.encode(examples, answers)
    norms: list[float | None] = []
    with _differentiable(lm.model) as parameters:
        for row in rows:
            batch = lm.collate([row]).to(lm.device)
            used = len(row.answer_ids) - int(has_end)
            if used < 1:
                norms.append(None)
                continue
            logits = lm.answer_logits(batch)[:used].float()
            loss = nn.functional.cross_entropy(logits, batch.targets[:used])
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            present = [torch.linalg.vector_norm(g.float()) for g in gradients if g is not None]
            norms.append(float(torch.stack(present).mean()))
            if progress is not None:
                progress("gradient norms", len(norms), len(rows))
    return norms
