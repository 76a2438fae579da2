"""What published codes do otherwise than their papers: each is an option, derived here."""

import json
import math

import pytest
import torch

from eval.errors import ConfigError
from eval.models import LanguageModel
from finetune_baselines import RECIPES, train
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.losses import js_to_token_loss, js_to_tokens_loss
from finetune_baselines.objective import new_objective


def test_published_variants_are_other_losses(tiny_lm, examples, moved, make_batch, term_values, frozen):
    variants = {
        "npo": {"npo_level": "batch_mean"},
        "dpo": {"dpo_scale": "none"},
        "kto": {"kto_form": "sigmoid"},
        "npo-token": {"token_form": "tnpo"},
        "kl-min": {"kl_mode": "gold_token"},
        "rmu": {"rmu_mask": "answer"},
        "flat-kl": {"flat_mean": "all_positions"},
        "ce-u": {"skip_tokens": 0},
        "jensun": {"refusal_text": "Unknown to me"},
    }
    batches = {name: make_batch(tiny_lm, RECIPES[name], examples[:3], examples[3:5]) for name in variants}
    start = frozen(tiny_lm)
    lm = moved()
    for name, change in variants.items():
        values = [
            sum(term_values(lm, batches[name], recipe, start=start).values())
            for recipe in (RECIPES[name], RECIPES[name].changed(change))
        ]
        assert values[0] != pytest.approx(values[1], rel=1e-4), name


@pytest.mark.parametrize(("template", "gap"), [("auto", ""), ("Question: {question}\nAnswer:", " ")])
def test_jensun_wants_the_refusal_as_an_answer_begins(
    tiny_lm, examples, template, gap, make_batch, term_values
):
    """The text's tokens in a circle, after the template's own space, from the first position of each row."""
    lm = LanguageModel(tiny_lm.model, tiny_lm.tokenizer, template=template)
    ids = lm.tokenizer(f"{gap}No idea", add_special_tokens=False)["input_ids"]
    batch = make_batch(lm, RECIPES["jensun"], examples[:2], examples[2:3])
    count = batch.num_forget_tokens
    wanted = [ids[t % len(ids)] for length in batch.lengths[:2].tolist() for t in range(length)]
    with torch.no_grad():
        logits = lm.answer_logits(batch.both)[:count]
    expected = js_to_token_loss(logits, torch.tensor(wanted)).item()
    assert term_values(lm, batch, RECIPES["jensun"], start=lm)["forget_jensun"] == pytest.approx(
        expected, rel=1e-6
    )


def test_the_batch_mean_level_is_the_loss_of_one_mean(tiny_lm, examples, moved, make_batch, term_values):
    """T1: D is the difference of the batch's token means."""
    recipe = RECIPES["npo"].changed({"npo_level": "batch_mean"})
    batch = make_batch(tiny_lm, recipe, examples[:3], [])
    lm = moved()
    scores = lm.score(examples[:3], [row.answer for row in examples[:3]])
    own = sum(s.sum_logp for s in scores) / sum(s.num_tokens for s in scores)
    ratio = own - batch.reference_logps.mean().item()
    expected = 20 * math.log(1 + math.exp(0.1 * ratio))
    assert term_values(lm, batch, recipe)["forget_npo"] == pytest.approx(expected, rel=1e-4)
    simnpo = RECIPES["simnpo"].changed({"simnpo_level": "batch_mean", "beta": 0.5, "forget_weight": 1.0})
    expected = 4 * math.log(1 + math.exp(0.5 * own))  # the nll is -own
    assert term_values(lm, batch, simnpo)["forget_simnpo"] == pytest.approx(expected, rel=1e-4)


# --- averages over every position: prompts and padding too ------------------------------------------------------------


def _whole(lm, rows):
    """Every logit of some rows padded to the longest of them, what predicts an answer token, and the tokens."""
    batch = lm.collate(lm.encode(rows, [row.answer for row in rows]))
    with torch.no_grad():
        logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits, batch


def _retained(examples):
    """Two rows of unequal length, so that one of them is padded; the forget rows are longer than both."""
    return [examples[3], examples[4].replace(answer=examples[4].answer + " Yes, in Rome.")]


