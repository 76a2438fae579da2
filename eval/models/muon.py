"""Muon for the matrices of a small model, AdamW for the rest, in one optimizer and in fp32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MuonAdamW"]

# Coefficients of the quintic iteration of Muon's reference implementation (Jordan et al., 2024): they push every
# singular value towards 1 without converging to it exactly.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class MuonAdamW(torch.optim.Optimizer):
    """Orthogonalised momentum for hidden matrices, AdamW for embeddings, norms and heads.

    ``torch.optim.Muon`` works matrix by matrix and in bfloat16, which CPUs without native bf16 emulate at a
    hundredth of the speed; here matrices of one shape are stacked and the iteration runs in fp32.

    Args:
        model: Whose trainable parameters are optimised.
        lr: Learning rate of AdamW's parameters.
        matrix_lr: Learning rate of the matrices: about the relative size of one update.
        momentum: Of the matrices (Nesterov).
        betas: Of AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        matrix_lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        head = getattr(model, "get_output_embeddings", lambda: None)()
        embeddings |= {id(p) for p in head.parameters()} if head is not None else set()
        matrices: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        others = []
        for parameter in (p for p in model.parameters() if p.requires_grad):
            if parameter.ndim == 2 and id(parameter) not in embeddings:
                matrices[parameter.shape].append(parameter)
            else:
                others.append(parameter)
        groups: list[dict[str, Any]] = [{"params": others, "lr": lr, "is_matrix": False}]
        groups += [{"params": stack, "lr": matrix_lr, "is_matrix": True} for stack in matrices.values()]
        super().__init__(groups, {"momentum": momentum, "betas": betas, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._matrices if group["is_matrix"] else self._adamw)(params, group)
        return loss

    def _matrices(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = _orthogonalised(torch.stack(gradients).lerp_(torch.stack(buffers), group["momentum"]))
        rows, columns = params[0].shape
        scale = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(list[Tensor](params), list(updates.unbind()), alpha=-scale)

    def _adamw(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for p in params:
            state = self.state[p]
            if "step" not in state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            step = float(state["step"])
            gradient = p.grad
            state["mean"].lerp_(gradient, 1 - beta1)
            state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (state["square"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
            p.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - beta1**step))


def _orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest half-orthogonal matrices, roughly: five Newton-Schulz steps, shape ``(S, R, C)``."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x if wide else x.mT
