"""The loss of an edit: the terms of any fine-tuning recipe, seen through the edit, and the gates' own."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Batch
from finetune_baselines.batches import PairBatch
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import Recipe
from grun.losses import edit_weight, gate_losses
from grun.model import EditedModel
from grun.settings import GrunSettings

__all__ = ["GradientCheck", "GrunObjective"]


class GrunObjective(RecipeObjective):
    r"""L = omega(t) * (L_forget + lambda_r L_retain) + lambda_g L_gate (arXiv:2502.17823, equation 6).

    Args:
        recipe: The forget and retain terms, weighted.
        settings: The gates' weight and what else a step depends on.
        start: The model without the edit, for terms that compare with it.
        seed: Of the run.
        check: Asked before the second step whether every parameter has had a gradient.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: GrunSettings,
        *,
        start: LanguageModel,
        seed: int = 0,
        check: GradientCheck | None = None,
    ) -> None:
        super().__init__(recipe, start=start, seed=seed)
        self.settings = settings
        self.check = check
        self._first_step: int | None = None
        if settings.gate_weight:
            self.units |= {"gate_open": "forget_rows", "gate_shut": "retain_rows"}

    def __call__(self, lm: LanguageModel, batch: PairBatch, module: nn.Module) -> dict[str, Tensor]:
        """Return the weighted terms of one batch, each of shape ``()``.

        Args:
            lm: The edited model.
            batch: Forget rows, then retain rows.
            module: What to run instead of ``lm.model`` (a data-parallel wrapper).

        Raises:
            ConfigError: In the second step, if a parameter had no gradient in the first.
        """
        if not isinstance(lm, EditedModel):
            raise TypeError(f"GRUN trains an EditedModel, not a {type(lm).__name__}.")
        self._check_gradients(batch.step)
        recomputes = any(getattr(part, "gradient_checkpointing", False) for part in lm.model.modules())
        if lm.model.training and not recomputes:  # recomputation happens in training mode only
            lm.model.eval()  # the base is frozen, so its dropout would only be noise in the gate's input
        batch, settings = batch.to(lm.device), self.settings
        num_open = round(settings.open_retain * batch.num_retain)
        num_rows = len(batch.both)
        open_rows = torch.arange(num_rows, device=lm.device) >= num_rows - num_open if num_open else None
        view = _Recording(lm, open_rows)
        answers = self.answers(cast(LanguageModel, view), batch, module)
        scale = edit_weight(batch.step + 1, settings.gate_warmup_steps)
        terms = {name: scale * value for name, value in self.terms(self.recipe.active, answers).items()}
        if settings.gate_weight:
            opened, shut = gate_losses(view.gate_logits, batch.num_forget)
            terms["gate_open"] = settings.gate_weight / 2 * opened
            if batch.num_retain:
                terms["gate_shut"] = settings.gate_weight / 2 * shut
        return terms

    def _check_gradients(self, step: int) -> None:
        if self._first_step is None:
            self._first_step = step
        elif self.check is not None and step > self._first_step:
            self.check.finish()
            self.check = None


class _Recording:
    """The edited model as `RecipeObjective` sees it; its forward leaves the gate logits behind.

    Args:
        lm: The edited model.
        open_rows: See `EditedModel.answer_and_gate_logits`.
    """

    def __init__(self, lm: EditedModel, open_rows: Tensor | None) -> None:
        self._lm, self._open_rows = lm, open_rows
        self.gate_logits = torch.zeros(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def answer_logits(self, batch: Batch, *, module: nn.Module | None = None) -> Tensor:
        """Return what `LanguageModel.answer_logits` does, and keep the gate logits ``(L, B)``."""
        logits, self.gate_logits = self._lm.answer_and_gate_logits(
            batch, module=module, open_rows=self._open_rows
        )
        return logits


class GradientCheck:
    """Finds parameters that an objective never reaches: an edit behind the block a loss reads would stay random.

    Args:
        module: What is trained; its parameters are watched until each has had a gradient.
    """

    def __init__(self, module: nn.Module) -> None:
        self._missing: dict[str, Any] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                handle = parameter.register_hook(self._seen(name))  # type: ignore[no-untyped-call]
                self._missing[name] = handle

    def _seen(self, name: str) -> Any:
        def hook(gradient: Tensor) -> None:
            if name in self._missing and bool(gradient.any()):
                self._missing.pop(name).remove()

        return hook

    def finish(self) -> None:
        """Stop watching.

        Raises:
            ConfigError: If a parameter had no gradient, or only zeros; names them.
        """
        missing = list(self._missing)
        for handle in self._missing.values():
            handle.remove()
        self._missing.clear()
        if missing:
            raise ConfigError(
                f"The loss does not reach {', '.join(missing)}: these parameters had no gradient in the first step. "
                "Edit blocks up to the one the loss reads (rmu_layer), or give the term that trains them a weight."
            )
