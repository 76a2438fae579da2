"""Losses on whole next-token distributions and on hidden states. Each test carries its derivation."""

import math

import pytest
import torch

from finetune_baselines.losses import (
    ce_u_loss,
    dual_ascent,
    embedding_distance,
    flatness_loss,
    forget_kl_loss,
    gnm_kl_loss,
    inverted_hinge_loss,
    js_loss,
    js_to_token_loss,
    kl_loss,
    renyi_loss,
    renyi_token_loss,
    rmu_direction,
    rmu_loss,
    undial_loss,
)

LN2 = math.log(2)
ALPHAS = (0.1, 0.3, 0.5, 0.9, 1.0, 1.5, 2.0)


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _grad(loss, values: torch.Tensor) -> torch.Tensor:
    values = values.clone().requires_grad_()
    loss(values).backward()
    return values.grad


# --- forget KL ----------------------------------------------------------------------------------------------------


def test_forget_kl_is_minus_the_divergence_and_cannot_start_by_itself():
    trained, start = _logits(5, 9, seed=1), _logits(5, 9, seed=2)
    assert forget_kl_loss(trained, start).item() == pytest.approx(-kl_loss(trained, start).item())
    assert forget_kl_loss(start, start).item() == pytest.approx(0.0, abs=1e-6)
    assert _grad(lambda x: forget_kl_loss(x, start), start).abs().max() < 1e-7


def test_forget_kl_has_no_lower_bound_and_the_clamp_is_one():
    """P_ref = (1/2, 1/2), z = (0, -c): KL = -ln 2 + c / 2 + log(1 + e^-c), so 2 rows with c = 100 and 2."""
    start, trained = torch.zeros(2, 2), torch.tensor([[0.0, -100.0], [0.0, -2.0]])
    small = -LN2 + 1 + math.log(1 + math.exp(-2))
    assert forget_kl_loss(trained, start).item() == pytest.approx(-(50 - LN2 + small) / 2)
    assert forget_kl_loss(trained, start, max_loss=5.0).item() == pytest.approx(-(5 + small) / 2)
    grad = _grad(lambda x: forget_kl_loss(x, start, max_loss=5.0), trained)
    assert grad[0].abs().max() == 0.0
    assert grad[1].abs().max() > 0.01


def test_gnm_published_kl_is_no_divergence():
    """0 at the start model; negative at one-hot argmax P_ref, where a divergence would be positive."""
    start = torch.tensor([[2.0, 0.0, -1.0]])
    assert gnm_kl_loss(start, start).item() == pytest.approx(0.0, abs=1e-7)
    assert gnm_kl_loss(torch.tensor([[60.0, 0.0, 0.0]]), start).item() < 0
    assert kl_loss(torch.tensor([[60.0, 0.0, 0.0]]), start).item() > 0


# --- Renyi --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_renyi_is_zero_at_the_start_model_and_positive_elsewhere(alpha):
    trained, start = _logits(6, 9, seed=1), _logits(6, 9, seed=2)
    assert renyi_loss(start, start, alpha=alpha).item() == pytest.approx(0.0, abs=1e-6)
    assert renyi_loss(trained, start, alpha=alpha).item() > 0.1


def test_renyi_of_one_half_is_symmetric():
    trained, start = _logits(6, 9, seed=1), _logits(6, 9, seed=2)
    direct = -2 * (trained.softmax(-1) * start.softmax(-1)).sqrt().sum(-1).log().mean()
    assert renyi_loss(trained, start).item() == pytest.approx(direct.item(), rel=1e-5)
    assert renyi_loss(start, trained).item() == pytest.approx(direct.item(), rel=1e-5)


def test_renyi_tends_to_kl_of_the_trained_model():
    trained, start = _logits(6, 9, seed=1).double(), _logits(6, 9, seed=2).double()
    limit = renyi_loss(trained, start, alpha=1.0).item()
    assert limit == pytest.approx(kl_loss(trained, start, direction="th_ref").item(), rel=1e-6)
    for alpha in (0.999, 1.001):
        assert renyi_loss(trained, start, alpha=alpha).item() == pytest.approx(limit, rel=2e-2)