def _forgotten(examples):
    return [row.replace(question="Please say: " + row.question) for row in examples[:2]]


@pytest.mark.parametrize("mode", ["full", "gnm_prob"])
def test_kl_over_all_positions_divides_by_every_token_of_the_padded_rows(
    tiny_lm, examples, moved, make_batch, term_values, frozen, mode
):
    recipe = RECIPES["kl-min"].changed({"kl_mask": "all", "kl_mode": mode})
    batch = make_batch(tiny_lm, recipe, _forgotten(examples), _retained(examples))
    start = frozen(tiny_lm)
    reference = torch.softmax(_whole(start, _retained(examples))[0], -1)
    lm = moved()
    trained = torch.softmax(_whole(lm, _retained(examples))[0], -1)
    each = {
        "full": reference * (reference.log() - trained.log()),
        "gnm_prob": reference.exp() * (reference - trained),
    }[mode]
    expected = each.sum().item() / (trained.shape[0] * trained.shape[1])
    assert term_values(lm, batch, recipe, start=start)["retain_kl"] == pytest.approx(expected, rel=1e-3)
    assert new_objective(recipe).units["retain_kl"] == "retain_rows"  # padding is each micro-batch's own


def test_js_over_all_positions(tiny_lm, examples, moved, make_batch, term_values, frozen):
    recipe = RECIPES["jensun"].changed({"js_mask": "all"})
    batch = make_batch(tiny_lm, recipe, _forgotten(examples), _retained(examples))
    start = frozen(tiny_lm)
    q = torch.softmax(_whole(start, _retained(examples))[0], -1)
    lm = moved()
    p = torch.softmax(_whole(lm, _retained(examples))[0], -1)
    middle = (p + q) / 2
    each = (p * (p / middle).log() + q * (q / middle).log()).sum(-1) / 2
    assert term_values(lm, batch, recipe, start=start)["retain_js"] == pytest.approx(
        each.mean().item(), rel=1e-3
    )


def test_undial_over_all_positions_distils_prompts_and_padding_unchanged(
    tiny_lm, examples, moved, make_batch, term_values, frozen
):
    """Cross-entropy with the start model at all positions but the last, its gold logit lowered at answers alone."""
    recipe = RECIPES["undial"].changed({"undial_mask": "all", "beta": 7.0})
    rows = _retained(examples)  # here to be forgotten: they have padding
    batch = make_batch(tiny_lm, recipe, rows, [])
    start = frozen(tiny_lm)
    teacher, plain = _whole(start, rows)
    for i, t in plain.predicting.nonzero().tolist():
        teacher[i, t, plain.input_ids[i, t + 1]] -= 7.0
    lm = moved()
    student = torch.log_softmax(_whole(lm, rows)[0], -1)
    each = -(torch.softmax(teacher, -1) * student).sum(-1)[:, :-1]
    assert term_values(lm, batch, recipe, start=start)["forget_undial"] == pytest.approx(
        each.mean().item(), rel=1e-3
    )


def test_jensun_as_published_wants_every_refusal_token_at_every_position(
    tiny_lm, examples, moved, make_batch, term_values
):
    """Q is 1 on each of K tokens: [KL(P || M) + KL(Q || M)] / 2 with M = (P + Q) / 2, whatever Q's mass."""
    recipe = RECIPES["jensun"].changed({"jensun_target": "multi_hot_all", "retain_weight": 0.0})
    batch = make_batch(tiny_lm, recipe, _retained(examples), [])
    lm = moved()
    ids = lm.tokenizer("No idea", add_special_tokens=False)["input_ids"]
    p = torch.softmax(_whole(lm, _retained(examples))[0], -1)
    q = torch.zeros_like(p)
    q[..., ids] = 1.0
    middle = (p + q) / 2
    each = (p * (p / middle).log()).sum(-1) - (q * middle.clamp(min=1e-30).log()).sum(-1)
    assert term_values(lm, batch, recipe)["forget_jensun"] == pytest.approx(each.mean().item() / 2, rel=1e-3)


