"""What every unlearning method promises, whatever it does inside."""

import importlib

import pytest
import torch

from eval.errors import ArtifactError, ConfigError
from eval.models import GenerationOptions

NAMES = (
    *importlib.import_module("grun.method").METHODS,
    "graddiff",  # `test_recipes` runs every fine-tuning recipe
    "idk",
    "npo-kl",
    "npo-lora",
    *importlib.import_module("guard.method").METHODS,
)
SHORT = GenerationOptions(max_new_tokens=10)


@pytest.fixture(params=NAMES)
def outcome(request, outcome_of):
    return outcome_of(request.param)


def _rows(outcome):
    return (*outcome.data.forget, *outcome.data.retain)


def _texts(lm, rows):
    return [answer.token_ids for answer in lm.generate([row.question for row in rows], SHORT)]


def test_it_says_what_it_is(outcome):
    method = outcome.case.method()
    assert method.name == outcome.case.name
    assert method.summary
    assert method.paper
    assert outcome.model.kind == method.kind
    assert method.kind in ("suppression", "edit", "weights")


def test_it_changes_the_model_and_not_the_target(outcome, logits_of):
    rows = _rows(outcome)
    assert torch.equal(logits_of(outcome.target, rows), outcome.before)
    is_refusal = outcome.case.name == "guard-refuse"
    texts = [_texts(lm, outcome.data.forget) for lm in (outcome.model, outcome.target)]
    changed = texts[0] != texts[1] or not torch.equal(logits_of(outcome.model, rows), outcome.before)
    assert changed
    assert outcome.target.kind == "none"
    assert not is_refusal or texts[0] != texts[1]


def test_switched_off_it_is_the_target(outcome, logits_of):
    if not outcome.case.has_switch:
        pytest.skip("tuned weights hold no switch; the target itself is the way back")
    rows = _rows(outcome)
    with outcome.model.edit_disabled():
        assert torch.equal(logits_of(outcome.model, rows), outcome.before)
        assert _texts(outcome.model, rows) == _texts(outcome.target, rows)


def test_it_comes_back_from_disk(outcome, new_target, logits_of):
    rows = _rows(outcome)
    again = outcome.case.method().load(new_target(), outcome.folder)
    assert torch.equal(logits_of(again, rows), logits_of(outcome.model, rows))
    assert _texts(again, rows) == _texts(outcome.model, rows)
    assert again.kind == outcome.model.kind


def test_the_same_seed_gives_the_same_model(outcome, new_target, tmp_path, logits_of):
    again = outcome.case.method().unlearn(new_target(), outcome.data, tmp_path, seed=5)
    rows = _rows(outcome)
    assert torch.equal(logits_of(again, rows), logits_of(outcome.model, rows))
    assert _texts(again, rows) == _texts(outcome.model, rows)


def test_a_row_alone_equals_its_row_in_a_padded_batch(outcome, logits_of):
    rows = _rows(outcome)
    together = outcome.model.score(rows, [row.answer for row in rows])
    for row, score in zip(rows, together, strict=True):
        alone = outcome.model.score([row], [row.answer])[0]
        torch.testing.assert_close(
            torch.from_numpy(alone.logps), torch.from_numpy(score.logps), rtol=1e-3, atol=1e-3
        )
    assert _texts(outcome.model, rows) == [_texts(outcome.model, [row])[0] for row in rows]


def test_only_declared_parameters_train_and_every_one_does(outcome):
    if not outcome.case.trains:
        pytest.skip("a filter trains no parameter of the model")
    model = outcome.model
    if model.kind == "edit":
        declared = dict(model.edits.named_parameters())
    elif outcome.case.name == "npo" and "parametrization" in outcome.case.overrides:
        declared = {name: p for name, p in model.model.named_parameters() if "lora_" in name}
    else:
        declared = dict(model.model.named_parameters())
    ours = {id(p): name for name, p in declared.items()}
    forbidden = {id(p): name for name, p in outcome.target.model.named_parameters()}
    stepped = set(outcome.trained)
    assert [name for key, name in forbidden.items() if key in stepped and key not in ours] == []
    assert [name for key, name in ours.items() if key not in outcome.moved] == []
    assert all(p.grad is None for p in outcome.target.model.parameters())
    assert all(p.requires_grad for p in outcome.target.model.parameters())


def test_a_missing_artifact_is_refused(outcome, new_target, tmp_path):
    with pytest.raises(ArtifactError):
        outcome.case.method().load(new_target(), tmp_path)


def test_the_artifact_of_another_base_is_refused(outcome, new_target):
    if outcome.model.kind == "suppression":
        pytest.skip("a store of phrases fits any model")
    with pytest.raises(ArtifactError, match="another base"):
        outcome.case.method().load(new_target(seed=1), outcome.folder)


def test_an_unknown_setting_is_refused(outcome):
    with pytest.raises(ConfigError, match="no_such_setting"):
        outcome.case.method(no_such_setting=1)


def test_the_random_state_of_the_process_is_left_alone(outcome, new_target, tmp_path):
    before = torch.get_rng_state()
    outcome.case.method().unlearn(new_target(), outcome.data, tmp_path, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
