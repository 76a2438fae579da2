"""TIES: hand-made tensors, two adapters merged into one model, halves that are not trained twice."""

import json

import pytest
import torch

from eval.errors import ConfigError
from eval.types import UnlearningData
from finetune_baselines.method import FineTuning, train
from finetune_baselines.parametrization import Lora
from finetune_baselines.parametrization.lora import ADAPTER, adapted_layers
from finetune_baselines.recipes import LoraSettings
from finetune_baselines.recipes.merged import TiesOptions
from finetune_baselines.ties import merge_changes, merge_models

QUICK = {
    "epochs": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_epochs": 0,
    "rank": 2,
    "alpha": 4.0,
    "dropout": 0.0,
    "targets": "mlp",
}
ONE = torch.ones(2)


def test_the_largest_entries_stay_and_each_entry_takes_the_elected_sign():
    first, second = torch.tensor([3.0, -1.0, 2.0, 0.5]), torch.tensor([-1.0, -3.0, 1.5, -4.0])
    # density 1/2 keeps [3, 0, 2, 0] and [0, -3, 0, -4]
    assert merge_changes([first, second], ONE, 0.5).tolist() == [3, -3, 2, -4]
    # density 1: sums [2, -4, 3.5, -3.5]; the 3, the mean of -1 and -3, the mean of 2 and 1.5, the -4
    assert merge_changes([first, second], ONE, 1.0).tolist() == [3, -2, 1.75, -4]


def test_a_balance_of_signs_goes_to_the_positive_entry():
    assert merge_changes([torch.tensor([1.0]), torch.tensor([-1.0])], ONE, 1.0).tolist() == [1]


def test_identical_changes_are_unchanged_and_density_zero_is_nothing():
    change = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merge_changes([change, change], ONE, 1.0), change)
    assert not merge_changes([change, change], ONE, 0.0).any()


def test_shares_scale_after_the_sign_is_elected():
    shares = torch.tensor([10.0, 1.0])
    assert merge_changes([torch.tensor([1.0]), torch.tensor([3.0])], shares, 1.0).tolist() == [6.5]
    assert merge_changes([torch.tensor([1.0]), torch.tensor([-3.0])], shares, 1.0).tolist() == [-3]


def _adapter(lm, seed):
    tuned = Lora(settings=LoraSettings(rank=2, alpha=4.0, targets="mlp")).prepare(lm, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapted_layers(tuned.model).values():
            up = layer.lora_B[ADAPTER].weight
            up.copy_(0.1 * torch.randn(up.shape, generator=generator))
    return tuned


def _logits(lm, examples):
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(examples[:4], [row.answer for row in examples[:4]])))


def _rotate(tuned):
    """Change the factors' basis and leave their product: B R and R^T A."""
    angle = torch.tensor(0.7)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    with torch.no_grad():
        for layer in adapted_layers(tuned.model).values():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            down.copy_(turn.T @ down)
            up.copy_(up @ turn)
    return tuned


def test_the_merged_model_is_the_base_plus_the_merged_changes(tiny_lm):
    tuned = [_adapter(tiny_lm, 1), _adapter(tiny_lm, 2)]
    merged, part, section = merge_models(tiny_lm, tuned, TiesOptions(), "ties")
    assert part.name == "full"
    for name, layer in adapted_layers(tuned[0].model).items():
        other = adapted_layers(tuned[1].model)[name]
        change = merge_changes([layer.get_delta_weight(ADAPTER), other.get_delta_weight(ADAPTER)], ONE, 0.8)
        expected = tiny_lm.model.get_submodule(name).weight + change
        torch.testing.assert_close(merged.model.get_submodule(name).weight, expected)
    assert merged.trainable_parameters == sum(one.trainable_parameters for one in tuned)
    assert len(section.data["rows"]) == 6
    assert 0.3 < section.data["rows"][0]["opposed"] < 0.7


def test_merging_changes_does_not_depend_on_the_basis_but_merging_factors_does(tiny_lm, examples):
    results = {}
    for space in ("dense", "factors"):
        options = TiesOptions(ties_space=space)
        plain, turned = (
            merge_models(tiny_lm, [change(_adapter(tiny_lm, 1)), _adapter(tiny_lm, 2)], options, "ties")[0]
            for change in (lambda tuned: tuned, _rotate)
        )
        results[space] = float((_logits(plain, examples) - _logits(turned, examples)).abs().max())
    assert results["dense"] < 1e-4
    assert results["factors"] > 100 * results["dense"]


def test_an_adapter_of_high_rank_says_the_same_and_one_of_low_rank_says_its_error(tiny_lm, examples):
    tuned = [_adapter(tiny_lm, 1), _adapter(tiny_lm, 2)]
    whole, _, _ = merge_models(tiny_lm, tuned, TiesOptions(), "ties")
    exact, part, section = merge_models(tiny_lm, tuned, TiesOptions(merge_rank=40), "ties")
    assert part.name == "lora"
    torch.testing.assert_close(_logits(exact, examples), _logits(whole, examples), rtol=1e-3, atol=1e-4)
    assert max(row["error"] for row in section.data["rows"]) < 1e-5
    _, _, rough = merge_models(tiny_lm, tuned, TiesOptions(merge_rank=1), "ties")
    assert min(row["error"] for row in rough.data["rows"]) > 0.1


def test_both_halves_are_trained_with_their_own_weights_and_merged(tiny_lm, examples, tmp_path):
    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    method = FineTuning("ties", QUICK)
    tuned = method.unlearn(tiny_lm, data, tmp_path, seed=2)
    halves = {name: json.loads((tmp_path / name / "finetune.json").read_text()) for name in ("over", "under")}
    assert halves["over"]["settings"]["forget_weight"] == 0.4
    assert halves["under"]["settings"]["forget_weight"] == 0.3
    assert halves["under"]["settings"]["batch_size"] == 2 * halves["over"]["settings"]["batch_size"]
    assert json.loads((tmp_path / "sections.json").read_text())[0]["id"] == "ties-merge"
    loaded = method.load(tiny_lm, tmp_path)
    assert torch.equal(_logits(loaded, examples), _logits(tuned, examples))
    assert not torch.equal(_logits(loaded, examples), _logits(tiny_lm, examples))
    told = []
    again = method.unlearn(tiny_lm, data, tmp_path, seed=2, progress=lambda *what: told.append(what))
    assert told == []  # both halves were finished
    assert torch.equal(_logits(again, examples), _logits(tuned, examples))


def test_whole_models_merge_too_but_have_no_factors(tiny_lm, examples, tmp_path):
    overrides = {
        key: value for key, value in QUICK.items() if key in ("epochs", "batch_size", "learning_rate")
    }
    rows = {"forget": examples[:4], "retain": examples[4:]}
    tuned = train(tiny_lm, "ties", parametrization="full", overrides=overrides, output_dir=tmp_path, **rows)
    start = dict(tiny_lm.model.named_parameters())
    assert all(
        not torch.equal(p, start[name]) for name, p in tuned.model.named_parameters() if "proj" in name
    )
    assert tuned.trainable_parameters == 2 * sum(p.numel() for p in tiny_lm.model.parameters())
    with pytest.raises(ConfigError, match="about adapters"):
        train(tiny_lm, "ties", parametrization="full", overrides={"merge_rank": 4}, **rows)


@pytest.mark.parametrize(
    "wrong", [{"density": 1.5}, {"ties_space": "x"}, {"merge_rank": 0}, {"over_share": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TiesOptions(**wrong)
