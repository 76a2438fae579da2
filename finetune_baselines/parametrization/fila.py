"""FILA: an adapter that starts on the directions the forget set needs most, with the rest of each matrix frozen."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eval.artifacts import write_text
from eval.data.pairing import RandomPairs
from eval.errors import ConfigError, DataError
from eval.models.language_model import LanguageModel
from eval.types import Example, Progress, UnlearningData
from finetune_baselines.fisher import fisher_information
from finetune_baselines.parametrization.base import (
    TunedModel,
    clone,
    is_quantized,
    matched_targets,
    seeded,
    wrapped,
)
from finetune_baselines.parametrization.lora import ADAPTER, Lora, adapted_layers, adapter_shape, put_adapter
from finetune_baselines.parametrization.whole import Full

__all__ = ["Fila", "factorize", "merged", "row_weights"]

EPSILON = 1e-5
"""Added to retain information and to row weights, as published."""
RELATIVE_EPSILON = 0.01
"""With ``fila_eps`` ``relative``: in place of it, this share of a matrix's mean retain information."""
TINY_ROW = 1e-4
"""Rows that weigh less than this share of the heaviest would be rounding errors divided by almost nothing."""
OVERSAMPLING, POWER_ITERATIONS = 8, 4
"""Of the randomised decomposition."""
_START_A, _START_B = "fila_start_A", "fila_start_B"
START_TOLERANCE = 0.01
"""Largest difference between the start and the model, as a share of a matrix's largest weight."""
_CARD = """# A residual and its adapter

`base/` is NOT the original model and of no use alone: it lacks the directions that `adapter/` started from.
Load both: `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "adapter")`.
"""


