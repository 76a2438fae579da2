"""Every recipe's terms on one batch: what they are at the start model, what may not change them, what they need."""

import json
import math
from dataclasses import fields, replace

import pytest
import torch

from eval.errors import ConfigError, DataError
from eval.models.blocks import decoder_blocks
from eval.types import UnlearningData
from finetune_baselines import RECIPES, TrainSettings, train
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.blocks import captured
from finetune_baselines.configuration import configure
from finetune_baselines.forget_answers import ANSWERS
from finetune_baselines.losses import rmu_direction
from finetune_baselines.objective import RecipeObjective, new_objective
from finetune_baselines.recipes import TUNABLE, LoraSettings, Recipe
from finetune_baselines.recipes.base import forget, retain
from finetune_baselines.recipes.options import RandomMatching
from finetune_baselines.terms import TERMS

LN2 = math.log(2)


def test_values_at_the_start_model(tiny_lm, examples, make_batch, term_values):
    """DPO and token NPO (2/b) ln 2; KTO 1 + (2/b) ln 2; divergences from the start 0; RMU's retain part 0."""
    expected = {
        "dpo": {"forget_dpo": 20 * LN2},
        "altpo": {"forget_dpo": 20 * LN2},
        "kto": {"forget_kto": 1 + 20 * LN2},
        "npo-token": {"forget_npo-token": 4 * LN2},
        "klf": {"forget_klf": 0.0},
        "jensun": {"retain_js": 0.0},
        "rmu": {"retain_embed-diff": 0.0},
        "kl-min": {"retain_kl": 0.0},
    }
    for name, terms in expected.items():
        batch = make_batch(tiny_lm, RECIPES[name], examples[:3], examples[3:5])
        got = term_values(tiny_lm, batch, RECIPES[name], start=tiny_lm)
        for label, value in terms.items():
            assert got[label] == pytest.approx(value, rel=1e-5, abs=1e-5), (name, label)


@pytest.mark.parametrize("name", RECIPES)
def test_padding_changes_nothing(tiny_lm, examples, moved, name, make_batch, term_values):
    """T3: a much longer question in the batch (on the retain side) leaves the forget terms as they were."""
    recipe = RECIPES[name]
    long = examples[5].replace(question="Please " * 40 + examples[5].question)
    batches = [
        make_batch(tiny_lm, recipe, examples[:3], kept) for kept in (examples[3:5], [examples[3], long])
    ]
    lm = moved()
    first, second = (term_values(lm, batch, recipe, start=lm) for batch in batches)
    labels = [use.label for use in recipe.active if use.side == "forget"]
    assert {label: first[label] for label in labels} == pytest.approx(
        {label: second[label] for label in labels}, rel=1e-3, abs=1e-4
    )


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "kto" and "flat" not in name])
def test_micro_batches_weighted_by_their_share_sum_to_the_whole(
    tiny_lm, examples, moved, name, make_batch, term_values, frozen
):
    """KTO's zero point and FLAT's means are a micro-batch's own; every other term is a mean over its unit."""
    recipe = RECIPES[name]
    whole = make_batch(tiny_lm, recipe, examples[:4], examples[4:8])
    halves = [make_batch(tiny_lm, recipe, examples[i : i + 2], examples[i + 4 : i + 6]) for i in (0, 2)]
    start = frozen(tiny_lm)
    lm = moved()
    objective = new_objective(recipe, start=start)
    expected = term_values(lm, whole, recipe, start=start)
    for label, unit in objective.units.items():
        parts = [term_values(lm, half, recipe, start=start)[label] * half.size(unit) for half in halves]
        assert sum(parts) / whole.size(unit) == pytest.approx(expected[label], rel=1e-3, abs=1e-5), label


@pytest.mark.parametrize("name", RECIPES)
def test_a_side_without_rows_is_an_exact_zero(tiny_lm, examples, name):
    recipe = RECIPES[name]
    forgotten = encode_rows(tiny_lm, examples[:2], ["A.", "B."], reference=tiny_lm, kind="unused")
    batch = collate_pairs(tiny_lm, forgotten, [])
    terms = new_objective(recipe, start=tiny_lm)(tiny_lm, batch, tiny_lm.model)
    assert terms
    for label, term in terms.items():
        assert term.item() == 0.0, label
    sum(terms.values()).backward()


# --- several answers to one question --------------------------------------------------------------------------------


