"""Rounding of weights as int8 and nf4 storage do it, on any device: what quantization does to a trained model.

bitsandbytes stores and multiplies in low precision and needs a GPU; here the weights are rounded to the same grids
and kept in their own precision, so the numbers show the rounding alone (activations are not quantized). Like
bitsandbytes, it leaves embeddings, norms and the output embedding as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel

__all__ = ["NF4", "Bits", "round_int8", "round_nf4", "rounded"]

Bits = Literal["int8", "nf4"]
"""The grids there are."""

_NEGATIVE = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004)
_POSITIVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = torch.tensor([*_NEGATIVE, 0.0, *_POSITIVE])
"""The 16 levels of 4-bit NormalFloat (arXiv:2305.14314, appendix E)."""
BLOCK = 64
"""Weights that share one nf4 scale."""


def round_int8(weight: Tensor) -> Tensor:
    """Round each output row to 255 even steps of its largest magnitude, shape ``(out, in)`` (arXiv:2208.07339)."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight / scale).round().mul(scale)


def round_nf4(weight: Tensor) -> Tensor:
    """Round each block of 64 weights, in storage order, to the NF4 levels times its largest magnitude."""
    flat = weight.reshape(-1)
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % BLOCK)]).reshape(-1, BLOCK)
    scale = padded.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    levels = NF4.to(weight)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize((padded / scale).contiguous(), middles)]
    return (nearest * scale).reshape(-1)[: len(flat)].reshape(weight.shape)


def rounded(lm: LanguageModel, bits: Bits) -> LanguageModel:
    """Round the weights of every linear layer but the output embedding, in place.

    Args:
        lm: A model of one's own (`LanguageModel.copied`): its weights change.
        bits: The grid.

    Raises:
        ConfigError: If ``bits`` is unknown, or the weights are quantized already.
    """
    if bits not in ("int8", "nf4"):
        raise ConfigError(f"Unknown quantization {bits!r}; use int8 or nf4.")
    from transformers.pytorch_utils import Conv1D

    head = lm.model.get_output_embeddings()
    with torch.no_grad():
        for name, module in lm.model.named_modules():
            if module is head or not isinstance(module, (nn.Linear, Conv1D)):
                continue
            weight: Tensor = module.weight
            if not weight.is_floating_point():
                raise ConfigError(f"{name} is quantized already; give the model in its own precision.")
            rows = weight.float().T if isinstance(module, Conv1D) else weight.float()
            new = round_int8(rows) if bits == "int8" else round_nf4(rows)
            weight.copy_(new.T if isinstance(module, Conv1D) else new)
    lm.forget_identity()
    return lm