@dataclass(frozen=True, kw_only=True)
class Fila(Lora):
    r"""LoRA with Fisher-weighted initialisation (LoKU, arXiv:2408.06621, section 3.3).

    For each target ``W`` (out x in), with the Fisher information of forget and retain answers:
    ``F_rel = F_f / (F_r + eps)``, ``w_i = sqrt(sum_j F_rel[i, j])``; ``A`` and ``B`` are the factors of the rank-r
    approximation that minimises ``|| diag(w) (W - s B A) ||_F`` with ``s = alpha / rank``, and ``W - s B A`` is frozen.
    The start equals the model, but switching the adapter off does not: after training the change is kept as an
    ordinary adapter of rank ``2 r`` on the untouched weights, ``[B, -B_0] [A; A_0]``, which is the same exactly.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    name = "fila"
    starts_at_base = False
    fila_eps: Literal["paper", "relative"] = "paper"
    """What keeps the division by retain information finite: 1e-5 (often far above it, so that it hardly matters), or
    a share of its mean in each matrix."""
    fila_export: Literal["adapter", "merged", "residual"] = "adapter"
    """What is saved: the adapter of rank ``2 r``, a complete model, or the residual weights and the rank-r adapter."""
    fisher_batch_size: int = 2
    """Rows of a batch in the Fisher pass."""

    def __post_init__(self) -> None:
        if self.fila_eps not in ("paper", "relative"):
            raise ConfigError(f"Unknown fila_eps {self.fila_eps!r}; use paper or relative.")
        if self.fila_export not in ("adapter", "merged", "residual"):
            raise ConfigError(f"Unknown fila_export {self.fila_export!r}; use adapter, merged or residual.")
        if self.fisher_batch_size < 1:
            raise ConfigError(f"fisher_batch_size is {self.fisher_batch_size}; it must be above 0.")

    @property
    def artifact(self) -> str:
        """``adapter``, ``model`` or ``residual``, by ``fila_export``."""
        return "model" if self.fila_export == "merged" else self.fila_export

    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Measure, factorize, and put the adapter on a copy of the target matrices that lacks it.

        Raises:
            ConfigError: If a target is quantized, shared with another layer, or smaller than the rank, or the start
                does not equal the model.
            DataError: If there are no forget or no retain rows.
        """
        from peft import LoraConfig

        if data is None or not data.forget or not data.retain:
            raise DataError(
                "Parametrization fila weighs what the forget rows need against what the retain rows need, so it "
                "needs both; use parametrization lora where there are no retain rows."
            )
        layers = matched_targets(lm.model, self.settings.targets)
        _check_targets(lm.model, layers, self.settings.rank)
        forget, retain = (
            fisher_information(
                lm,
                lm.encode(rows, [row.answer or "" for row in rows]),
                layers,
                batch_size=self.fisher_batch_size,
                what=f"Fisher information of the {side} rows",
                progress=progress,
            )
            for side, rows in (("forget", data.forget), ("retain", _partners(data, seed)))
        )
        names = {f"{name}.weight" for name in layers}
        model = clone(lm.model, lambda name: name in names)
        weights = {name: model.get_submodule(name).weight for name in layers}
        tuned = put_adapter(
            lm, model, LoraConfig(r=self.settings.rank, **adapter_shape(model, self.settings)), seed=seed
        )
        with seeded(lm, seed), torch.no_grad():
            for name, weight in weights.items():
                layer = tuned.model.base_model.model.get_submodule(name)
                rows = row_weights(
                    _out_by_in(layer, forget[name]), _out_by_in(layer, retain[name]), eps=self.fila_eps
                )
                down, up = _factors(layer)
                start = factorize(
                    _out_by_in(layer, weight.float()),
                    rows.to(weight.device),
                    rank=self.settings.rank,
                    scale=self.settings.alpha / self.settings.rank,
                )
                down.copy_(start[0])
                up.copy_(start[1])
                layer.register_buffer(_START_A, down.detach().clone(), persistent=False)
                layer.register_buffer(_START_B, up.detach().clone(), persistent=False)
                _subtract(name, weight, layer.get_delta_weight(ADAPTER))
        return tuned

    def finish(self, lm: LanguageModel, tuned: LanguageModel) -> LanguageModel:
        """Return the change as an ordinary adapter of twice the rank on the weights of ``lm``."""
        shape = replace(
            self.settings, rank=2 * self.settings.rank, alpha=2 * self.settings.alpha, dropout=0.0
        )
        whole = Lora(settings=shape).prepare(lm, seed=0)
        with torch.no_grad():
            for layer, trained in zip(_layers(whole), _layers(tuned), strict=True):
                down, up = _factors(layer)
                new_down, new_up = _factors(trained)
                down.copy_(torch.cat([new_down, getattr(trained, _START_A)]))
                up.copy_(torch.cat([new_up, -getattr(trained, _START_B)], dim=1))
        return TunedModel.of(whole, num_trained=whole.trainable_parameters // 2)

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write the form that ``fila_export`` names."""
        if self.fila_export == "merged":
            Full().save(merged(lm), folder)
        elif self.fila_export == "residual":
            residual = self.residual(lm)
            Lora.save(self, residual, folder / "adapter")
            base = residual.model.unload()
            wrapped(lm, base).save(folder / "base")
            write_text(folder / "README.md", _CARD)
        else:
            super().save(lm, folder)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Load whichever form `save` wrote."""
        if (folder / "adapter_config.json").is_file():
            return super().load(target, folder)
        if (folder / "config.json").is_file():
            return Full().load(target, folder)
        return super().load(Full().load(target, folder / "base"), folder / "adapter")

    def residual(self, lm: LanguageModel) -> LanguageModel:
        """Split what `finish` returned into residual weights and the adapter of rank r.

        Args:
            lm: With the adapter of rank ``2 r``.

        Returns:
            The same function as a PEFT model whose base is the residual: useless alone.
        """
        from peft import LoraConfig

        with lm.edit_disabled():
            bare = copy.deepcopy(lm.model).unload()
        names = {f"{name}.weight" for name in matched_targets(bare, self.settings.targets)}
        model = clone(bare, lambda name: name in names)
        config = LoraConfig(r=self.settings.rank, **adapter_shape(model, self.settings))
        split = put_adapter(lm, model, config, seed=0)
        rank = self.settings.rank
        with torch.no_grad():
            for layer, both in zip(_layers(split), _layers(lm), strict=True):
                down, up = _factors(layer)
                all_down, all_up = _factors(both)
                down.copy_(all_down[rank:])
                up.copy_(-all_up[:, rank:])
                layer.get_base_layer().weight.sub_(layer.get_delta_weight(ADAPTER))
                down.copy_(all_down[:rank])
                up.copy_(all_up[:, :rank])
        split.model.eval()
        return split


def merged(lm: LanguageModel) -> LanguageModel:
    """Return a model of its own whose weights hold what the adapter of ``lm`` adds."""
    return wrapped(lm, copy.deepcopy(lm.model).merge_and_unload())


def row_weights(forget: Tensor, retain: Tensor, *, eps: Literal["paper", "relative"] = "paper") -> Tensor:
    r"""Return how much more the forget set needs each output row of a matrix than the retain set.

    ``w_i = sqrt(sum_j F_f[i, j] / (F_r[i, j] + eps))`` (arXiv:2408.06621, section 3.3).

    Args:
        forget: Fisher information on the forget answers, shape ``(out, in)``.
        retain: The same on retain answers, shape ``(out, in)``.
        eps: 1e-5, or ``relative``: 1 % of the mean of ``retain``.

    Returns:
        Shape ``(out,)``; all 1 where the forget set needs no weight of the matrix.
    """
    floor = EPSILON
    if eps == "relative":
        floor = RELATIVE_EPSILON * float(retain.mean()) or EPSILON
    weights = (forget / (retain + floor)).sum(1).sqrt()
    return weights if bool(weights.any()) else torch.ones_like(weights)


def factorize(weight: Tensor, rows: Tensor, *, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    r"""Return ``A`` and ``B`` that minimise ``|| diag(w) (W - s B A) ||_F`` at a rank.

    With the truncated ``U S V^T`` of ``diag(w) W``: ``A = (V sqrt(S / s))^T`` and ``B = diag(1 / (w + 1e-5)) U
    sqrt(S / s)``. Rows of ``B`` whose weight is tiny are 0: they would be rounding errors, amplified.

    Args:
        weight: ``W``, fp32, shape ``(out, in)``.
        rows: ``w``, >= 0, shape ``(out,)``.
        rank: At most the smaller side of ``W``.
        scale: ``s``, what the product is multiplied by.

    Returns:
        ``A`` of shape ``(rank, in)`` and ``B`` of shape ``(out, rank)``.
    """
    spare = min(rank + OVERSAMPLING, *weight.shape)
    left, values, right = torch.svd_lowrank(rows[:, None] * weight, q=spare, niter=POWER_ITERATIONS)
    root = (values[:rank] / scale).sqrt()
    inverse = torch.where(rows > TINY_ROW * rows.max(), 1 / (rows + EPSILON), 0)
    return (right[:, :rank] * root).T, inverse[:, None] * left[:, :rank] * root


def _check_targets(model: Any, layers: list[str], rank: int) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in layers:
        weight = model.get_submodule(name).weight
        if is_quantized(weight):
            raise ConfigError(
                f"Parametrization fila splits weights, and {name} is quantized; load the model without "
                "--quantization, or use parametrization lora or qlora."
            )
        others = [other for other in owners[id(weight)] if other != f"{name}.weight"]
        if others:
            raise ConfigError(
                f"Parametrization fila cannot split {name}: {others[0]} is the same matrix; leave it out of targets."
            )
        if rank > min(weight.shape):
            raise ConfigError(
                f"Rank {rank} is above the smaller side of {name} ({min(weight.shape)}), which fila would factorize; "
                "choose a smaller rank or other targets."
            )


def _partners(data: UnlearningData, seed: int) -> list[Example]:
    """Return as many retain rows as forget rows: the first partners a run would meet."""
    pairs = RandomPairs(num_forget=len(data.forget), num_retain=len(data.retain), epochs=1, seed=seed)
    return [data.retain[i] for i in sorted({i for pair in pairs for i in pair.retain})]


def _subtract(name: str, weight: Tensor, delta: Tensor) -> None:
    """Turn a matrix into its residual, and check that residual and adapter give it back.

    Raises:
        ConfigError: If they do not, to `START_TOLERANCE`.
    """
    original = weight.float().clone()
    weight.copy_(original - delta.float())
    error = float((weight.float() + delta.float() - original).abs().max() / original.abs().max())
    if not error <= START_TOLERANCE:
        raise ConfigError(
            f"The fila start of {name} differs from the model by {100 * error:.1f} % of its largest weight, because "
            f"{weight.dtype} cannot hold the residual; load the model in float32, or set fila_eps to relative."
        )


def _layers(lm: LanguageModel) -> list[Any]:
    return list(adapted_layers(lm.model).values())


def _factors(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Return ``A`` (r x in) and ``B`` (out x r) of an adapted layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def _out_by_in(layer: Any, tensor: Tensor) -> Tensor:
    """Return a matrix of the layer as ``(out, in)``: some layers store the transpose."""
    return tensor.T if layer.fan_in_fan_out else tensor