def test_rows_are_sorted_by_kind_and_stay_paired(tiny_lm, examples):
    gold = encode_rows(tiny_lm, examples[:3], [row.answer for row in examples[:3]])
    other = encode_rows(tiny_lm, examples[:3], ["One.", "Two.", "Three."], kind="refusal")
    mixed = [row for pair in zip(gold, other, strict=True) for row in pair]
    batch = collate_pairs(tiny_lm, mixed, encode_rows(tiny_lm, examples[3:4], ["Kept."]))
    assert batch.sections == {"gold": slice(0, 3), "refusal": slice(3, 6), "retain": slice(6, 7)}
    assert [m[-1].content for m in batch.both.messages[:3]] == [
        m[-1].content for m in batch.both.messages[3:6]
    ]
    assert batch.num_forget == 6
    assert (batch.size("gold_rows"), batch.size("refusal_rows"), batch.size("forget_rows")) == (3, 3, 6)
    assert batch.size("negative_rows") == 0
    lengths = [len(row.encoded.answer_ids) for row in other]
    assert batch.size("refusal_tokens") == sum(lengths)


def test_random_answers_are_never_a_forget_answer_and_differ(examples):
    """RM: K draws an epoch from the retain answers, also where a retain row has a forget row's answer."""
    data = UnlearningData(
        forget=tuple(examples[:4]),
        retain=(*examples[4:10], examples[10].replace(answer=examples[0].answer)),
    )
    recipe = RECIPES["rm"].changed({"random_answers": 3})
    texts = ANSWERS["random"].texts(data, recipe, 2, 0)
    forbidden = {row.answer for row in data.forget}
    assert all(len(given) == len(set(given)) == 6 for given in texts)
    assert all(not forbidden & set(given) for given in texts)
    assert ANSWERS["random"].draws(recipe) == 3
    assert texts == ANSWERS["random"].texts(data, recipe, 2, 0)
    assert texts != ANSWERS["random"].texts(data, recipe, 2, 1)


def test_several_random_answers_cost_as_much_as_their_mean(tiny_lm, examples, term_values):
    """RM: the token mean over K answers of one question; K = 1 equals one cross-entropy."""
    recipe = RECIPES["rm"].changed({"retain_weight": 0.0})
    answers = ["The door is blue.", "A long answer about the sea and the sky.", "Yes."]
    rows = encode_rows(tiny_lm, [examples[0]] * 3, answers, kind="random")
    scores = tiny_lm.score([examples[0]] * 3, answers)
    three = term_values(tiny_lm, collate_pairs(tiny_lm, rows, []), recipe)["forget_ce"]
    one = term_values(tiny_lm, collate_pairs(tiny_lm, rows[:1], []), recipe)["forget_ce"]
    assert three == pytest.approx(
        -sum(s.sum_logp for s in scores) / sum(s.num_tokens for s in scores), rel=1e-5
    )
    assert one == pytest.approx(scores[0].avg_loss, rel=1e-5)


# --- RMU ------------------------------------------------------------------------------------------------------------


def test_rmu_reads_the_layer_it_names(tiny_lm, examples, make_batch, term_values):
    recipe = RECIPES["rmu"].changed({"rmu_layer": 0, "coefficient": 2.0})
    batch = make_batch(tiny_lm, recipe, examples[:2], examples[2:4])
    with torch.no_grad():
        states = tiny_lm.model(
            input_ids=batch.both.input_ids,
            attention_mask=batch.both.attention_mask,
            output_hidden_states=True,
        ).hidden_states[1]
    goal = 2.0 * rmu_direction(32, 0)
    rows = [
        (states[i][batch.both.attention_mask[i].bool()] - goal).square().mean(-1).mean().item()
        for i in range(2)
    ]
    assert term_values(tiny_lm, batch, recipe, start=tiny_lm)["forget_rmu"] == pytest.approx(
        sum(rows) / 2, rel=1e-4
    )


