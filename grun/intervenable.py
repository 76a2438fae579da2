"""Training and analysis through pyvene: an `IntervenableModel` that leaves the base model as it found it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from grun.intervention import GatedLoReFT, pv

__all__ = ["Intervenable", "intervening"]


class Intervenable(pv.IntervenableModel):  # type: ignore[misc]
    """pyvene's model, mended where release 0.1.8 reaches further than its own hooks.

    It removes only the hooks it set (upstream pops every forward hook of the model, Hugging Face's capture of
    hidden states and ours included), and forgets the gate logits of earlier calls also in `generate`.
    One forward at a time: it keeps state.
    """

    def __init__(self, config: Any, model: Any) -> None:
        self.__dict__["_own_hooks"] = []
        super().__init__(config, model)

    def _intervention_setter(self, *args: Any, **kwargs: Any) -> Any:
        handlers = super()._intervention_setter(*args, **kwargs)
        self._own_hooks.extend(handlers.handlers)
        return handlers

    def _remove_forward_hooks(self) -> None:
        for handle in self._own_hooks:
            handle.remove()
        self._own_hooks.clear()

    def generate(self, base: Any, **kwargs: Any) -> Any:
        """Generate with the edit at the given prompt positions; see pyvene. Needs the key-value cache."""
        self.full_intervention_outputs.clear()
        return super().generate(base, **kwargs)

    def run(self, input_ids: Tensor, attention_mask: Tensor, columns: Tensor) -> tuple[Any, Tensor]:
        """Run one forward with one edited column in each row.

        Args:
            input_ids: Shape ``(B, T)``.
            attention_mask: Shape ``(B, T)``.
            columns: Edited column of each row, shape ``(B,)``.

        Returns:
            The model's output, and gate logits of shape ``(L, B)``, both with gradients.
        """
        _, out = self(
            {"input_ids": input_ids, "attention_mask": attention_mask},
            unit_locations=at(columns, len(self.interventions)),
            use_cache=False,
        )
        logits = [output.latent[:, 0, 0] for output in self.full_intervention_outputs]
        if len(logits) != len(self.interventions):
            raise RuntimeError(f"pyvene ran {len(logits)} of {len(self.interventions)} interventions.")
        return out, torch.stack([logit.to(logits[0].device) for logit in logits])


def at(columns: Tensor, num_layers: int) -> dict[str, Any]:
    """Return pyvene's nested unit locations for one column of each row, in every edited layer."""
    # Never -1 (gather fails) and never a bare int (it would switch pyvene's use_fast on for good).
    return {"sources->base": (None, [[[int(column)] for column in columns.tolist()]] * num_layers)}


@contextmanager
def intervening(model: Any, blocks_path: str, edits: Mapping[int, GatedLoReFT]) -> Iterator[Intervenable]:
    """Wrap ``model`` in pyvene inside the block; which parameters train and every mode come back afterwards.

    Args:
        model: The base model; owned exclusively while the block runs.
        blocks_path: Module path of its decoder blocks.
        edits: Block index to intervention.
    """
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training = [module for module in model.modules() if module.training]
    root = logging.getLogger()
    level = root.level
    session: Intervenable | None = None
    try:
        root.setLevel(max(level, logging.ERROR))  # pyvene warns on the root logger
        representations = [
            {
                "layer": layer,
                "component": f"{blocks_path}[{layer}].output",
                "low_rank_dimension": edit.weight.shape[0],
                "intervention": edit,
            }
            for layer, edit in sorted(edits.items())
        ]
        session = Intervenable(pv.IntervenableConfig(representations=representations), model)
        root.setLevel(level)
        for module in training:  # wrapping switched the whole model to eval
            module.training = True
        yield session
    finally:
        root.setLevel(level)
        if session is not None:
            session._remove_forward_hooks()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
        for module in model.modules():
            module.training = False
        for module in training:
            module.training = True
