"""AdaLoRA: adapters in singular-value form whose ranks move to the matrices that need them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Progress, UnlearningData
from finetune_baselines.batches import PairBatch
from finetune_baselines.parametrization.lora import ADAPTER, Lora, adapter_shape, put_adapter
from finetune_baselines.training import Objective

if TYPE_CHECKING:
    from eval.report import Section

__all__ = ["AdaLora", "RankAllocation", "orthogonality_loss", "ranks"]

TERM = "orthogonality"
UNKNOWN_STEPS = 2**31
"""Length of a run until its first batch says it."""


@dataclass(frozen=True, kw_only=True)
class AdaLora(Lora):
    r"""Adapters ``(alpha / r_0) B diag(E) A`` whose ranks are reallocated while training (arXiv:2303.10512).

    Every matrix starts with ``r_0 = init_rank_factor * rank`` directions. After each step the directions are ranked
    by the smoothed sensitivity and uncertainty of their weights, and the least important ones of the whole model are
    switched off, so that a cubically falling budget ends at ``rank`` a matrix on average.

    Raises:
        ConfigError: If a value is out of range.
    """

    name = "adalora"
    init_rank_factor: float = 1.5
    """Ranks a matrix starts with, in multiples of the average it ends with (PEFT: 12 and 8)."""
    rank_warmup: float = 0.1
    """Share of the steps before the first direction is switched off."""
    rank_final: float = 0.3
    """Share of the steps at the end in which the ranks stay as they are."""
    rank_interval: int = 1
    """Steps between two reallocations."""
    orthogonality: float = 0.5
    """Weight of the term that keeps the directions orthogonal (`orthogonality_loss`)."""
    reallocate_ranks: bool = True
    """False: the ranks stay as they start and the term is left out, as in the published code of GNM."""

    def __post_init__(self) -> None:
        if self.init_rank_factor < 1 or self.rank_interval < 1 or self.orthogonality < 0:
            raise ConfigError(
                "AdaLoRA needs init_rank_factor >= 1, rank_interval >= 1 and orthogonality >= 0; got "
                f"{self.init_rank_factor}, {self.rank_interval} and {self.orthogonality}."
            )
        if min(self.rank_warmup, self.rank_final) < 0 or self.rank_warmup + self.rank_final >= 1:
            raise ConfigError(
                "rank_warmup and rank_final are shares of the run of 0 or above that leave a part between them; "
                f"got {self.rank_warmup} and {self.rank_final}."
            )

    def prepare(
        self,
        lm: LanguageModel,
        *,
        seed: int,
        data: UnlearningData | None = None,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Put a fresh adapter on a wrapper of the same weights; see `Lora.prepare`."""
        from peft import AdaLoraConfig

        model = self._base(lm.model)
        config = AdaLoraConfig(
            init_r=round(self.init_rank_factor * self.settings.rank),
            target_r=self.settings.rank,
            deltaT=self.rank_interval,
            orth_reg_weight=self.orthogonality,
            total_step=UNKNOWN_STEPS,
            **adapter_shape(model, self.settings),
        )
        return put_adapter(lm, model, config, seed=seed)

    def objective(self, tuned: LanguageModel, objective: Objective) -> Objective:
        """Return ``objective`` with the orthogonality term and the reallocation after each step."""
        return RankAllocation(objective, tuned.model, self) if self.reallocate_ranks else objective

    def sections(self, tuned: LanguageModel, method: str) -> list[Section]:
        """Return the table of final ranks."""
        from finetune_baselines.sections import ranks_section

        return [ranks_section(ranks(tuned.model), tuned.model.peft_config[ADAPTER].init_r, method)]

    def save(self, lm: LanguageModel, folder: Path) -> None:
        """Write PEFT's own adapter folder; directions that are switched off are left out."""
        _record_ranks(lm.model)
        with warnings.catch_warnings():  # a matrix of rank 0 looks to PEFT like a shard that was not gathered
            warnings.filterwarnings("ignore", message=".*tensor.s. have invalid shape")
            super().save(lm, folder)

    def load(self, target: LanguageModel, folder: Path) -> LanguageModel:
        """Put the saved adapter on a wrapper of the target's weights."""
        with warnings.catch_warnings():  # PEFT reads the list of kept directions as if its keys were layers
            warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
            return super().load(target, folder)


