from __future__ import annotations

import torch

from eval.models.muon import MuonAdamW, _orthogonalised


def test_singular_values_come_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(_orthogonalised(torch.randn(shape, generator=generator)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_the_sign_of_a_scalar_matrix_is_kept():
    update = _orthogonalised(torch.diag(torch.tensor([2.0, -3.0]))[None])[0]
    assert update[0, 0] > 0.5
    assert update[1, 1] < -0.5
    assert update[0, 1].abs() < 1e-5


def test_only_hidden_matrices_are_orthogonalised(tiny_lm):
    optimizer = MuonAdamW(tiny_lm.model, lr=1e-3, matrix_lr=0.02)
    matrices = {id(p) for group in optimizer.param_groups if group["is_matrix"] for p in group["params"]}
    expected = {id(p) for name, p in tiny_lm.model.named_parameters() if "proj" in name}
    assert matrices == expected
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(tiny_lm.model.parameters())
    )


def test_adamw_half_takes_the_steps_of_torch():
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(5, generator=generator)

    class Vector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(start.clone())

    ours, theirs = Vector(), Vector()
    left = MuonAdamW(ours, lr=0.1, matrix_lr=0.02)
    right = torch.optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(5):
        gradient = torch.randn(5, generator=generator)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        left.step()
        right.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
