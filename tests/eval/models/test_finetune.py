from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from eval.errors import ConfigError, DataError
from eval.models import LanguageModel
from eval.models.finetune import FinetuneSettings, TokenBatches, finetune

QUICK = FinetuneSettings(epochs=6, batch_tokens=120, lr=5e-3)


def mean_loss(lm, examples):
    return float(np.mean([score.avg_loss for score in lm.score(examples, [e.answer for e in examples])]))


def weights(lm):
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def twin(lm):
    return LanguageModel(copy.deepcopy(lm.model), lm.tokenizer)


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss_of_the_answers(tiny_lm, examples, optimizer):
    before, identity = mean_loss(tiny_lm, examples), tiny_lm.identity
    returned = finetune(
        tiny_lm, examples, FinetuneSettings(epochs=6, batch_tokens=120, lr=5e-3, optimizer=optimizer)
    )
    assert returned is tiny_lm
    assert mean_loss(tiny_lm, examples) < 0.8 * before
    assert tiny_lm.identity != identity
    assert not tiny_lm.model.training
    assert all(parameter.grad is None for parameter in tiny_lm.model.parameters())


def test_lora_is_merged_and_leaves_no_adapter(tiny_lm, examples):
    before, names = mean_loss(tiny_lm, examples), set(tiny_lm.model.state_dict())
    finetune(tiny_lm, examples, FinetuneSettings(epochs=8, batch_tokens=120, lr=2e-2, parametrization="lora"))
    assert set(tiny_lm.model.state_dict()) == names
    assert mean_loss(tiny_lm, examples) < 0.95 * before


def test_the_random_state_of_the_caller_stays_and_nothing_is_printed(tiny_lm, examples, capsys):
    torch.manual_seed(5)
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    finetune(tiny_lm, examples, QUICK)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert capsys.readouterr().out == ""


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_lm, examples, tmp_path, optimizer
):
    settings = FinetuneSettings(epochs=6, batch_tokens=120, lr=5e-3, optimizer=optimizer, checkpoint_steps=4)
    straight = finetune(twin(tiny_lm), examples, settings, output_dir=tmp_path / "straight")

    def kill(what: str, done: int, total: int) -> None:
        if done == 10:
            raise Killed

    with pytest.raises(Killed):
        finetune(twin(tiny_lm), examples, settings, output_dir=tmp_path / "run", progress=kill)
    assert (tmp_path / "run" / "checkpoint-8").is_dir()
    (tmp_path / "run" / "checkpoint-12").mkdir()  # half-written: no trainer_state.json
    seen = []
    resumed = finetune(
        twin(tiny_lm),
        examples,
        settings,
        output_dir=tmp_path / "run",
        progress=lambda what, done, total: seen.append(done),
    )
    assert seen[0] == 9
    assert_same(weights(resumed), weights(straight))
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_equal_seeds_give_equal_weights(tiny_lm, examples):
    one, two = finetune(twin(tiny_lm), examples, QUICK), finetune(twin(tiny_lm), examples, QUICK)
    assert_same(weights(one), weights(two))


def test_batches_cover_every_row_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(3, 40, size=101)
    batches = TokenBatches(lengths, 100, seed=1)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        members = list(batches)
        assert len(members) == len(batches)
        assert sorted(i for rows in members for i in rows) == list(range(101))
        assert all(max(lengths[rows]) * len(rows) <= 100 for rows in members)
        epochs.append(members)
    assert epochs[0] != epochs[1]
    batches.set_epoch(0)
    assert list(batches) == epochs[0]


def test_a_row_longer_than_the_budget_stands_alone():
    assert [len(rows) for rows in TokenBatches([50, 3], 10)] == [1, 1]


def test_bad_input_is_refused(tiny_lm, examples):
    with pytest.raises(DataError, match="nothing to train on"):
        finetune(tiny_lm, [])
    with pytest.raises(DataError, match="has no answer"):
        finetune(tiny_lm, [examples[0].replace(answer=None)])
    with pytest.raises(ConfigError, match="lr of fine-tuning is 0"):
        FinetuneSettings(lr=0)
    with pytest.raises(ConfigError, match="Unknown optimizer"):
        FinetuneSettings(optimizer="sgd")
