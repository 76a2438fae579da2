import json
import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from eval.errors import ConfigError
from finetune_baselines.batches import encode_rows
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import RECIPES
from finetune_baselines.training import TrainingDivergedError, TrainRows, TrainSettings, run_training

SETTINGS = TrainSettings(
    learning_rate=1e-3, epochs=3, batch_size=4, warmup_epochs=0.0, weight_decay=0.0, schedule="constant"
)


def _rows(lm, examples):
    forget, retain = examples[:4], examples[4:]
    gold = encode_rows(lm, forget, [row.answer for row in forget], reference=lm)
    return TrainRows(
        forget=[(row,) for row in gold], retain=encode_rows(lm, retain, [row.answer for row in retain])
    )


def _state(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _close(first, second, atol=0.0):
    return all(torch.allclose(first[name], second[name], rtol=0, atol=atol) for name in first)


def _train(lm, examples, recipe="npo-rt", settings=SETTINGS, start=None, **options):
    """Train from ``start`` (default: the model as it is) and return the weights."""
    if start is not None:
        with torch.no_grad():
            for name, parameter in lm.model.named_parameters():
                parameter.copy_(start[name])
    rows = options.pop("rows", None) or _rows(lm, examples)
    result = run_training(lm, RecipeObjective(RECIPES[recipe]), rows, settings, **options)
    return _state(lm.model), result


def test_same_seed_same_weights_and_another_seed_others(tiny_lm, examples):
    start = _state(tiny_lm.model)
    first, _ = _train(tiny_lm, examples, seed=1)
    again, _ = _train(tiny_lm, examples, start=start, seed=1)
    other, _ = _train(tiny_lm, examples, start=start, seed=2)
    assert _close(first, again)
    assert not _close(first, other)
    assert not _close(first, start)


@pytest.mark.parametrize("recipe", ["graddiff", "npo-rt"])
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_micro_batches_equal_one_big_batch(tiny_lm, examples, recipe, accumulation):
    """Answers differ in length, so token means agree only because each micro-batch counts by its tokens."""
    longer = [row.replace(answer=row.answer + " Yes." * i) for i, row in enumerate(examples)]
    start = _state(tiny_lm.model)
    settings = replace(SETTINGS, max_grad_norm=0.0)
    rows = _rows(tiny_lm, longer)
    # SGD-like comparison is impossible through AdamW's signs at near-zero gradients; one step, then the gradients'
    # effect on the loss history is what must agree.
    _, whole = _train(tiny_lm, longer, recipe, settings, rows=rows)
    _, parts = _train(
        tiny_lm, longer, recipe, replace(settings, accumulation=accumulation), start=start, rows=rows
    )
    assert whole.steps == parts.steps == 3
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one["terms"] == pytest.approx(other["terms"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_lm, examples, tmp_path):
    start = _state(tiny_lm.model)
    settings = replace(SETTINGS, epochs=6, schedule="linear", save_steps=2)
    rows = _rows(tiny_lm, examples)
    whole, _ = _train(tiny_lm, examples, settings=settings, output_dir=tmp_path / "whole", rows=rows)

    class Killed(Exception):
        pass

    def kill_at_five(what, done, total):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        _train(
            tiny_lm,
            examples,
            settings=settings,
            start=start,
            output_dir=tmp_path / "cut",
            progress=kill_at_five,
            rows=rows,
        )
    resumed, result = _train(
        tiny_lm, examples, settings=settings, start=start, output_dir=tmp_path / "cut", resume=True, rows=rows
    )
    assert [entry["step"] for entry in result.history] == [5, 6]
    assert _close(whole, resumed, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    uncut = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in uncut], rel=1e-5)


def test_metrics_hold_every_term_and_their_sum(tiny_lm, examples, tmp_path):
    _, result = _train(tiny_lm, examples, output_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [dict(entry) for entry in result.history]
    assert len(lines) == 3
    for line in lines:
        assert set(line["terms"]) == {"forget_npo", "retain_ce"}
        assert sum(line["terms"].values()) == pytest.approx(line["loss"])
        assert line["grad_norm"] > 0
    assert [line["epoch"] for line in lines] == [1.0, 2.0, 3.0]


def test_checkpoints_hold_no_pickled_settings(tiny_lm, examples, tmp_path):
    _train(tiny_lm, examples, settings=replace(SETTINGS, save_steps=1), output_dir=tmp_path)
    names = {path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert "trainable.safetensors" in names
    assert "training_args.bin" not in names
    assert not any(name.endswith(".bin") for name in names)


def test_a_nan_term_is_named_and_the_state_before_it_kept(tiny_lm, examples, tmp_path):
    inner = RecipeObjective(RECIPES["npo-rt"])

    def poisoned(lm, batch, module):
        terms = inner(lm, batch, module)
        if batch.step == 2:
            terms["retain_ce"] = terms["retain_ce"] * float("nan")
        return terms

    seen = {}

    def remember(what, done, total):
        seen[done] = _state(tiny_lm.model)

    with pytest.raises(TrainingDivergedError, match=r"step 3 of 3.*'retain_ce'.*checkpoint-2") as caught:
        run_training(
            tiny_lm, poisoned, _rows(tiny_lm, examples), SETTINGS, output_dir=tmp_path, progress=remember
        )
    assert "Lower learning_rate" in str(caught.value)
    assert _close(_state(tiny_lm.model), seen[2])
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "checkpoints" / "checkpoint-2" / "trainable.safetensors")
    assert all(
        torch.equal(kept[f"model.{name}"], value)
        for name, value in seen[2].items()
        if f"model.{name}" in kept
    )
    assert len(kept) == len(seen[2])


def test_an_infinite_gradient_stops_before_it_poisons_the_weights(tiny_lm, examples):
    inner = RecipeObjective(RECIPES["ga"])

    class Sharp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    def sharp(lm, batch, module):
        return {name: Sharp.apply(term) for name, term in inner(lm, batch, module).items()}

    start = _state(tiny_lm.model)
    with pytest.raises(TrainingDivergedError, match="gradient"):
        run_training(tiny_lm, sharp, _rows(tiny_lm, examples), SETTINGS)
    assert _close(_state(tiny_lm.model), start)


def test_nothing_global_changes(tiny_lm, examples, capsys):
    tiny_lm.model.eval()
    tiny_lm.model.config.use_cache = True
    frozen = tiny_lm.model.model.embed_tokens.weight
    frozen.requires_grad_(False)
    torch.manual_seed(7)
    random.seed(7)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    level = (
        transformers.utils.logging.get_verbosity(),
        logging.getLogger("transformers").level,
        logging.root.level,
    )
    kept = frozen.detach().clone()
    _train(tiny_lm, examples)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert level == (
        transformers.utils.logging.get_verbosity(),
        logging.getLogger("transformers").level,
        logging.root.level,
    )
    assert tiny_lm.model.config.use_cache is True
    assert not any(module.training for module in tiny_lm.model.modules())
    assert not frozen.requires_grad
    assert torch.equal(frozen, kept)
    assert all(p.grad is None for p in tiny_lm.model.parameters())
    assert capsys.readouterr().out == ""


def test_only_the_given_module_is_trained(tiny_lm, examples):
    """What an intervention does: its own parameters train, the model's stay, flags come back."""
    start = _state(tiny_lm.model)
    bias = nn.Linear(1, 1)

    def objective(lm, batch, module):
        logits = lm.answer_logits(batch.both, module=module)
        return {"shifted": (logits.mean() * bias.weight + bias.bias).pow(2).sum()}

    before = _state(bias)
    result = run_training(tiny_lm, objective, _rows(tiny_lm, examples), SETTINGS, trainable=bias)
    assert result.steps == 3
    assert _close(_state(tiny_lm.model), start)
    assert not _close(_state(bias), before)
    assert all(p.requires_grad for p in tiny_lm.model.parameters())


def test_gradient_checkpointing_trains_to_the_same_weights(tiny_lm, examples):
    start = _state(tiny_lm.model)
    plain, _ = _train(tiny_lm, examples)
    checked, _ = _train(
        tiny_lm, examples, start=start, settings=replace(SETTINGS, gradient_checkpointing=True)
    )
    assert _close(plain, checked, atol=1e-5)


def test_alternatives_are_taken_by_epoch(tiny_lm, examples):
    """A forget row with several answers sees more than one of them over the epochs."""
    seen = set()
    lines = ["No idea.", "I cannot say.", "Unknown to me."]
    row = examples[0]
    alternatives = tuple(encode_rows(tiny_lm, [row] * 3, lines))

    def objective(lm, batch, module):
        seen.add(tuple(batch.forget.targets.tolist()))
        return {"ce": lm.answer_logits(batch.both, module=module).logsumexp(-1).mean()}

    run_training(
        tiny_lm, objective, TrainRows(forget=[alternatives]), replace(SETTINGS, epochs=12, batch_size=1)
    )
    assert len(seen) == 3


def test_a_model_without_trainable_parameters_is_refused(tiny_lm, examples):
    tiny_lm.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        _train(tiny_lm, examples)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0},
        {"epochs": 0},
        {"batch_size": 4, "accumulation": 3},
        {"schedule": "cubic"},
        {"weight_decay": -1.0},
        {"learning_rate": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        TrainSettings(**change)
