"""The gate's losses and its pooling, with their hand derivations."""

import math

import pytest
import torch

from grun.gate import LinearGate, pooled_logits
from grun.losses import edit_weight, gate_losses


def test_gate_losses_are_the_two_halves_of_cross_entropy():
    """At logit 0 each row costs ln 2; -log sigmoid(2) = ln(1 + e^-2); a shut gate at logit -2 costs the same."""
    logits = torch.tensor([[2.0, 0.0, -2.0]])
    opened, shut = gate_losses(logits, 2)
    assert opened.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log(2)) / 2)
    assert shut.item() == pytest.approx(math.log1p(math.exp(-2)))


def test_many_negatives_do_not_outweigh_a_positive():
    logits = torch.zeros(2, 9)
    opened, shut = gate_losses(logits, 1)
    assert opened.item() == pytest.approx(math.log(2))
    assert shut.item() == pytest.approx(math.log(2))


def test_a_side_without_rows_costs_nothing():
    opened, shut = gate_losses(torch.zeros(1, 3), 3)
    assert shut.item() == 0.0
    assert opened.item() > 0


def test_a_wrongly_open_gate_still_learns():
    """The derivative of -log(1 - sigmoid(z)) is sigmoid(z): 1, not 0, where a bf16 sigmoid has rounded to 1."""
    logits = torch.tensor([[20.0]], requires_grad=True)
    gate_losses(logits, 0)[1].backward()
    assert logits.grad.item() == pytest.approx(1.0)


def test_edit_weight_ramps_up():
    assert [edit_weight(step, 4) for step in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert edit_weight(1, 0) == 1.0


def test_pooling_is_the_logit_itself_for_one_token_and_at_least_the_maximum():
    logits = torch.tensor([1.0, -3.0, 2.0], requires_grad=True)
    pooled = pooled_logits(logits, torch.tensor([0, 1, 1]), 3)
    assert pooled[0].item() == pytest.approx(1.0)
    assert pooled[1].item() == pytest.approx(math.log(math.exp(-3) + math.exp(2)))
    assert pooled[2].item() == -math.inf
    pooled[:2].sum().backward()
    assert logits.grad[0].item() == pytest.approx(1.0)
    assert logits.grad[1:].sum().item() == pytest.approx(1.0)


def test_the_gate_does_not_see_the_scale_of_the_hidden_state():
    gate = LinearGate(8)
    with torch.no_grad():
        gate.weight.copy_(torch.arange(8.0)[None])
    hidden = torch.linspace(-1, 2, 8)[None]
    torch.testing.assert_close(gate(hidden), gate(1000 * hidden))