def test_renyi_does_not_fall_in_alpha_and_has_skew_symmetry():
    """D_a(P || Q) / a = D_(1-a)(Q || P) / (1 - a)."""
    trained, start = _logits(1, 9, seed=1), _logits(1, 9, seed=2)
    values = [renyi_loss(trained, start, alpha=alpha).item() for alpha in ALPHAS]
    assert values == sorted(values)
    left = renyi_loss(trained, start, alpha=0.3).item() / 0.3
    assert left == pytest.approx(renyi_loss(start, trained, alpha=0.7).item() / 0.7, rel=1e-4)


def test_renyi_as_published_is_a_weighted_cross_entropy_at_the_start_model():
    """alpha = 1/2, p = p_ref: -2 log sum p; gradient on log p_t: -p_t / sum p."""
    logps = torch.tensor([0.5, 0.2, 0.1]).double().log()
    assert renyi_token_loss(logps, logps).item() == pytest.approx(-2 * math.log(0.8))
    grad = _grad(lambda x: renyi_token_loss(x, logps), logps)
    assert grad.tolist() == pytest.approx([-0.5 / 0.8, -0.2 / 0.8, -0.1 / 0.8])
    surer = torch.tensor([0.9, 0.9, 0.9]).double().log()
    assert renyi_token_loss(surer, logps, alpha=1.0).item() < 0


# --- inverted hinge -----------------------------------------------------------------------------------------------


def test_inverted_hinge_by_hand_and_at_the_uniform_distribution():
    """T4: p = (.7, .2, .1): 1 + .7 - .2 = 1.5; gold .1: 1 + .1 - .7 = .4; uniform: 1."""
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]).log()
    assert inverted_hinge_loss(logits[:1], torch.tensor([0])).item() == pytest.approx(1.5)
    assert inverted_hinge_loss(logits, torch.tensor([0, 2])).item() == pytest.approx((1.5 + 0.4) / 2)
    assert inverted_hinge_loss(torch.zeros(4, 8), torch.arange(4)).item() == pytest.approx(1.0)


def test_inverted_hinge_gradient_is_the_papers():
    """Gold p_y (1 + p_v* - p_y), runner-up p_v* (p_v* - p_y - 1), others p_v (p_v* - p_y); sums to 0."""
    logits = torch.tensor([[0.3, 1.2, -0.4, 0.8]], dtype=torch.float64)
    p = logits.float().softmax(-1)[0]
    y, runner = 0, 1
    expected = p * (p[runner] - p[y])
    expected[y] = p[y] * (1 + p[runner] - p[y])
    expected[runner] = p[runner] * (p[runner] - p[y] - 1)
    grad = _grad(lambda x: inverted_hinge_loss(x, torch.tensor([y])), logits)[0]
    assert torch.allclose(grad.float(), expected, atol=1e-6)
    assert grad.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_inverted_hinge_is_bounded_and_fades_with_the_gold_token():
    logits, targets = 5 * _logits(200, 11), torch.arange(200) % 11
    rows = torch.cat([inverted_hinge_loss(logits[i : i + 1], targets[i : i + 1])[None] for i in range(200)])
    assert rows.min() >= 0
    assert rows.max() <= 2
    grads = _grad(lambda x: 200 * inverted_hinge_loss(x, targets), logits).gather(1, targets[:, None])
    assert grads.max() <= 0.5
    gone = torch.tensor([[-40.0, 1.0, 0.0]])
    assert _grad(lambda x: inverted_hinge_loss(x, torch.tensor([0])), gone)[0, 0].abs() < 1e-12


# --- UNDIAL -------------------------------------------------------------------------------------------------------


