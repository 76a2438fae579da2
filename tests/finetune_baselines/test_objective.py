import math

import pytest
import torch

from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.objective import RecipeObjective, needs_reference
from finetune_baselines.recipes import RECIPES


def _batch(lm, examples, num_forget=3, num_retain=2):
    forget, retain = examples[:num_forget], examples[num_forget : num_forget + num_retain]
    return collate_pairs(
        lm,
        encode_rows(lm, forget, [row.answer for row in forget], reference=lm),
        encode_rows(lm, retain, [row.answer for row in retain]),
    )


def _value(lm, batch, recipe, **options):
    with torch.no_grad():
        terms = RecipeObjective(recipe, **options)(lm, batch, lm.model)
    return {name: term.item() for name, term in terms.items()}


def _mean_nll(lm, rows):
    scores = lm.score(rows, [row.answer for row in rows])
    return -sum(s.sum_logp for s in scores) / sum(s.num_tokens for s in scores)


def test_terms_at_the_start_model_have_their_known_values(tiny_lm, examples):
    """GA: minus the token-mean CE of the forget answers; CE: that of the retain answers; NPO: (2/b) ln 2; KL: 0."""
    batch = _batch(tiny_lm, examples)
    ascent = -_mean_nll(tiny_lm, examples[:3])
    descent = _mean_nll(tiny_lm, examples[3:5])
    npo = 2 / 0.1 * math.log(2)
    expected = {
        "ga": {"forget_ga": ascent},
        "graddiff": {"forget_ga": ascent, "retain_ce": descent},
        "kl-min": {"forget_ga": ascent, "retain_kl": 0.0},
        "npo": {"forget_npo": npo},
        "npo-rt": {"forget_npo": npo, "retain_ce": descent},
        "npo-kl": {"forget_npo": npo, "retain_kl": 0.0},
    }
    for name, values in expected.items():
        assert _value(tiny_lm, batch, RECIPES[name], start=tiny_lm) == pytest.approx(
            values, rel=1e-5, abs=1e-6
        ), name


def test_weights_multiply_their_terms(tiny_lm, examples):
    batch = _batch(tiny_lm, examples)
    plain = _value(tiny_lm, batch, RECIPES["graddiff"])
    weighted = _value(
        tiny_lm, batch, RECIPES["graddiff"].changed({"forget_weight": 0.5, "retain_weight": 3.0})
    )
    assert weighted["forget_ga"] == pytest.approx(0.5 * plain["forget_ga"])
    assert weighted["retain_ce"] == pytest.approx(3 * plain["retain_ce"])


@pytest.mark.parametrize("name", ["graddiff", "npo-rt", "npo-kl"])
def test_padding_and_the_company_of_longer_rows_change_nothing(tiny_lm, examples, name):
    """T3: prompt and padding are masked, so a batch with a much longer row equals the same rows without it."""
    long = examples[5].replace(question="Please " * 40 + examples[5].question)
    short, padded = _batch(tiny_lm, examples), _batch(tiny_lm, [*examples[:4], long])
    recipe = RECIPES[name].changed({"retain_weight": 0.0})
    first = _value(tiny_lm, short, recipe, start=tiny_lm)
    second = _value(tiny_lm, padded, recipe, start=tiny_lm)
    assert padded.both.input_ids.shape[1] > short.both.input_ids.shape[1] + 50
    assert first == pytest.approx(second, rel=1e-4, abs=1e-5)


def test_the_prompt_gets_no_gradient_of_its_own(tiny_lm, examples):
    """Labels stand on the answer alone: scrambling which prompt tokens are labelled is impossible by construction,
    so the number of scored positions is the number of answer tokens, end of sequence included."""
    batch = _batch(tiny_lm, examples)
    scored = tiny_lm.answer_logits(batch.both).shape[0]
    answers = sum(
        len(row.answer_ids) for row in tiny_lm.encode(examples[:5], [e.answer for e in examples[:5]])
    )
    assert scored == answers == int(batch.lengths.sum())


def test_a_batch_without_retain_rows_gives_an_exact_zero(tiny_lm, examples):
    batch = _batch(tiny_lm, examples, num_retain=0)
    for name, term in (("graddiff", "retain_ce"), ("kl-min", "retain_kl"), ("npo-kl", "retain_kl")):
        terms = RecipeObjective(RECIPES[name], start=tiny_lm)(tiny_lm, batch, tiny_lm.model)
        assert terms[term].item() == 0.0
        assert terms[term].requires_grad


def test_halves_weighted_by_their_share_sum_to_the_whole(tiny_lm, examples):
    """Batch-split invariance: each term is a mean over its declared unit."""
    whole = _batch(tiny_lm, examples, num_forget=4, num_retain=4)
    parts = [
        collate_pairs(
            tiny_lm,
            encode_rows(
                tiny_lm, examples[i : i + 2], [e.answer for e in examples[i : i + 2]], reference=tiny_lm
            ),
            encode_rows(tiny_lm, examples[i + 4 : i + 6], [e.answer for e in examples[i + 4 : i + 6]]),
        )
        for i in (0, 2)
    ]
    with torch.no_grad():
        for parameter in tiny_lm.model.parameters():  # away from the reference, where NPO's rows differ
            parameter.mul_(1.5)
    for name in ("graddiff", "npo-rt"):
        objective = RecipeObjective(RECIPES[name])
        expected = _value(tiny_lm, whole, RECIPES[name])
        for term, unit in objective.units.items():
            total = whole.size(unit)
            got = sum(
                objective(tiny_lm, part, tiny_lm.model)[term].item() * part.size(unit) / total
                for part in parts
            )
            assert got == pytest.approx(expected[term], rel=1e-4)


def test_the_reference_is_a_constant_that_training_does_not_move(tiny_lm, examples):
    batch = _batch(tiny_lm, examples)
    before = batch.reference_logps.clone()
    with torch.no_grad():
        for parameter in tiny_lm.model.parameters():
            parameter.mul_(1.5)
    value = _value(tiny_lm, batch, RECIPES["npo"])["forget_npo"]
    assert not batch.reference_logps.requires_grad
    assert torch.equal(before.nan_to_num(), batch.reference_logps.nan_to_num())
    assert value != pytest.approx(2 / 0.1 * math.log(2), rel=1e-4)


def test_the_reference_is_scored_with_dropout_off(tiny_lm, examples):
    """T10: a model left in training mode with dropout gives the same reference as in evaluation mode."""
    rows, answers = examples[:3], [row.answer for row in examples[:3]]
    quiet = encode_rows(tiny_lm, rows, answers, reference=tiny_lm)
    for module in tiny_lm.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    tiny_lm.model.train()
    assert encode_rows(tiny_lm, rows, answers, reference=tiny_lm) == quiet
    assert tiny_lm.model.training


def test_recipes_declare_what_they_need():
    needs = {name: needs_reference(recipe) - {"none"} for name, recipe in RECIPES.items()}
    expected = {
        "logps": {"npo", "npo-rt", "npo-kl", "npo-token", "sam-npo", "dpo", "kto", "altpo"},
        "logits": {"kl-min", "npo-kl", "klf", "undial", "jensun"},
        "hidden": {"rmu"},
    }
    free = {"ga", "graddiff", "idk", "rm", "simnpo", "wga", "satimp", "ce-u", "pdu", "flat-tv", "flat-kl"}
    for reference, names in expected.items():
        assert {name for name in names if reference in needs[name]} == names
    assert all(needs[name] == set() for name in free)
    assert needs["npo-kl"] == {"logps", "logits"}
