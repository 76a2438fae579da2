"""DPO, KTO and FLAT: two answers to each question. Each test carries the derivation of the number it expects."""

import math

import pytest
import torch

from finetune_baselines.losses import DIVERGENCES, dpo_loss, flat_loss, kto_loss, npo_loss

LN2 = math.log(2)


def _logps(count: int, seed: int) -> torch.Tensor:
    return -9 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _grad(loss, values: torch.Tensor) -> torch.Tensor:
    values = values.clone().requires_grad_()
    loss(values).backward()
    return values.grad


# --- DPO ----------------------------------------------------------------------------------------------------------


def test_dpo_at_the_reference_is_two_over_beta_ln_two():
    winner, loser = _logps(4, 0), _logps(4, 1)
    assert dpo_loss(winner, winner, loser, loser, beta=0.1).item() == pytest.approx(20 * LN2)
    assert dpo_loss(winner, winner, loser, loser, beta=0.1, scaled=False).item() == pytest.approx(LN2)


def test_dpo_with_an_indifferent_winner_is_npo():
    winner, loser, start = _logps(4, 0), _logps(4, 1), _logps(4, 2)
    value = dpo_loss(winner, winner, loser, start, beta=0.3)
    assert value.item() == pytest.approx(npo_loss(loser, start, beta=0.3).item())


def test_dpo_by_hand():
    """D_w = ln 2, D_l = -ln 2, beta 1: -2 log sigmoid(2 ln 2) = 2 log(1 + 1/4)."""
    zero = torch.zeros(1)
    value = dpo_loss(zero + LN2, zero, zero - LN2, zero, beta=1.0)
    assert value.item() == pytest.approx(2 * math.log(1.25))


def test_dpo_falls_as_the_loser_falls_and_as_the_winner_rises():
    winner, loser, start = _logps(4, 0), _logps(4, 1), _logps(4, 2)
    assert (_grad(lambda x: dpo_loss(winner, start, x, start), loser) > 0).all()
    assert (_grad(lambda x: dpo_loss(x, start, loser, start), winner) < 0).all()


# --- KTO ----------------------------------------------------------------------------------------------------------


def test_kto_at_the_reference():
    """sigmoid(0) = 1/2: 1 - (2/b)/2 = 1 - 1/b = -9; log sigmoid(0) = -ln 2: 1 + (2/b) ln 2 = 14.8629 (b = .1)."""
    gold, refusal = _logps(4, 0), _logps(4, 1)
    assert kto_loss(gold, gold, refusal, refusal, form="sigmoid").item() == pytest.approx(-9)
    assert kto_loss(gold, gold, refusal, refusal).item() == pytest.approx(1 + 20 * LN2)
    assert abs(1 + 20 * LN2 - 14.8629) < 1e-4


@pytest.mark.parametrize("shift", [-1e3, -5.0, 0.0, 5.0, 1e3])
def test_kto_stays_within_its_bounds(shift):
    gold, refusal = _logps(4, 0), _logps(4, 1)
    bounded = kto_loss(gold, gold + shift, refusal, refusal, form="sigmoid").item()
    assert 1 - 2 / 0.1 <= bounded <= 1
    assert kto_loss(gold, gold + shift, refusal, refusal).item() >= 1


@pytest.mark.parametrize("form", ["sigmoid", "logsigmoid"])
@pytest.mark.parametrize("anchor", ["unlearning", "original"])
def test_kto_has_no_gradient_through_its_zero_point_and_falls_with_the_gold_answer(form, anchor):
    gold, start, refusal = _logps(4, 0), _logps(4, 1), _logps(4, 2).requires_grad_()
    options = {"form": form, "anchor": anchor}
    grad = _grad(lambda x: kto_loss(x, start, refusal, start, **options), gold)
    assert (grad > 0).all()
    assert refusal.grad is None