def test_rmu_sends_no_gradient_above_its_layer(tiny_lm, examples, make_batch, frozen):
    recipe = RECIPES["rmu"].changed({"rmu_layer": 0})
    batch = make_batch(tiny_lm, recipe, examples[:2], examples[2:4])
    terms = RecipeObjective(recipe, start=frozen(tiny_lm))(tiny_lm, batch, tiny_lm.model)
    sum(terms.values()).backward()
    with_gradient = {n for n, p in tiny_lm.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("layers.0.mlp.down_proj" in name for name in with_gradient)
    assert all("layers.0." in name or "embed_tokens" in name for name in with_gradient)


def test_rmu_refuses_a_layer_or_a_module_that_is_not_there(tiny_lm, examples):
    data = {"forget": examples[:4], "retain": examples[4:]}
    with pytest.raises(ConfigError, match="Layer 9 asked for, but this model has layers 0 to 1"):
        train(tiny_lm, "rmu", **data, overrides={"rmu_layer": 9, "rmu_modules": "all"})
    with pytest.raises(ConfigError, match=r"trains mlp.c_proj in blocks 0 to 1, .* holds: .*down_proj"):
        train(tiny_lm, "rmu", **data, overrides={"rmu_modules": "mlp.c_proj"})


def test_capturing_leaves_no_hook_behind(tiny_lm):
    blocks = decoder_blocks(tiny_lm.model)[1]
    with pytest.raises(KeyError), captured(tiny_lm.model, 1):
        raise KeyError
    assert not blocks[1]._forward_hooks


# --- PDU ------------------------------------------------------------------------------------------------------------


def test_pdu_reports_the_retain_loss_and_weighs_only_its_gradient(tiny_lm, examples, make_batch):
    recipe = RECIPES["pdu"].changed({"retain_weight": 7.0})
    batch = make_batch(tiny_lm, recipe, examples[:2], examples[2:4])
    plain = RecipeObjective(RECIPES["graddiff"])(tiny_lm, batch, tiny_lm.model)["retain_ce"]
    term = new_objective(recipe)(tiny_lm, batch, tiny_lm.model)["retain_ce"]
    assert term.item() == pytest.approx(plain.item(), rel=1e-6)
    weight = tiny_lm.model.lm_head.weight
    gradients = [torch.autograd.grad(value, weight)[0] for value in (plain, term)]
    assert torch.allclose(gradients[1], 7 * gradients[0], rtol=1e-4, atol=1e-7)


def test_pdu_moves_its_dual_variable_after_the_warm_up_and_keeps_it_in_checkpoints(
    tiny_lm, examples, make_batch
):
    recipe = RECIPES["pdu"].changed({"retain_weight": 7.0, "retain_bound": 1.0, "dual_rate": 2.0})
    objective = new_objective(recipe)
    batch = make_batch(tiny_lm, recipe, examples[:2], examples[2:4])

    def step(number, loss):
        objective(tiny_lm, replace(batch, step=number, num_steps=10), tiny_lm.model)
        assert objective.should_stop({"forget_pdu": 1.0, "retain_ce": loss}) is None

    step(4, 3.0)
    assert objective.dual == 7.0  # half of the run is warm-up
    step(5, 3.0)
    assert objective.dual == pytest.approx(11.0)  # 7 + 2 (3 - 1)
    step(6, 0.5)
    assert objective.dual == pytest.approx(10.0)
    again = new_objective(recipe)
    again.load_state_dict(objective.state_dict())
    assert again.dual == pytest.approx(10.0)


def test_pdu_without_a_retain_term_is_refused(tiny_lm, examples):
    with pytest.raises(ConfigError, match="pdu bounds one retain loss, but has 0 retain terms"):
        train(tiny_lm, "pdu", forget=examples[:4], overrides={"retain_weight": 0.0})


# --- recipes as data ------------------------------------------------------------------------------------------------


def test_every_name_of_the_field_is_there():
    names = (
        "ga graddiff kl-min klf rm idk dpo kto npo npo-rt npo-kl npo-token simnpo altpo wga satimp ce-u pdu jensun "
        "undial flat-tv flat-kl flat-js flat-pearson rmu sam-npo"
    )
    assert set(names.split()) <= set(RECIPES)
    for recipe in RECIPES.values():
        assert recipe.summary
        assert "\n" not in recipe.summary
        assert recipe.paper


def test_no_setting_of_a_method_hides_one_of_the_run_or_of_the_adapter():
    others = {field.name for cls in (TrainSettings, LoraSettings) for field in fields(cls)}
    assert not others & set(TUNABLE)
    for recipe in RECIPES.values():
        keys = [use.weight_key for use in recipe.terms]
        assert len(keys) == len(set(keys)), recipe.name


def test_a_recipe_of_many_terms_has_a_weight_and_a_name_for_each(tiny_lm, examples, make_batch, term_values):
    recipe = Recipe(
        name="six",
        summary="GNM's six terms.",
        paper="doi:10.1007/978-3-031-88714-7_16",
        terms=(
            forget("ga", weight=0.5, name="ga"),
            retain("ce", weight=5.0, name="gd"),
            forget("ce", on="random", name="rm"),
            forget("ce", on="negative", weight=0.04, name="gnm"),
            retain("kl", weight=5.0, name="klr"),
            forget("klf", name="klf"),
        ),
        extras=(RandomMatching,),
    )
    assert recipe.answer_kinds == ("gold", "random", "negative")
    batch = make_batch(tiny_lm, recipe, examples[:3], examples[3:6])
    values = term_values(tiny_lm, batch, recipe, start=tiny_lm)
    assert set(values) == {"ga", "gd", "rm", "gnm", "klr", "klf"}
    assert values["klr"] == pytest.approx(0.0, abs=1e-6)
    assert values["klf"] == pytest.approx(0.0, abs=1e-6)
    fewer = recipe.changed({"rm_weight": 0.0, "klf_weight": 0.0, "gd_weight": 0.0, "gnm_weight": 0.08})
    assert fewer.answer_kinds == ("gold", "negative")
    half = term_values(tiny_lm, make_batch(tiny_lm, fewer, examples[:3], examples[3:6]), fewer, start=tiny_lm)
    assert set(half) == {"ga", "gnm", "klr"}
    assert half["gnm"] == pytest.approx(2 * values["gnm"], rel=1e-5)


def test_a_recipe_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="unknown term 'gaa'"):
        replace(RECIPES["ga"], terms=(forget("gaa"),))
    with pytest.raises(ConfigError, match="retain_weight is -1"):
        RECIPES["graddiff"].changed({"retain_weight": -1.0})
    with pytest.raises(ConfigError, match="'beta' is no option of ga"):
        RECIPES["ga"].changed({"beta": 1.0})
    bad = {
        "npo": {"beta": 0.0},
        "simnpo": {"gamma": -1.0},
        "flat-tv": {"divergence": "hellinger"},
        "kto": {"kto_form": "hard"},
        "jensun": {"refusal_text": " "},
        "rm": {"random_answers": 0},
        "pdu": {"retain_bound": 0.0},
        "rmu": {"coefficient": 0.0},
        "kl-min": {"kl_direction": "both"},
        "satimp": {"beta2": -1.0},
    }
    for name, change in bad.items():
        with pytest.raises(ConfigError, match=next(iter(change))):
            RECIPES[name].changed(change)


