"""AdaLoRA: ranks that move, a regulariser that counts, and a state that survives an interruption."""

import json
import math

import pytest
import torch

from eval.errors import ConfigError
from eval.types import UnlearningData
from finetune_baselines.method import FineTuning, train
from finetune_baselines.parametrization import AdaLora
from finetune_baselines.parametrization.adalora import orthogonality_loss, ranks
from finetune_baselines.recipes import LoraSettings

SETTINGS = {
    "parametrization": "adalora",
    "rank": 2,
    "alpha": 16.0,
    "targets": "all-linear",
    "init_rank_factor": 2.0,
    "epochs": 10,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "warmup_epochs": 0,
}
MATRICES = 14
"""Two blocks of seven linear layers."""


def _logits(lm, examples):
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(examples[:4], [row.answer for row in examples[:4]])))


def _train(lm, examples, folder=None, **changes):
    options = {"forget": examples[:4], "retain": examples[4:], "output_dir": folder, "seed": 3}
    return train(lm, "npo-rt", parametrization="adalora", overrides={**SETTINGS, **changes}, **options)


def test_it_starts_at_the_base_with_more_directions_than_it_ends_with(tiny_lm, examples):
    part = AdaLora(settings=LoraSettings(rank=2), init_rank_factor=1.5)
    tuned = part.prepare(tiny_lm, seed=0)
    assert part.starts_at_base
    assert torch.equal(_logits(tuned, examples), _logits(tiny_lm, examples))
    assert tuned.model.peft_config["default"].init_r == 3
    assert ranks(tuned.model) == dict.fromkeys(ranks(tuned.model), 0)  # no singular value has moved yet


def test_ranks_move_to_some_matrices_and_meet_the_budget(tiny_lm, examples):
    found = ranks(_train(tiny_lm, examples).model)
    assert len(found) == MATRICES
    assert sum(found.values()) == 2 * MATRICES  # the average a user asked for
    assert len(set(found.values())) > 1  # and not the same everywhere
    assert max(found.values()) <= 4  # never above what it starts with


@pytest.mark.slow
def test_frozen_ranks_stay_where_they_start(tiny_lm, examples):
    tuned = _train(tiny_lm, examples, reallocate_ranks=False)
    assert set(ranks(tuned.model).values()) == {4}


def test_the_budget_falls_in_the_middle_of_the_run_alone(tiny_lm, examples, tmp_path):
    seen = []
    part = AdaLora(settings=LoraSettings(rank=2), init_rank_factor=2.0, rank_warmup=0.2, rank_final=0.3)
    tuned = part.prepare(tiny_lm, seed=0)
    objective = part.objective(tuned, lambda lm, batch, module: {})
    objective._plan(10)
    allocator = tuned.model.base_model.rankallocator
    seen = [allocator.budget_schedule(step)[0] for step in range(1, 11)]
    assert seen[:2] == [4 * MATRICES] * 2
    assert seen[6:] == [2 * MATRICES] * 4
    assert seen[2:7] == [int(2 * MATRICES * (1 - (s - 2) / 5) ** 3 + 2 * MATRICES) for s in range(3, 8)]


def test_orthogonality_by_hand(tiny_lm):
    tuned = AdaLora(settings=LoraSettings(rank=2), init_rank_factor=1.0).prepare(tiny_lm, seed=0)
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.zero_()
                parameter.view(-1)[0] = 2.0  # gram matrix diag(4, 0): distance to I is sqrt(9 + 1)
    assert float(orthogonality_loss(tuned.model).detach()) == pytest.approx(math.sqrt(10))
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.eye(*parameter.shape))
    assert float(orthogonality_loss(tuned.model).detach()) == 0


@pytest.mark.slow
def test_the_regulariser_is_in_the_loss_and_makes_directions_orthogonal(tiny_lm, examples, tmp_path):
    _train(tiny_lm, examples, tmp_path, accumulation=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [line["terms"]["orthogonality"] for line in lines]
    # weight 0.5 times about sqrt(4) directions that start near 0, whatever the number of micro-batches
    assert values[0] == pytest.approx(0.5 * 2, rel=0.05)
    assert values[-1] < 0.9 * values[0]
    assert lines[0]["loss"] == pytest.approx(sum(lines[0]["terms"].values()))


def test_it_comes_back_from_disk_without_the_dropped_directions(tiny_lm, examples, tmp_path):
    tuned = _train(tiny_lm, examples, tmp_path)
    method = FineTuning("npo-rt", SETTINGS)
    loaded = method.load(tiny_lm, tmp_path)
    torch.testing.assert_close(_logits(loaded, examples), _logits(tuned, examples), rtol=1e-4, atol=1e-5)
    kept = {name: len(p) for name, p in loaded.model.named_parameters() if ".lora_E." in name}
    assert sum(kept.values()) == 2 * MATRICES
    assert {
        name.split(".lora_E")[0].removeprefix("base_model.model."): n for name, n in kept.items()
    } == ranks(tuned.model)
    with loaded.edit_disabled():
        assert torch.equal(_logits(loaded, examples), _logits(tiny_lm, examples))


class _Killed(Exception):
    pass


@pytest.mark.slow
def test_a_resumed_run_ends_at_the_same_ranks(tiny_lm, examples, tmp_path):
    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    method = FineTuning("npo-rt", {**SETTINGS, "save_steps": 3})
    whole = method.unlearn(tiny_lm, data, tmp_path / "whole", seed=1)

    def kill(what, done, total):
        if what == "training" and done == 7:
            raise _Killed

    with pytest.raises(_Killed):
        method.unlearn(tiny_lm, data, tmp_path / "cut", seed=1, progress=kill)
    steps = []
    again = method.unlearn(
        tiny_lm, data, tmp_path / "cut", seed=1, progress=lambda what, done, total: steps.append(done)
    )
    assert steps[0] == 7
    assert ranks(again.model) == ranks(whole.model)
    assert torch.equal(_logits(again, examples), _logits(whole, examples))


@pytest.mark.parametrize(
    "wrong", [{"init_rank_factor": 0.5}, {"rank_warmup": 0.7, "rank_final": 0.4}, {"orthogonality": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdaLora(**wrong)


def test_its_settings_are_its_own():
    with pytest.raises(ConfigError, match="rank_final belongs to adalora"):
        FineTuning("npo", {"parametrization": "lora", "rank_final": 0.2})
