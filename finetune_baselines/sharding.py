"""Weights spread over the processes while they train (FSDP2), gathered where something asks for whole ones."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eval.errors import ConfigError
from eval.models.blocks import decoder_blocks
from eval.processes import is_main, join, num_processes
from finetune_baselines.arguments import FSDP
from finetune_baselines.parametrization.base import is_quantized

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel
    from finetune_baselines.training import Objective

__all__ = ["Shards", "check_shardable", "is_sharded", "optimizer_shards", "sharded", "whole", "whole_state"]


def is_sharded() -> bool:
    """Whether the launcher asked for sharded weights (``--use_fsdp --fsdp_version 2``) on several processes."""
    return os.environ.get(FSDP, "false").lower() in ("1", "true") and num_processes() > 1


def check_shardable(lm: LanguageModel, objective: Objective, trainable: nn.Module | None) -> None:
    """Refuse what reads or moves whole weights in the middle of a step.

    Raises:
        ConfigError: If the run does so.
    """
    perturbation = getattr(objective, "perturbation", None)
    reasons = {
        "an intervention on the model": trainable is not None,
        "quantized weights (qlora)": any(is_quantized(parameter) for parameter in lm.model.parameters()),
        "an inner perturbation (rho above 0)": perturbation is not None and perturbation.rho > 0,
        "an objective that looks at gradients (adalora)": hasattr(objective, "after_update"),
    }
    for what, is_so in reasons.items():
        if is_so:
            raise ConfigError(
                f"Training with sharded weights (FSDP) does not go together with {what}; launch with plain data "
                "parallelism (accelerate launch --multi_gpu), or change that setting."
            )


class Shards:
    """A model and a twin of it whose parameters are spread over the processes; the twin trains in its stead.

    Each decoder block is one group, gathered for its own forward and backward; the rest is another. What trains
    rests on the CPU in the model itself, frozen tensors stay where they are (others may share them).

    Args:
        lm: Its ``model`` is the twin from now on, until `release`.
    """

    def __init__(self, lm: LanguageModel) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.lm, self.model, self.device = lm, lm.model, lm.device
        self.twin = _twin(lm.model)
        mesh = init_device_mesh(lm.device.type, (num_processes(),))
        for block in decoder_blocks(self.twin)[1]:
            fully_shard(block, mesh=mesh)
        fully_shard(self.twin, mesh=mesh)
        spread = dict(self.twin.named_parameters())
        self._pairs = [(p, spread[name]) for name, p in self.model.named_parameters() if p.requires_grad]
        self._rest()

    def gather(self) -> None:
        """Bring the present weights into the model; every process must call it."""
        with torch.no_grad():
            for parameter, shard in self._pairs:
                parameter.copy_(whole(shard))

    def scatter(self) -> None:
        """Go on from the weights that are in the model."""
        with torch.no_grad():
            for parameter, shard in self._pairs:
                shard.copy_(_like(parameter, shard))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Let ``lm`` be the whole model, with the present weights and on its device, inside the block."""
        self.gather()
        try:
            self.release()
            yield
        finally:
            self._rest()

    def release(self) -> None:
        """Give ``lm`` the whole model back, with the weights last gathered."""
        for parameter, _ in self._pairs:
            parameter.data = parameter.data.to(self.device)
        self.lm.model = self.model

    def _rest(self) -> None:
        for parameter, _ in self._pairs:
            parameter.data = parameter.data.cpu()
        self.lm.model = self.twin


@contextmanager
def sharded(lm: LanguageModel) -> Iterator[Shards | None]:
    """Spread the weights of ``lm`` inside the block where the launcher asked for it; afterwards they are whole.

    The launcher's flag is hidden meanwhile, so that nobody else spreads them a second time.
    """
    asked = is_sharded()
    flag = os.environ.pop(FSDP, None)
    shards = None
    try:
        if asked:
            join(lm.device)
            shards = Shards(lm)
        yield shards
    finally:
        if flag is not None:
            os.environ[FSDP] = flag
        if shards is not None:
            shards.release()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; every process must call it."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def whole_state(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's state as that of one process, on the CPU and on the main process only (others: empty)."""
    state: dict[str, Any] = optimizer.state_dict()
    gathered: dict[int, dict[str, Any]] = {}
    for i, values in state["state"].items():
        for name, value in values.items():
            full = whole(value).cpu() if isinstance(value, Tensor) else value
            if is_main():
                gathered.setdefault(i, {})[name] = full
    return {**state, "state": gathered}


def optimizer_shards(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `whole_state` gave, cut to the shards of this process's parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values = {
        i: {name: _like(v, parameters[i]) if v.shape == parameters[i].shape else v for name, v in own.items()}
        for i, own in state["state"].items()
    }
    return {**state, "state": values}


def _like(value: Tensor, shard: Any) -> Tensor:
    """Return this process's part of a whole tensor that all processes hold."""
    from torch.distributed.tensor import distribute_tensor

    value = value.detach().to(shard.device)
    return distribute_tensor(value, shard.device_mesh, shard.placements, src_data_rank=None)


def _twin(model: Any) -> Any:
    """Return a copy of the model's modules on the same storage."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer
    return copy.deepcopy(model, memo)