def test_the_published_jensun_target_is_bounded_elsewhere_than_a_divergence():
    """K = 1 is the divergence to one token. K = 2: at p = 0 it is 3 ln 2 / 2 = 1.04; at p = (1/2, 1/2)
    [3 ln 2 + ln(1/2) - 3 ln(3/2)] / 2 = ln 2 - 1.5 ln 1.5 = 0.085."""
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    one = torch.tensor([5])
    assert js_to_tokens_loss(logits, one).item() == pytest.approx(
        js_to_token_loss(logits, one.expand(4)).item(), rel=1e-5
    )
    two = torch.tensor([0, 1])
    away, there = torch.zeros(1, 3), torch.zeros(1, 3)
    away[0, 2], there[0, 2] = 100.0, -100.0
    assert js_to_tokens_loss(away, two).item() == pytest.approx(1.5 * math.log(2), rel=1e-5)
    assert js_to_tokens_loss(there, two).item() == pytest.approx(math.log(2) - 1.5 * math.log(1.5), rel=1e-4)


def test_pdu_unshifted_flattens_one_position_later(tiny_lm, examples, moved, make_batch, term_values):
    recipe = RECIPES["pdu"].changed({"pdu_shift": "none"})
    rows = _retained(examples)
    batch = make_batch(tiny_lm, recipe, rows, examples[:1])
    lm = moved()
    logits, plain = _whole(lm, rows)
    flat = logits[plain.labels != -100]
    expected = (flat.amax(-1) - flat.mean(-1)).square().mean().item()
    assert term_values(lm, batch, recipe)["forget_pdu"] == pytest.approx(expected, rel=1e-3)
    assert new_objective(recipe).units["forget_pdu"] == "gold_tokens"  # as many positions as there are tokens


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kl-min", {"kl_mask": "all"}),
        ("undial", {"undial_mask": "all"}),
        ("jensun", {"jensun_target": "multi_hot_all", "js_mask": "all"}),
        ("pdu", {"pdu_shift": "none"}),
    ],
)
def test_a_side_without_rows_is_still_an_exact_zero(tiny_lm, examples, name, change):
    forgotten = encode_rows(tiny_lm, examples[:2], ["A.", "B."], reference=tiny_lm, kind="unused")
    objective = new_objective(RECIPES[name].changed(change), start=tiny_lm)
    terms = objective(tiny_lm, collate_pairs(tiny_lm, forgotten, []), tiny_lm.model)
    assert all(term.item() == 0.0 for term in terms.values())
    sum(terms.values()).backward()


@pytest.mark.parametrize("parametrization", ["full", "lora"])
@pytest.mark.parametrize(
    ("name", "change"),
    [("kl-min", {"kl_mask": "all"}), ("jensun", {"jensun_target": "multi_hot_all", "js_mask": "all"})],
)
def test_they_train_in_micro_batches_too(tiny_lm, examples, tmp_path, name, change, parametrization):
    train(
        tiny_lm, name, forget=examples[:4], retain=examples[4:], parametrization=parametrization,
        overrides={"epochs": 1, "batch_size": 4, "accumulation": 2, **change}, output_dir=tmp_path,
    )  # fmt: skip
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert all(math.isfinite(value) for value in line["terms"].values())
    assert line["grad_norm"] > 0


# --- weighing refusals, GNM's divergence and wording ------------------------------------------------------------------


def test_idk_as_published_is_one_mean_over_the_tokens_of_both_sides(tiny_lm, examples, moved, make_batch):
    """(sum of CE over refusal tokens + sum over retain tokens) / all tokens; micro-batches add up to the same."""
    recipe = RECIPES["idk"].changed({"idk_reduction": "concat_tokens"})
    batches = [
        make_batch(tiny_lm, recipe, examples[i:j], examples[i + 4 : j + 6])
        for i, j in ((0, 3), (0, 1), (1, 3))
    ]
    lm = moved()
    objective = new_objective(recipe)
    values, tokens = [], []
    for batch in batches:
        with torch.no_grad():
            values.append(sum(float(term) for term in objective(lm, batch, lm.model).values()))
            loss = torch.nn.functional.cross_entropy(lm.answer_logits(batch.both), batch.both.targets)
        tokens.append(len(batch.both.targets))
        assert values[-1] == pytest.approx(loss.item(), rel=1e-4)
        assert {batch.size(unit) for unit in objective.units.values()} == {tokens[-1]}
    plain = new_objective(RECIPES["idk"])
    with torch.no_grad():
        assert sum(float(t) for t in plain(lm, batches[0], lm.model).values()) > 1.5 * values[0]


