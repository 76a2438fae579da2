"""Token-level NPO, SimNPO, WGA and SatImp. Each test carries the derivation of the number it expects."""

import math

import pytest
import torch

from finetune_baselines.losses import (
    gradient_ascent_loss,
    npo_loss,
    satimp_loss,
    simnpo_loss,
    token_npo_loss,
    weighted_token_npo_loss,
    wga_loss,
)

LN2 = math.log(2)


def _logps(count: int = 7, seed: int = 0) -> torch.Tensor:
    return -4 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _grad(loss, values: torch.Tensor) -> torch.Tensor:
    values = values.clone().requires_grad_()
    loss(values).backward()
    return values.grad


# --- token NPO ----------------------------------------------------------------------------------------------------


def test_token_npo_at_the_reference():
    """(2 / .5) ln 2 = 2.7726."""
    logps = _logps()
    assert token_npo_loss(logps, logps).item() == pytest.approx(4 * LN2)
    assert abs(4 * LN2 - 2.7726) < 1e-4


def test_token_npo_is_npo_for_answers_of_one_token_only():
    """T2: the sigmoid of a sum is not the sum of sigmoids."""
    own, start = _logps(4, 1), _logps(4, 2)
    assert token_npo_loss(own, start, beta=0.3).item() == pytest.approx(npo_loss(own, start, beta=0.3).item())
    two_tokens = npo_loss(own.reshape(2, 2).sum(1), start.reshape(2, 2).sum(1), beta=0.3)
    assert token_npo_loss(own, start, beta=0.3).item() != pytest.approx(two_tokens.item(), rel=1e-3)


def test_token_npo_gradient_is_its_published_weight():
    own, start, b = _logps(seed=1), _logps(seed=2), 0.5
    powered, base = own.exp() ** b, start.exp() ** b
    assert torch.allclose(
        _grad(lambda x: token_npo_loss(x, start, beta=b), own) * 7, 2 * powered / (powered + base)
    )


def test_tnpo_has_the_gradient_of_token_npo_but_not_its_value():
    own, start = _logps(seed=1), _logps(seed=2)
    first = _grad(lambda x: token_npo_loss(x, start, beta=2.0), own)
    second = _grad(lambda x: weighted_token_npo_loss(x, start, beta=2.0), own)
    assert torch.allclose(first, second)
    values = token_npo_loss(own, start, beta=2.0), weighted_token_npo_loss(own, start, beta=2.0)
    assert values[0].item() > 0 > values[1].item()


def test_wtnpo_weighs_by_a_further_power_and_the_epsilon_kills_small_weights():
    own, start = torch.tensor([0.5, 1e-4]).double().log(), torch.tensor([0.25, 1e-4]).double().log()
    grad = _grad(lambda x: weighted_token_npo_loss(x, start, beta=4.0, power=1.5), own) * 2
    first = 2 * 0.5**5.5 / (0.5**4 + 0.25**4)
    assert grad.tolist() == pytest.approx([first, 1e-4**1.5])  # 2 p^(b+A) / (2 p^b) = p^A where p = p_ref
    exact = _grad(lambda x: weighted_token_npo_loss(x, start, beta=4.0), own)[1] * 2
    dead = _grad(lambda x: weighted_token_npo_loss(x, start, beta=4.0, eps=1e-5), own)[1] * 2
    assert exact.item() == pytest.approx(1.0)
    assert dead.item() < 1e-9  # 2e-16 / (2e-16 + 1e-5)


# --- SimNPO -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.0), (0.7, 0.4)])
def test_simnpo_gradient_is_its_published_weight(beta, gamma):
    """-dL/d nll = 2 q / (1 + q) with q = exp(-beta nll + gamma), over B = 7 rows; always in (0, 2)."""
    nlls = -_logps()
    grad = -7 * _grad(lambda x: simnpo_loss(x, beta=beta, gamma=gamma), nlls)
    q = (-beta * nlls + gamma).exp()
    assert torch.allclose(grad, 2 * q / (1 + q))
    assert grad.min() > 0
    assert grad.max() < 2


def test_simnpo_of_an_answer_known_by_heart():
    """nll = 0, gamma = 0: (2 / b) ln 2."""
    assert simnpo_loss(torch.zeros(3), beta=2.5).item() == pytest.approx(0.8 * LN2)


def test_simnpo_margin_outside_and_inside_beta():
    nlls = -_logps()
    assert simnpo_loss(nlls, gamma=0.0, margin="inside") == simnpo_loss(nlls, gamma=0.0)
    inside = simnpo_loss(nlls, beta=2.0, gamma=0.5, margin="inside")
    assert inside.item() == pytest.approx(simnpo_loss(nlls, beta=2.0, gamma=1.0).item())
    assert inside.item() != pytest.approx(simnpo_loss(nlls, beta=2.0, gamma=0.5).item(), rel=1e-3)


def test_simnpo_tends_to_length_normalised_ascent_as_beta_vanishes():
    """-(2/b) log sigmoid(b n) = (2/b) ln 2 - n + O(b)."""
    nlls, beta = -_logps(), 1e-5
    value = simnpo_loss(nlls, beta=beta).item() - 2 / beta * LN2
    assert value == pytest.approx(-nlls.mean().item(), abs=1e-3)


# --- weighted ascent ----------------------------------------------------------------------------------------------


def test_wga_without_exponent_is_gradient_ascent():
    logps = _logps()
    assert wga_loss(logps, beta=0.0).item() == pytest.approx(gradient_ascent_loss(logps).item())


@pytest.mark.parametrize("beta", [0.5, 1.0, 5.0])
def test_wga_has_the_gradient_of_the_mean_power_of_p(beta):
    """d/dlogp [p^b / b] = p^b: the weight itself carries no gradient."""
    logps = _logps()
    expected = _grad(lambda x: (beta * x).exp().mean() / beta, logps)
    assert torch.allclose(_grad(lambda x: wga_loss(x, beta=beta), logps), expected)


def test_satimp_weight_is_zero_at_both_ends_and_largest_at_five_sixths():
    """w = p^5 (1 - p): w' = 0 at p = 5/6, where w = (5/6)^5 / 6 = .0670."""
    p = torch.linspace(0.001, 1.0, 1000, dtype=torch.float64)
    weights = _grad(lambda x: satimp_loss(x), p.log()) * len(p)
    best = int(weights.argmax())
    assert p[best].item() == pytest.approx(5 / 6, abs=1e-3)
    assert weights[best].item() == pytest.approx(0.0670, abs=1e-4)
    assert weights[-1].item() == 0.0
    assert weights[0].item() < 1e-14


@pytest.mark.parametrize("loss", [wga_loss, satimp_loss])
def test_weighted_ascent_is_bounded(loss):
    """p^b log p -> 0 as p -> 0, so unlike gradient ascent nothing runs away."""
    far = torch.tensor([-1e4], dtype=torch.float64)
    assert loss(far).item() == pytest.approx(0.0, abs=1e-12)
    assert _grad(loss, far).abs().item() < 1e-12


# --- nothing to average -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda empty: token_npo_loss(empty, empty),
        lambda empty: weighted_token_npo_loss(empty, empty),
        simnpo_loss,
        wga_loss,
        satimp_loss,
    ],
)
def test_a_batch_without_rows_gives_an_exact_zero_that_can_be_differentiated(loss):
    empty = torch.zeros(0, requires_grad=True)
    value = loss(empty)
    value.backward()
    assert value.item() == 0.0
