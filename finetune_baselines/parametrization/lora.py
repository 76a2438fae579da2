"""Low-rank adapters on shared base weights: LoRA, and QLoRA on a 4-bit copy of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from eval.errors import ArtifactError, ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Progress, UnlearningData
from finetune_baselines.parametrization.base import (
    Parametrization,
    clone,
    is_quantized,
    matched_targets,
    seeded,
    wrapped,
)
from finetune_baselines.recipes.base import LoraSettings

__all__ = ["ADAPTER", "Lora", "QLora", "adapted_layers", "adapter_shape", "put_adapter"]

ADAPTER = "default"
"""What PEFT calls the one adapter."""


@dataclass(frozen=True, kw_only=True)
class Lora(Parametrization):
    """A low-rank adapter (arXiv:2106.09685) that starts at zero; the base weights are shared, not copied.

    The tuned model reads the caller's tensors: changing those in place changes it too.
    """

    name = "lora"
    starts_at_base = True
    settings: LoraSettings = LoraSettings()  # noqa: RUF009

    @property
    def artifact(self) -> str:
        """``adapter``."""
        return "adapter"

    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Put a fresh adapter on a wrapper of the same weights.

        Raises:
            ConfigError: If the targets match no linear layer; the sentence names those there are.
        """
        from peft import LoraConfig

        model = self._base(lm.model)
        config = LoraConfig(r=self.settings.rank, **adapter_shape(model, self.settings))
        return put_adapter(lm, model, config, seed=seed)

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write PEFT's own adapter folder."""
        lm.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Put the saved adapter on a wrapper of the target's weights."""
        from peft import PeftModel

        try:
            tuned = PeftModel.from_pretrained(self._base(target.model), str(folder))
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise ArtifactError(f"The adapter in {folder} does not fit this model ({first}).") from error
        tuned.eval()
        return wrapped(target, tuned)

    def as_json(self) -> dict[str, Any]:
        """Return the adapter's shape and what is set beside it."""
        return asdict(self.settings) | super().as_json()

    def _base(self, model: Any) -> Any:
        """Return what the adapter stands on."""
        return clone(model, lambda name: False)


@dataclass(frozen=True, kw_only=True)
class QLora(Lora):
    """LoRA on a copy of the weights in 4-bit NormalFloat (arXiv:2305.14314); a model that is quantized already stays.

    Only the linear layers are quantized, not the output embedding. The start model that losses compare with is the
    quantized one. Merging rounds to 4 bits again.
    """

    name = "qlora"

    def _base(self, model: Any) -> Any:
        """Return a copy whose linear layers hold 4-bit weights.

        Raises:
            ConfigError: If bitsandbytes is not installed.
        """
        from importlib.util import find_spec

        if find_spec("bitsandbytes") is None:
            raise ConfigError(
                "Parametrization qlora needs bitsandbytes, which is not installed; install it with "
                "`pip install 'unlearn-toolkit[quantization]'`, or use parametrization lora."
            )
        base = super()._base(model)
        if not any(is_quantized(parameter) for parameter in base.parameters()):
            _to_nf4(base)
        return base


def adapter_shape(model: Any, settings: LoraSettings) -> dict[str, Any]:
    """Return the fields that every PEFT configuration of a low-rank adapter shares, targets checked."""
    named = matched_targets(model, settings.targets)
    if settings.targets in ("all-linear", "mlp"):
        targets: str | list[str] = "all-linear" if settings.targets == "all-linear" else named
    else:
        targets = [name.strip() for name in settings.targets.split(",") if name.strip()]
    return {
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
    }


def adapted_layers(model: Any) -> dict[str, Any]:
    """Return the layers that carry an adapter by their name in the base model, in the model's order."""
    return {
        name: module
        for name, module in model.base_model.model.named_modules()
        if hasattr(module, "lora_A") and ADAPTER in module.lora_A
    }


def put_adapter(lm: LanguageModel, model: Any, config: Any, *, seed: int) -> LanguageModel:
    """Return ``lm`` with a fresh adapter on ``model``, its initial values drawn from ``seed``."""
    from peft import get_peft_model

    with seeded(lm, seed):
        return wrapped(lm, get_peft_model(model, config))


def _to_nf4(model: Any) -> None:
    import bitsandbytes as bnb

    for name in matched_targets(model, "all-linear"):
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise ConfigError(f"{name} is a {type(layer).__name__}, which qlora cannot quantize; use lora.")
        new = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        weight = layer.weight.detach()
        new.weight = bnb.nn.Params4bit(weight.clone(), requires_grad=False, quant_type="nf4").to(
            weight.device
        )
        new.bias = layer.bias
        new.support_avx512bf16_for_cpu = False  # that kernel has no gradient
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new.eval())
    model.is_loaded_in_4bit = True
