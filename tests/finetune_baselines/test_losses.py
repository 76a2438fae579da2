"""Each test carries the derivation of the number it expects."""

import math

import pytest
import torch

from finetune_baselines.losses import cross_entropy_loss, gradient_ascent_loss, kl_loss, npo_loss

BETAS = (0.05, 0.1, 0.5, 2.0)


def _logps(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(*shape, generator=generator, dtype=torch.float64)


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _grad(loss, values: torch.Tensor) -> torch.Tensor:
    values = values.clone().requires_grad_()
    loss(values).backward()
    return values.grad


# --- cross-entropy and gradient ascent --------------------------------------------------------------------------


def test_cross_entropy_is_the_token_mean():
    """-(ln .5 + ln .25) / 2 = (ln 2 + 2 ln 2) / 2 = 1.5 ln 2."""
    assert cross_entropy_loss(torch.tensor([0.5, 0.25]).log()).item() == pytest.approx(1.5 * math.log(2))


def test_gradient_ascent_has_the_opposite_gradient_of_cross_entropy():
    logps = _logps(9)
    assert torch.equal(_grad(gradient_ascent_loss, logps), -_grad(cross_entropy_loss, logps))


def test_gradient_ascent_has_no_lower_bound_and_the_clamp_is_one():
    logps = torch.tensor([-1.0, -1e6])
    assert gradient_ascent_loss(logps).item() < -4e5
    assert gradient_ascent_loss(logps, max_loss=5.0).item() == pytest.approx(-3.0)  # -(1 + 5) / 2
    grad = _grad(lambda x: gradient_ascent_loss(x, max_loss=5.0), logps)
    assert grad.tolist() == [0.5, 0.0]  # the token beyond the limit is left alone, the other weighs as before


# --- NPO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
def test_npo_at_the_reference_is_two_over_beta_ln_two(beta):
    """log sigmoid(0) = -ln 2."""
    logps = _logps(5)
    assert npo_loss(logps, logps, beta=beta).item() == pytest.approx(2 / beta * math.log(2))


@pytest.mark.parametrize("beta", BETAS)
def test_npo_is_two_over_beta_log_one_plus_ratio_to_the_beta(beta):
    """-log sigmoid(-x) = log(1 + e^x), with e^x = (pi / pi_ref)^beta."""
    policy, reference = _logps(6, seed=1), _logps(6, seed=2)
    ratio = (policy - reference).exp() ** beta
    assert npo_loss(policy, reference, beta=beta).item() == pytest.approx(
        (2 / beta * (1 + ratio).log().mean()).item()
    )


@pytest.mark.parametrize("beta", BETAS)
def test_npo_gradient_is_gradient_ascents_times_an_adaptive_weight(beta):
    """W = 2 pi^b / (pi^b + pi_ref^b), in (0, 2), 1 at the reference, 0 as the answer becomes impossible."""
    policy, reference = _logps(4, seed=1), _logps(4, seed=2)
    policy[1], policy[2], policy[3] = reference[1], reference[2] - 300, reference[3] + 300
    grad = _grad(lambda x: npo_loss(x, reference, beta=beta), policy)
    powered, base = (beta * policy).exp(), (beta * reference).exp()
    weight = 2 * powered / (powered + base)
    assert torch.allclose(grad * 4, weight)  # the gradient of GA on summed log-probs is 1 / B = 1 / 4 a row
    assert grad[1].item() * 4 == pytest.approx(1.0)
    assert grad[2].item() < 1e-6
    assert grad[3].item() * 4 == pytest.approx(2.0)


def test_npo_tends_to_gradient_ascent_as_beta_vanishes():
    """(2/b) log(1 + e^(bD)) = (2/b) ln 2 + D + O(b)."""
    policy, reference = _logps(5, seed=1), _logps(5, seed=2)
    beta = 1e-5
    value = npo_loss(policy, reference, beta=beta).item() - 2 / beta * math.log(2)
    assert value == pytest.approx((policy - reference).mean().item(), abs=1e-4)


def test_npo_is_a_mean_over_rows_whatever_their_order():
    policy, reference = _logps(6, seed=1), _logps(6, seed=2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    whole = npo_loss(policy, reference)
    assert torch.allclose(npo_loss(policy[order], reference[order]), whole)
    halves = npo_loss(policy[:3], reference[:3]) + npo_loss(policy[3:], reference[3:])
    assert torch.allclose(halves / 2, whole)


def test_npo_depends_on_sums_not_means():
    """T1: twice as long an answer of equal tokens has twice the log-ratio, so another loss."""
    token = torch.tensor([-1.0]), torch.tensor([-0.5])
    assert npo_loss(2 * token[0], 2 * token[1]).item() != pytest.approx(npo_loss(*token).item(), rel=1e-4)


def test_npo_never_overflows():
    value = npo_loss(torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]), beta=10.0)
    assert math.isfinite(value.item())
    assert value.item() > 0


# --- KL ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["ref_th", "th_ref"])
def test_kl_at_the_reference_is_zero_with_zero_gradient(direction):
    logits = _logits(4, 7)
    assert kl_loss(logits, logits, direction=direction).item() == pytest.approx(0.0, abs=1e-7)
    assert _grad(lambda x: kl_loss(x, logits, direction=direction), logits).abs().max() < 1e-7


def test_kl_directions_are_what_they_say():
    """P_ref = (.5, .5), P_th = (.75, .25): KL(ref||th) = .5 ln(.5/.75) + .5 ln(.5/.25); T3."""
    reference, trained = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    forward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    backward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_loss(trained, reference).item() == pytest.approx(forward)
    assert kl_loss(trained, reference, direction="th_ref").item() == pytest.approx(backward)
    assert forward != pytest.approx(backward, rel=1e-2)


def test_kl_gradient_on_logits_is_trained_minus_reference():
    """d/dz KL(P_ref || softmax z) = softmax z - P_ref, over N positions."""
    trained, reference = _logits(3, 5, seed=1), _logits(3, 5, seed=2)
    expected = (trained.softmax(-1) - reference.softmax(-1)) / 3
    assert torch.allclose(_grad(lambda x: kl_loss(x, reference), trained), expected, atol=1e-6)


def test_kl_is_never_negative_and_blind_to_a_constant():
    trained, reference = _logits(50, 11, seed=1), _logits(50, 11, seed=2)
    value = kl_loss(trained, reference).item()
    assert value > 0
    assert kl_loss(trained + 7, reference - 3).item() == pytest.approx(value, rel=1e-5)


def test_kl_uses_fp32_for_half_precision_logits():
    """T10: a difference that bf16's log-softmax would lose survives."""
    reference = _logits(2, 4096, seed=3).bfloat16()
    trained = reference.clone()
    trained[:, 0] += 0.5
    exact = kl_loss(trained.double().float(), reference.double().float()).item()
    assert kl_loss(trained, reference).item() == pytest.approx(exact, rel=1e-6)


# --- nothing to average -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda empty: cross_entropy_loss(empty),
        lambda empty: gradient_ascent_loss(empty),
        lambda empty: gradient_ascent_loss(empty, max_loss=3.0),
        lambda empty: npo_loss(empty, torch.zeros(0)),
        lambda empty: kl_loss(empty[:, None].expand(0, 5), torch.zeros(0, 5)),
    ],
)
def test_a_batch_without_rows_gives_an_exact_zero_that_can_be_differentiated(loss):
    empty = torch.zeros(0, requires_grad=True)
    value = loss(empty)
    value.backward()
    assert value.item() == 0.0
    assert empty.grad is not None