def test_kto_zero_points():
    """K = ln 4, D = 0, b = .5, sigmoid form: 1 - 4 sigmoid(K) = 1 - 4 * .8; original: sigmoid(b K) = 2/3.
    K = -ln 4: 1 - 4 * .2, and the original clamps K to 0."""
    zero, up = torch.zeros(2), torch.full((2,), math.log(4))

    def value(refusal, anchor):
        return kto_loss(zero, zero, refusal, zero, beta=0.5, form="sigmoid", anchor=anchor).item()

    assert value(up, "unlearning") == pytest.approx(1 - 4 * 0.8)
    assert value(up, "original") == pytest.approx(1 - 4 * 2 / 3)
    assert value(-up, "unlearning") == pytest.approx(1 - 4 * 0.2)
    assert value(-up, "original") == pytest.approx(1 - 4 * 0.5)


# --- FLAT ---------------------------------------------------------------------------------------------------------

AT_ZERO = {"tv": 0.0, "js": 0.0, "pearson": 0.0, "jeffrey": 0.0, "kl": math.exp(-1)}
RANGES = {"tv": (-0.381, 0.381), "kl": (-0.633, 1.0), "js": (-0.380, 0.621), "pearson": (-1.0, 1.25)}


def _flat(good, bad, divergence):
    return flat_loss(torch.as_tensor([good]), torch.as_tensor([bad]), divergence=divergence)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_flat_where_both_answers_are_impossible(divergence):
    """tanh 0 = 0; exp(0 - 1); 2 log 2 - 2 log 2; 0."""
    assert _flat(0.0, 0.0, divergence).item() == pytest.approx(AT_ZERO[divergence], abs=1e-6)


@pytest.mark.parametrize("divergence", RANGES)
def test_flat_ranges_are_at_the_corners(divergence):
    """The loss falls in P_g and rises in P_f, so its extremes over [0, 1]^2 are at (1, 0) and (0, 1)."""
    least, most = (_flat(*corner, divergence).item() for corner in ((1.0, 0.0), (0.0, 1.0)))
    assert (least, most) == pytest.approx(RANGES[divergence], abs=1e-3)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_flat_wants_the_template_and_drops_the_forget_answer(divergence):
    good, bad = torch.tensor([0.2, 0.6]), torch.tensor([0.3, 0.9])
    assert (_grad(lambda x: flat_loss(x, bad, divergence=divergence), good) < 0).all()
    assert (_grad(lambda x: flat_loss(good, x, divergence=divergence), bad) > 0).all()


def test_flat_slopes_are_the_published_ones():
    """At P_g = .3, P_f = .7; the batch has one row, so the means are the values."""
    good, bad = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    sigmoid = 1 / (1 + math.exp(0.3)), 1 / (1 + math.exp(-0.7))
    expected = {
        "tv": (-0.5 / math.cosh(0.3) ** 2, 0.5 / math.cosh(0.7) ** 2),
        "kl": (-1.0, math.exp(-0.3)),
        "js": (-sigmoid[0], sigmoid[1]),
        "pearson": (-1.0, 1.35),
    }
    for name, slopes in expected.items():
        got = (
            _grad(lambda x, name=name: flat_loss(x, bad, divergence=name), good).item(),
            _grad(lambda x, name=name: flat_loss(good, x, divergence=name), bad).item(),
        )
        assert got == pytest.approx(slopes), name


def test_flat_total_variation_is_zero_where_both_are_as_likely():
    assert _flat(0.4, 0.4, "tv").item() == pytest.approx(0.0, abs=1e-7)


def test_flat_moves_no_token_that_is_already_impossible():
    """dP/dlogit = p (1 - p), which vanishes with p: no gradient, so nothing runs away."""
    logits = torch.tensor([-40.0], requires_grad=True)
    flat_loss(torch.tensor([0.1]), torch.sigmoid(logits)).backward()
    assert abs(logits.grad.item()) < 1e-12


# --- nothing to average -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda empty: dpo_loss(empty, empty, empty, empty),
        lambda empty: kto_loss(empty, empty, empty, empty),
        lambda empty: flat_loss(empty, empty),
    ],
)
def test_a_batch_without_rows_gives_an_exact_zero_that_can_be_differentiated(loss):
    empty = torch.zeros(0, requires_grad=True)
    value = loss(empty)
    value.backward()
    assert value.item() == 0.0