def test_undial_distils_from_the_start_model_with_the_gold_logit_lowered():
    trained, start, targets = _logits(3, 5, seed=1), _logits(3, 5, seed=2), torch.tensor([4, 0, 2])
    lowered = start.clone()
    lowered[torch.arange(3), targets] -= 10
    teacher = lowered.softmax(-1)
    grad = _grad(lambda x: undial_loss(x, start, targets), trained)
    assert torch.allclose(grad, (trained.softmax(-1) - teacher) / 3, atol=1e-6)
    entropy = -(teacher * teacher.log()).sum(-1).mean().item()
    assert undial_loss(lowered, start, targets).item() == pytest.approx(entropy, rel=1e-5)
    assert undial_loss(trained, start, targets).item() > entropy


def test_undial_without_a_push_is_at_rest_at_the_start():
    start, targets = _logits(3, 5), torch.tensor([1, 1, 3])
    assert _grad(lambda x: undial_loss(x, start, targets, beta=0.0), start).abs().max() < 1e-7


# --- CE-U ---------------------------------------------------------------------------------------------------------


def test_ce_u_has_the_gradient_of_minus_log_one_minus_p():
    logits, targets = _logits(4, 7), torch.tensor([6, 0, 3, 3])

    def complement(x):
        return -(1 - x.softmax(-1).gather(1, targets[:, None])).log().sum()

    assert torch.allclose(
        _grad(lambda x: ce_u_loss(x, targets).sum(), logits), _grad(complement, logits), atol=1e-6
    )