def test_limits_stop_any_loss_without_a_lower_bound():
    for name, label in (("ga", "forget_ga"), ("klf", "forget_klf")):
        limited = RECIPES[name].changed(
            {"max_forget_loss": 5.0, "on_max_forget_loss": "stop", "forget_weight": 2.0}
        )
        objective = RecipeObjective(limited)
        assert objective.should_stop({label: -9.0}) is None
        assert "reached 5.50 nats" in objective.should_stop({label: -11.0})
    unbounded = {name for name, term in TERMS.items() if "max_forget_loss" in _options(term)}
    assert unbounded == {"ga", "ga-rows", "klf"}


def _options(term):
    return {field.name for field in fields(term.options)}


# --- what was not given ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.uses_retain])
def test_a_missing_retain_set_is_named(tiny_lm, examples, name):
    with pytest.raises(DataError, match=f"{name} .*needs retain rows"):
        train(tiny_lm, name, forget=examples[:4], alternates={str(i): ("x",) for i in range(4)})


ALONE = ("flat-tv", "flat-kl", "flat-js", "flat-pearson", "ce-u", "undial")
"""Published without a retain term; small models get one (see `finetune_baselines.presets`)."""


@pytest.mark.parametrize("name", ALONE)
def test_what_is_published_on_forget_data_alone_runs_on_it(tiny_lm, examples, name, tmp_path):
    published = configure(name, {"preset": "paper"}, num_parameters=0).recipe
    assert not published.uses_retain
    small = configure(name, {}, num_parameters=0).recipe
    assert small.uses_retain
    assert small.tunables["retain_weight"] > 0

    with pytest.raises(DataError, match=f"{name} .*needs retain rows"):
        train(tiny_lm, name, forget=examples[:2])
    train(
        tiny_lm,
        name,
        forget=examples[:2],
        overrides={"retain_weight": 0.0, "epochs": 1},
        output_dir=tmp_path,
    )
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert list(json.loads(line)["terms"]) == [published.active[0].label]


def test_missing_alternates_are_named(tiny_lm, examples):
    with pytest.raises(DataError, match="no alternates"):
        train(tiny_lm, "altpo", forget=examples[:4], retain=examples[4:])


def test_too_few_random_answers_are_named(tiny_lm, examples):
    with pytest.raises(DataError, match=r"rm puts 20 random retain answers .* but 8 different ones"):
        train(tiny_lm, "rm", forget=examples[:4], retain=examples[4:], overrides={"random_answers": 20})
