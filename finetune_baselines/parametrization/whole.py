"""Parametrizations that train the model's own weights: all of them, or those of the last blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.errors import ConfigError
from eval.models.blocks import decoder_blocks
from eval.models.language_model import LanguageModel
from eval.types import Progress, UnlearningData
from finetune_baselines.parametrization.base import Parametrization, clone, wrapped

__all__ = ["Full", "LastBlocks"]


@dataclass(frozen=True, kw_only=True)
class Full(Parametrization):
    """All parameters: costs a copy of the weights, their gradients and two optimizer states each."""

    name = "full"

    @property
    def artifact(self) -> str:
        """``model``."""
        return "model"

    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Copy the model; see `Parametrization.prepare`."""
        return wrapped(lm, clone(lm.model, lambda name: True))

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write a complete model folder with its tokenizer."""
        lm.save(folder)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Load the model folder at the target's precision and device."""
        from eval.models.loading import load

        dtype = next(target.model.parameters()).dtype
        loaded = load(folder, dtype=dtype, device=str(target.device), template=target.template)
        return wrapped(target, loaded.model)


@dataclass(frozen=True, kw_only=True)
class LastBlocks(Full):
    """The last decoder blocks (embeddings, output embedding and final norm frozen), as in arXiv:2503.02443."""

    name = "last-k"
    blocks: int = 8
    """How many blocks are trained."""

    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Copy only the trained blocks.

        Raises:
            ConfigError: If the model has fewer blocks.
        """
        path, blocks = decoder_blocks(lm.model)
        total = len(blocks)
        if not 1 <= self.blocks <= total:
            raise ConfigError(
                f"last-k with blocks={self.blocks} asked for, but this model has {total} blocks."
            )
        prefixes = tuple(f"{path}.{i}." for i in range(total - self.blocks, total))
        return wrapped(lm, clone(lm.model, lambda name: name.startswith(prefixes)))
