"""What every parametrization is, and how a model is copied so that only what trains costs memory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Progress, UnlearningData

if TYPE_CHECKING:
    from eval.report import Section
    from finetune_baselines.training import Objective

__all__ = ["Parametrization", "TunedModel", "clone", "is_quantized", "matched_targets", "seeded", "wrapped"]


class Parametrization(ABC):
    """A way to make part of a model trainable, and to save and load that part.

    Subclasses are frozen dataclasses; their fields, but for ``settings``, are what a user may set.
    """

    name: ClassVar[str]
    """As a user types it."""
    starts_at_base: ClassVar[bool] = False
    """Whether `LanguageModel.edit_disabled` gives the start model back, so that no frozen copy is needed."""

    @property
    @abstractmethod
    def artifact(self) -> str:
        """Folder name of what `save` writes."""

    @abstractmethod
    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Return a model to train: a copy where it trains, sharing tensors with ``lm`` where it does not.

        Args:
            lm: The model to start from; it stays usable and unchanged.
            seed: Of whatever is drawn.
            data: The run's rows, for those that start from what the data says about the weights.
            progress: Told what takes long.
        """

    def objective(self, tuned: LanguageModel, objective: Objective) -> Objective:
        """Return what to minimise: ``objective``, with what the parametrization itself adds."""
        return objective

    def finish(self, lm: LanguageModel, tuned: LanguageModel) -> LanguageModel:
        """Return the trained model as it is used from now on."""
        return tuned

    def sections(self, tuned: LanguageModel, method: str) -> list[Section]:
        """Return what a report should say about the trained model's shape."""
        return []

    @abstractmethod
    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write what was trained as safetensors and JSON."""

    @abstractmethod
    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Return ``target`` with what `save` wrote; ``target`` stays as it is."""

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the settings of its own that a user may change, with their defaults."""
        return {f.name: f.default for f in fields(cls) if f.name != "settings"}  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """Return its own settings, for reports and artifacts."""
        return {name: getattr(self, name) for name in self.options()}


class TunedModel(LanguageModel):
    """A model whose form does not show how many parameters were trained to make it."""

    num_trained: int = 0

    @classmethod
    def of(cls, lm: LanguageModel, *, num_trained: int) -> TunedModel:
        """Return ``lm`` with the number of parameters that were trained."""
        tuned = cls(
            lm.model, lm.tokenizer, template=lm.template, name=lm.name, kind=lm.kind, ou_compat=lm.ou_compat
        )
        tuned.num_trained = num_trained
        return tuned

    @property
    def trainable_parameters(self) -> int:
        """Those that were trained."""
        return self.num_trained


def wrapped(lm: LanguageModel, model: Any) -> LanguageModel:
    """Return ``model`` with everything else of ``lm``."""
    return LanguageModel(
        model, lm.tokenizer, template=lm.template, name=lm.name, kind="weights", ou_compat=lm.ou_compat
    )


def clone(model: Any, trains: Callable[[str], bool]) -> Any:
    """Copy a model's modules; parameters that train are copied too, all others share the original's storage.

    A PEFT model is copied whole and its adapter merged: the result's weights are what the caller's model computes.

    Args:
        model: A Hugging Face or PEFT model.
        trains: Given a parameter's name, says whether it is to be trained.

    Raises:
        ConfigError: If weights are quantized that would have to be trained.
    """
    if hasattr(model, "peft_config"):
        model = copy.deepcopy(model).merge_and_unload()
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=True):
        if trains(name):
            if is_quantized(parameter):
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
    copied = copy.deepcopy(model, memo)
    copied.eval()
    return copied


def is_quantized(parameter: nn.Parameter) -> bool:
    """Say whether a parameter is stored as codes rather than as numbers."""
    return not parameter.is_floating_point() or hasattr(parameter, "quant_state")


def matched_targets(model: Any, targets: str) -> list[str]:
    """Return the full names of the linear layers that ``targets`` means (`LoraSettings.targets`).

    Raises:
        ConfigError: If a name matches no linear layer; the sentence names those there are.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    if targets == "all-linear":
        return linear
    if targets == "mlp":
        inside = [n for n in linear if "mlp" in n.split(".")]
        if not inside:
            raise ConfigError(
                f"{type(model).__name__} has no part called mlp; set targets to all-linear or to names."
            )
        return inside
    asked = [name.strip() for name in targets.split(",") if name.strip()]
    found = {name: [n for n in linear if n == name or n.endswith(f".{name}")] for name in asked}
    missing = [name for name, layers in found.items() if not layers]
    if missing or not asked:
        names = ", ".join(sorted({n.rpartition(".")[2] for n in linear}))
        raise ConfigError(
            f"LoRA targets {', '.join(missing) or repr(targets)} match no linear layer of {type(model).__name__}; "
            f"use all-linear or some of: {names}."
        )
    chosen = {layer for layers in found.values() for layer in layers}
    return [n for n in linear if n in chosen]


@contextmanager
def seeded(lm: LanguageModel, seed: int) -> Iterator[None]:
    """Draw random numbers from ``seed`` inside the block, leaving the process's generators as they were."""
    devices = [lm.device.index or 0] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