def test_ce_u_value_is_the_teachers_entropy_plus_the_complements_surprise():
    """p = (.5, .3, .2), gold 0: q = (0, .6, .4); H(q) - log .5."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert ce_u_loss(logits, torch.tensor([0])).item() == pytest.approx(entropy + LN2)


# --- PDU ----------------------------------------------------------------------------------------------------------


def test_flatness_by_hand_and_blind_to_a_constant():
    """(max - mean)^2 of (3, 0, 0): (3 - 1)^2 = 4; of equal logits: 0."""
    logits = torch.tensor([[3.0, 0.0, 0.0], [7.0, 7.0, 7.0]])
    assert flatness_loss(logits).item() == pytest.approx(2.0)
    assert flatness_loss(logits + 100).item() == pytest.approx(2.0)


def test_the_dual_variable_rises_iff_the_bound_is_broken_and_stays_above_zero():
    assert dual_ascent(50.0, 0.5, bound=0.3, rate=5.0) == pytest.approx(51.0)
    assert dual_ascent(50.0, 0.2, bound=0.3, rate=5.0) == pytest.approx(49.5)
    assert dual_ascent(50.0, 0.3, bound=0.3, rate=5.0) == 50.0
    assert dual_ascent(0.1, 0.0, bound=0.3, rate=5.0) == 0.0


# --- JensUn -------------------------------------------------------------------------------------------------------


def _naive_js(first, second):
    middle = (first + second) / 2
    return sum((p * (p / middle).log()).nan_to_num().sum(-1) for p in (first, second)) / 2


def test_js_to_a_token_is_the_divergence_to_its_one_hot():
    logits, tokens = _logits(6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    one_hot = torch.nn.functional.one_hot(tokens, 5).float()
    expected = _naive_js(logits.softmax(-1), one_hot).mean().item()
    assert js_to_token_loss(logits, tokens).item() == pytest.approx(expected, rel=1e-5)
    assert 0 < expected < LN2


def test_js_to_a_token_gradient_is_the_closed_form_and_vanishes():
    """-p (1 - p) ln((1 + p) / p) / 2."""
    logits = torch.tensor([[1.0, 0.2, -0.3]], dtype=torch.float64)
    p = logits.softmax(-1)[0, 0].item()
    grad = _grad(lambda x: js_to_token_loss(x, torch.tensor([0])), logits)[0, 0].item()
    assert grad == pytest.approx(-0.5 * p * (1 - p) * math.log((1 + p) / p), rel=1e-5)
    far = torch.tensor([[-60.0, 0.0]])
    assert _grad(lambda x: js_to_token_loss(x, torch.tensor([0])), far).abs().max() < 1e-12
    assert js_to_token_loss(far, torch.tensor([0])).item() == pytest.approx(LN2)


def test_js_to_the_start_model_is_symmetric_bounded_and_zero_there():
    trained, start = _logits(6, 9, seed=1), _logits(6, 9, seed=2)
    value = js_loss(trained, start).item()
    assert value == pytest.approx(_naive_js(trained.softmax(-1), start.softmax(-1)).mean().item(), rel=1e-5)
    assert value == pytest.approx(js_loss(start, trained).item(), rel=1e-5)
    assert 0 < value < LN2
    assert js_loss(start, start).item() == pytest.approx(0.0, abs=1e-7)
    assert _grad(lambda x: js_loss(x, start), start).abs().max() < 1e-7
    apart = torch.tensor([[90.0, 0.0]]), torch.tensor([[0.0, 90.0]])
    assert js_loss(*apart).item() == pytest.approx(LN2)


# --- RMU ----------------------------------------------------------------------------------------------------------


def test_the_rmu_direction_is_of_length_one_positive_and_the_seeds():
    state = torch.get_rng_state()
    direction = rmu_direction(64, 5)
    assert direction.norm().item() == pytest.approx(1.0)
    assert direction.min() >= 0
    assert torch.equal(direction, rmu_direction(64, 5))
    assert not torch.equal(direction, rmu_direction(64, 6))
    assert torch.equal(state, torch.get_rng_state())


def test_rmu_is_zero_iff_every_state_is_at_the_goal():
    direction = rmu_direction(8, 0)
    hidden, mask = (3.0 * direction).expand(2, 4, 8).clone(), torch.ones(2, 4)
    assert rmu_loss(hidden, mask, direction, coefficient=3.0).item() == pytest.approx(0.0, abs=1e-12)
    hidden[1, 2, 0] += 2
    assert rmu_loss(hidden, mask, direction, coefficient=3.0).item() == pytest.approx(4 / 8 / 4 / 2)


def test_rmu_weighs_rows_alike_and_ignores_padding():
    """Two rows of 1 and 4 tokens, every state 1 and 2, goal 0: (1 + 4) / 2, not (1 + 4 * 4) / 5."""
    hidden = torch.stack([torch.full((4, 3), 1.0), torch.full((4, 3), 2.0)])
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]])
    hidden[0, 1:] = 99
    assert embedding_distance(hidden, torch.zeros(3), mask).item() == pytest.approx(2.5)


def test_the_rmu_retain_part_is_at_rest_at_the_start():
    hidden = _logits(2, 4, 8)
    mask = torch.ones(2, 4)
    assert embedding_distance(hidden, hidden, mask).item() == 0.0
    assert _grad(lambda x: embedding_distance(x, hidden, mask), hidden).abs().max() == 0.0


# --- nothing to average -------------------------------------------------------------------------------------------

NONE = torch.zeros(0, dtype=torch.long)


@pytest.mark.parametrize(
    "loss",
    [
        lambda empty: forget_kl_loss(empty, empty.detach()),
        lambda empty: gnm_kl_loss(empty, empty.detach()),
        lambda empty: renyi_loss(empty, empty.detach()),
        lambda empty: renyi_token_loss(empty[:, 0], empty.detach()[:, 0]),
        lambda empty: inverted_hinge_loss(empty, NONE),
        lambda empty: undial_loss(empty, empty.detach(), NONE),
        lambda empty: ce_u_loss(empty, NONE).sum(),
        flatness_loss,
        lambda empty: js_loss(empty, empty.detach()),
        lambda empty: js_to_token_loss(empty, NONE),
        lambda empty: rmu_loss(empty[:, None], torch.ones(0, 1), torch.ones(5), coefficient=1.0),
    ],
)
def test_a_batch_without_rows_gives_an_exact_zero_that_can_be_differentiated(loss):
    empty = torch.zeros(0, 5, requires_grad=True)
    value = loss(empty)
    value.backward()
    assert value.item() == 0.0