class RankAllocation:
    """An objective that also keeps AdaLoRA's directions orthogonal and moves its ranks.

    Args:
        objective: What else is minimised; all that it offers beside its call is passed on.
        model: The PEFT model in training.
        part: The settings.
    """

    def __init__(self, objective: Objective, model: Any, part: AdaLora) -> None:
        self._inner = objective
        self._model = model
        self._part = part
        self._num_steps = 0
        self._last_allocation = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def units(self) -> Mapping[str, str]:
        """The inner objective's, and that of the orthogonality term, which counts once a step."""
        return {**getattr(self._inner, "units", {}), TERM: "all_rows"}

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the inner terms and ``orthogonality``."""
        self._plan(batch.num_steps)
        terms = dict(self._inner(lm, batch, module))
        if self._part.orthogonality:
            terms[TERM] = self._part.orthogonality * orthogonality_loss(self._model)
        return terms

    def after_update(self, step: int) -> None:
        """Update importances and switch directions off; to be called while the gradients are still there.

        Args:
            step: Number of the optimizer step just made, from 0.
        """
        base = self._model.base_model
        if not base.rankallocator.exp_avg_ipt and step + 1 == self._last_allocation:
            base.rankallocator.update_ipt(base.model)  # a run too short to have measured anything before
        base.update_and_allocate(step + 1)

    def tensor_state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beside the weights: the smoothed importances and the kept directions."""
        allocator = self._model.base_model.rankallocator
        pattern = self._model.peft_config[ADAPTER].rank_pattern or {}
        out = {f"{_PATTERN}|{name}": torch.tensor(kept) for name, kept in pattern.items()}
        for kind in _AVERAGES:
            out |= {f"{kind}|{name}": tensor.cpu() for name, tensor in getattr(allocator, kind).items()}
        return out

    def load_tensor_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `tensor_state` returned."""
        allocator = self._model.base_model.rankallocator
        parameters = dict(self._model.base_model.model.named_parameters())
        pattern: dict[str, list[bool]] = {}
        for key, tensor in state.items():
            kind, _, name = key.partition("|")
            if kind == _PATTERN:
                pattern[name] = tensor.tolist()
            else:
                getattr(allocator, kind)[name] = tensor.to(parameters[name].device)
        self._model.peft_config[ADAPTER].rank_pattern = pattern or None

    def _plan(self, num_steps: int) -> None:
        """Lay the budget out over the run, once its length is known."""
        if num_steps == self._num_steps:
            return
        self._num_steps = num_steps
        config = self._model.peft_config[ADAPTER]
        config.total_step = num_steps
        config.tinit = int(self._part.rank_warmup * num_steps)
        config.tfinal = min(int(self._part.rank_final * num_steps), max(0, num_steps - config.tinit - 1))
        self._last_allocation = num_steps - config.tfinal


_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_PATTERN = "rank_pattern"


def orthogonality_loss(model: nn.Module) -> Tensor:
    r"""Return how far the directions are from orthonormal, as PEFT measures it.

    ``mean over all A and B of || A A^T - I ||_F`` (``B^T B`` for B); the paper's equation 4 squares the norms.

    Args:
        model: A model with AdaLoRA layers.

    Returns:
        Scalar, shape ``()``.
    """
    norms = []
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            norms.append(torch.linalg.norm(gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)))
    return torch.stack(norms).mean()


def ranks(model: nn.Module) -> dict[str, int]:
    """Return the rank of each adapted matrix: its directions whose singular value is not 0.

    Args:
        model: A model with AdaLoRA layers, trained or loaded.
    """
    out: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        path, found, _ = name.partition(".lora_E.")
        if found:
            out[path.removeprefix("base_model.model.")] = int(parameter.detach().count_nonzero())
    return out


def _record_ranks(model: Any) -> None:
    """Let PEFT's list of kept directions say what the weights say, also for a run that stopped early."""
    model.peft_config[ADAPTER].rank_pattern = {
        name.removeprefix("base_model.model."): [
            bool(value) for value in parameter.detach().view(-1).tolist()
        ]
        for name, parameter in model.named_parameters()
        if ".lora_E." in name
    }
