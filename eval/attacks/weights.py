"""Attacks on the weights without training: rounding, switching an edit off, averaging with the start model."""

from __future__ import annotations

import torch

from eval.attacks.base import Attack, AttackData, AttackDoesNotApplyError, Change
from eval.models.language_model import Generation, GenerationOptions, LanguageModel
from eval.models.quantize import Bits, rounded
from eval.types import Progress, Prompt

__all__ = ["ATTACKS", "merged", "switched_off"]


def _quantized(bits: Bits) -> Change:
    def change(lm: LanguageModel, data: AttackData, seed: int, progress: Progress | None) -> LanguageModel:
        return lm.with_base(rounded(lm.copied(), bits))

    return change


class _Disabled(LanguageModel):
    """A model whose edit, adapter or filter is off."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__(
            lm.model,
            lm.tokenizer,
            template=lm.template,
            name=f"{lm.name}, switched off",
            ou_compat=lm.ou_compat,
        )
        self.edited = lm

    def generate(
        self,
        prompts: list[Prompt],  # type: ignore[override]
        options: GenerationOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Generation]:
        with self.edited.edit_disabled():
            return self.edited.generate(prompts, options, progress=progress)


def switched_off(lm: LanguageModel, data: AttackData, seed: int, progress: Progress | None) -> LanguageModel:
    """Return the model without its adapter, edit or filter.

    Raises:
        AttackDoesNotApplyError: If there is none: trained weights cannot be switched off.
    """
    if lm.kind not in ("edit", "suppression") and not hasattr(lm.model, "disable_adapter"):
        raise AttackDoesNotApplyError("nothing is attached that could be switched off")
    return _Disabled(lm)


def merged(lm: LanguageModel, data: AttackData, seed: int, progress: Progress | None) -> LanguageModel:
    """Return the model with its weights halfway to those of the start model.

    Raises:
        AttackDoesNotApplyError: If the weights are the start model's already, or it is not known.
    """
    if lm.kind != "weights":
        raise AttackDoesNotApplyError("the weights are those of the model before unlearning")
    if data.start is None:
        raise AttackDoesNotApplyError("the model before unlearning is not known")
    base, start = lm.copied(), data.start.copied()
    other = dict(start.model.named_parameters())
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name not in other or other[name].shape != parameter.shape:
                raise AttackDoesNotApplyError("the start model has other parameters")
            parameter.lerp_(other[name].to(parameter), 0.5)
    base.forget_identity()
    return lm.with_base(base)


ATTACKS = (
    Attack(
        name="quantize-int8",
        family="quantization",
        summary="Weights rounded to 8 bits (the largest of a row in 127 steps).",
        change=_quantized("int8"),
    ),
    Attack(
        name="quantize-nf4",
        family="quantization",
        summary="Weights rounded to the 16 NormalFloat levels, blocks of 64.",
        change=_quantized("nf4"),
    ),
    Attack(
        name="edit-off",
        family="edit",
        summary="Whoever has the weights switches the adapter, the edit or the filter off.",
        change=switched_off,
    ),
    Attack(
        name="merge-start",
        family="edit",
        summary="Weights averaged with those from before unlearning (an older release).",
        change=merged,
    ),
)
"""Attacks of this family."""