def test_ascent_that_stays_close_on_the_forget_rows_is_not_the_term_klf(
    tiny_lm, examples, moved, make_batch, term_values, frozen
):
    """The NPO repository's forget-KL minimises the divergence (-CE_f + KL_f) that GNM's klf maximises."""
    recipe = RECIPES["ga"].changed({"forget_kl_weight": 1.0})
    batch = make_batch(tiny_lm, recipe, examples[:3], [])
    start = frozen(tiny_lm)
    lm = moved()
    close = term_values(lm, batch, recipe, start=start)
    away = term_values(lm, batch, RECIPES["klf"], start=start)["forget_klf"]
    assert set(close) == {"forget_ga", "forget_kl"}
    assert close["forget_ga"] < 0
    assert close["forget_kl"] == pytest.approx(-away, rel=1e-5)
    assert close["forget_kl"] > 0.01


def test_gnms_published_divergence_holds_for_its_forget_term_too(
    tiny_lm, examples, moved, make_batch, term_values, frozen
):
    recipe = RECIPES["klf"].changed({"kl_mode": "gnm_prob"})
    rows = examples[:3]
    batch = make_batch(tiny_lm, recipe, rows, [])
    start = frozen(tiny_lm)
    assert term_values(tiny_lm, batch, recipe, start=start)["forget_klf"] == pytest.approx(0.0, abs=1e-6)
    (logits, plain), lm = _whole(start, rows), moved()
    reference = torch.softmax(logits[plain.predicting], -1)
    trained = torch.softmax(_whole(lm, rows)[0][plain.predicting], -1)
    expected = -(reference.exp() * (reference - trained)).sum(-1).mean().item()
    assert term_values(lm, batch, recipe, start=start)["forget_klf"] == pytest.approx(expected, rel=1e-3)


def test_gnms_wording_is_trained_on_around_every_answer(tiny_lm, examples, tmp_path):
    """The adapter starts at nothing, so the first step's terms are the start model's losses on the worded answers."""
    forget, retain = examples[:2], examples[2:4]
    train(
        tiny_lm, "gnm", forget=forget, retain=retain, parametrization="lora", output_dir=tmp_path,
        negatives={row.id: ("Bern.",) for row in forget},
        overrides={"gnm_template": True, "gnm_weight": 1.0, "ga_weight": 1.0, "gd_weight": 1.0, "epochs": 1,
                   "batch_size": 2, "max_forget_loss": None},
    )  # fmt: skip
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    for name, rows, texts in (
        ("ga", forget, [row.answer for row in forget]),
        ("gd", retain, [row.answer for row in retain]),
        ("gnm", forget, ["Bern.", "Bern."]),
    ):
        scores = tiny_lm.score(rows, [f">> {text} is the answer." for text in texts])
        mean = sum(score.avg_loss for score in scores) / len(scores)
        assert abs(line["terms"][name]) == pytest.approx(mean, rel=1e-3), name


def test_what_cannot_go_together_is_refused():
    with pytest.raises(ConfigError, match="gold_token looks at answer tokens alone"):
        RECIPES["kl-min"].changed({"kl_mask": "all", "kl_mode": "gold_token"})
    for name, change in (
        ("kl-min", {"kl_mask": "some"}),
        ("undial", {"undial_mask": "prompt"}),
        ("jensun", {"jensun_target": "hot"}),
        ("pdu", {"pdu_shift": "two"}),
        ("idk", {"idk_reduction": "sum"}),
        ("klf", {"kl_mode": "half"}),
    ):
        with pytest.raises(ConfigError, match=f"Unknown {next(iter(change))}"):
            RECIPES[name].changed(change)
