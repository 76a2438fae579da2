"""Which parameters train: all, the last blocks, or a low-rank adapter; the caller's model is never touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from torch import nn

from eval.errors import ArtifactError, ConfigError, UnknownNameError
from eval.models.language_model import LanguageModel
from finetune_baselines.recipes import LoraSettings

__all__ = ["PARAMETRIZATIONS", "Full", "LastBlocks", "Lora", "Parametrization", "parametrization"]


class Parametrization(Protocol):
    """A way to make part of a model trainable, and to save and load that part."""

    @property
    def name(self) -> str:
        """As a user types it."""
        ...

    @property
    def starts_at_base(self) -> bool:
        """Whether `LanguageModel.edit_disabled` gives the start model back, so that no frozen copy is needed."""
        ...

    @property
    def artifact(self) -> str:
        """Folder name of what `save` writes."""
        ...

    def prepare(self, lm: LanguageModel, *, seed: int) -> LanguageModel:
        """Return a model to train: a copy where it trains, sharing tensors with ``lm`` where it does not."""
        ...

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write what was trained as safetensors and JSON."""
        ...

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Return ``target`` with what `save` wrote; ``target`` stays as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Full:
    """All parameters: costs a copy of the weights, their gradients and two optimizer states each."""

    name: str = "full"
    starts_at_base: bool = False
    artifact: str = "model"

    def prepare(self, lm: LanguageModel, *, seed: int) -> LanguageModel:
        """Copy the model; see `Parametrization.prepare`."""
        return _wrapped(lm, _clone(lm.model, lambda name: True))

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write a complete model folder with its tokenizer."""
        lm.save(folder)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Load the model folder at the target's precision and device."""
        from eval.models.loading import load

        dtype = next(target.model.parameters()).dtype
        loaded = load(folder, dtype=dtype, device=str(target.device), template=target.template)
        return _wrapped(target, loaded.model)


@dataclass(frozen=True, kw_only=True)
class LastBlocks(Full):
    """The last decoder blocks (embeddings, output embedding and final norm frozen), as in arXiv:2503.02443."""

    name: str = "last-k"
    blocks: int = 8

    def prepare(self, lm: LanguageModel, *, seed: int) -> LanguageModel:
        """Copy only the trained blocks.

        Raises:
            ConfigError: If the model has fewer blocks.
        """
        path, total = _decoder_blocks(lm.model)
        if not 1 <= self.blocks <= total:
            raise ConfigError(
                f"last-k with blocks={self.blocks} asked for, but this model has {total} blocks."
            )
        prefixes = tuple(f"{path}.{i}." for i in range(total - self.blocks, total))
        return _wrapped(lm, _clone(lm.model, lambda name: name.startswith(prefixes)))


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A low-rank adapter (arXiv:2106.09685) that starts at zero; the base weights are shared, not copied.

    The tuned model reads the caller's tensors: changing those in place changes it too.
    """

    settings: LoraSettings = LoraSettings()  # noqa: RUF009
    name: str = "lora"
    starts_at_base: bool = True
    artifact: str = "adapter"

    def prepare(self, lm: LanguageModel, *, seed: int) -> LanguageModel:
        """Put a fresh adapter on a wrapper of the same weights.

        Raises:
            ConfigError: If the targets match no linear layer; the sentence names those there are.
        """
        from peft import LoraConfig, get_peft_model

        model = _clone(lm.model, lambda name: False)
        settings = self.settings
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=_cuda_devices(lm)))
            torch.manual_seed(seed)
            config = LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=_lora_targets(model, settings.targets),
                task_type="CAUSAL_LM",
            )
            return _wrapped(lm, get_peft_model(model, config))

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write PEFT's own adapter folder."""
        lm.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Put the saved adapter on a wrapper of the target's weights."""
        from peft import PeftModel

        model = _clone(target.model, lambda name: False)
        try:
            tuned = PeftModel.from_pretrained(model, str(folder))
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise ArtifactError(f"The adapter in {folder} does not fit this model ({first}).") from error
        tuned.eval()
        return _wrapped(target, tuned)


PARAMETRIZATIONS: Mapping[str, Callable[..., Parametrization]] = MappingProxyType(
    {"full": Full, "last-k": LastBlocks, "lora": Lora}
)
"""Every parametrization by name."""


def parametrization(
    name: Literal["full", "last-k", "lora"] | str,
    *,
    lora: LoraSettings | None = None,
    blocks: int | None = None,
) -> Parametrization:
    """Build a parametrization by name.

    Args:
        name: A key of `PARAMETRIZATIONS`.
        lora: Shape of the adapter, for ``lora``.
        blocks: Number of trained blocks, for ``last-k``.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in PARAMETRIZATIONS:
        raise UnknownNameError("parametrization", name, PARAMETRIZATIONS)
    if name == "lora":
        return Lora(settings=lora or LoraSettings())
    if name == "last-k":
        return LastBlocks() if blocks is None else LastBlocks(blocks=blocks)
    return Full()


def _wrapped(lm: LanguageModel, model: Any) -> LanguageModel:
    return LanguageModel(
        model, lm.tokenizer, template=lm.template, name=lm.name, kind="weights", ou_compat=lm.ou_compat
    )


def _clone(model: Any, trains: Callable[[str], bool]) -> Any:
    """Copy a model's modules; parameters that train are copied too, all others share the original's storage.

    A PEFT model is copied whole and its adapter merged: the result's weights are what the caller's model computes.

    Raises:
        ConfigError: If the weights are quantized and would have to be trained.
    """
    if hasattr(model, "peft_config"):
        model = copy.deepcopy(model).merge_and_unload()
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=True):
        if trains(name):
            if not parameter.is_floating_point():
                raise ConfigError(
                    f"{name} is quantized and cannot be trained itself; use parametrization lora."
                )
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=True)
        elif type(parameter) is nn.Parameter:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        else:  # a quantized parameter carries state of its own: shared as it is
            memo[id(parameter)] = parameter
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    clone = copy.deepcopy(model, memo)
    clone.eval()
    return clone


def _decoder_blocks(model: Any) -> tuple[str, int]:
    count = int(model.config.get_text_config().num_hidden_layers)
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return path, count
    raise ConfigError(
        f"No list of {count} decoder blocks was found in {type(model).__name__}; use full or lora."
    )


def _lora_targets(model: Any, targets: str) -> str | list[str]:
    """Check the targets against the model's linear layers."""
    from transformers.pytorch_utils import Conv1D

    if targets == "all-linear":
        return targets
    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    if targets == "mlp":
        inside = [n for n in linear if "mlp" in n.split(".")]
        if not inside:
            raise ConfigError(
                f"{type(model).__name__} has no part called mlp; set targets to all-linear or to names."
            )
        return inside
    asked = [name.strip() for name in targets.split(",") if name.strip()]
    missing = [name for name in asked if not any(n == name or n.endswith(f".{name}") for n in linear)]
    if missing or not asked:
        names = ", ".join(sorted({n.rpartition(".")[2] for n in linear}))
        raise ConfigError(
            f"LoRA targets {', '.join(missing) or repr(targets)} match no linear layer of {type(model).__name__}; "
            f"use all-linear or some of: {names}."
        )
    return asked


def _cuda_devices(lm: LanguageModel) -> list[int]:
    return [lm.device.index or 0] if lm.device.type == "cuda" else []
