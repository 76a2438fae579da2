"""Monitors along a run, hooks, precision, and what a run may report to."""

import json
from dataclasses import replace

import pytest
import torch

from eval.errors import ConfigError
from finetune_baselines.monitoring import Monitor, monitoring
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.recipes import RECIPES

# --- monitors -------------------------------------------------------------------------------------------------------


def _forget_loss(lm, examples):
    return sum(s.avg_loss for s in lm.score(examples[:5], [row.answer for row in examples[:5]])) / 5


def test_a_monitor_measures_start_middle_and_end_whoever_starts_the_run(tiny_lm, examples, tmp_path, runs):
    first = _forget_loss(tiny_lm, examples)
    monitor = Monitor(measure=lambda lm, step, folder: {"loss": _forget_loss(lm, examples)}, every=2)
    with monitoring(monitor):
        result = runs.npo(tiny_lm, runs.rows(tiny_lm, examples), output_dir=tmp_path)
    assert result.steps == 5
    records = [json.loads(line) for line in (tmp_path / "dynamics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    assert records[0]["values"]["loss"] == pytest.approx(first)
    assert records[-1]["values"]["loss"] == pytest.approx(_forget_loss(tiny_lm, examples))
    assert result.best_step is None


def test_measuring_changes_nothing_about_the_run(tiny_lm, examples, runs):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    runs.npo(tiny_lm, rows)
    plain = runs.state(tiny_lm)
    runs.put(tiny_lm, start)

    def measure(lm, step, folder):
        torch.rand(7)
        return {"loss": _forget_loss(lm, examples)}

    runs.npo(tiny_lm, rows, monitor=Monitor(measure=measure, every=1))
    assert runs.same(plain, runs.state(tiny_lm))


@pytest.mark.parametrize("has_folder", [True, False])
def test_the_best_steps_weights_come_back_and_patience_ends_the_run(
    tiny_lm, examples, tmp_path, has_folder, runs
):
    values = {0: 0.1, 1: 0.4, 2: 0.9, 3: 0.7, 4: 0.9, 5: 0.2}
    seen = {}

    def measure(lm, step, folder):
        seen[step] = runs.state(lm)
        return {"score": values[step]}

    monitor = Monitor(measure=measure, every=1, criterion="score", patience=2)
    result = runs.npo(
        tiny_lm, runs.rows(tiny_lm, examples), monitor=monitor, output_dir=tmp_path if has_folder else None
    )
    assert result.best_step == 2  # the first of equals
    assert result.steps == 4
    assert "not improved in 2 evaluations; its best value was at step 2" in result.stopped
    assert runs.same(seen[2], runs.state(tiny_lm))
    assert not runs.same(seen[4], runs.state(tiny_lm))


def test_a_criterion_may_be_a_function_or_the_smallest_value(tiny_lm, examples):
    smallest = Monitor(measure=lambda *_: {}, every=1, criterion="-x")
    both = Monitor(measure=lambda *_: {}, every=1, criterion=lambda v: v["x"] * v["y"])
    assert smallest.merit({"x": 3.0}) == -3.0
    assert both.merit({"x": 3.0, "y": 2.0}) == 6.0
    assert smallest.merit({"x": None}) is None
    with pytest.raises(ConfigError, match="'x' was not measured; measured are: z"):
        smallest.merit({"z": 1.0})
    with pytest.raises(ConfigError, match="needs a criterion"):
        Monitor(measure=lambda *_: {}, every=1, patience=2)
    with pytest.raises(ConfigError, match="at least 1"):
        Monitor(measure=lambda *_: {}, every=0)


def test_a_resumed_run_measures_each_step_once_and_remembers_the_best(tiny_lm, examples, tmp_path, runs):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    measured = []

    def measure(lm, step, folder):
        measured.append(step)
        return {"score": -abs(step - 2)}

    monitor = Monitor(measure=measure, every=1, criterion="score")
    settings = replace(runs.settings, save_steps=1)

    def kill(what, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.npo(tiny_lm, rows, settings, monitor=monitor, output_dir=tmp_path, progress=kill)
    runs.put(tiny_lm, start)
    result = runs.npo(tiny_lm, rows, settings, monitor=monitor, output_dir=tmp_path, resume=True)
    records = [json.loads(line) for line in (tmp_path / "dynamics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == measured == [0, 1, 2, 3, 4, 5]
    assert result.best_step == 2


# --- hooks, precision, reports ----------------------------------------------------------------------------------------


def test_the_objectives_hook_sees_the_gradients_of_each_update(tiny_lm, examples, runs):
    calls = []

    class Hooked(RecipeObjective):
        def after_update(self, step):
            calls.append((step, tiny_lm.model.lm_head.weight.grad is not None))

    runs.npo(tiny_lm, runs.rows(tiny_lm, examples), objective=Hooked(RECIPES["npo-rt"]))
    assert calls == [(i, True) for i in range(5)]


def test_bf16_trains_fp32_weights_to_nearly_the_same_place(tiny_lm, examples, runs):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    plain = runs.npo(tiny_lm, rows).history
    runs.put(tiny_lm, start)
    mixed = runs.npo(tiny_lm, rows, replace(runs.settings, bf16=True)).history
    assert {parameter.dtype for parameter in tiny_lm.model.parameters()} == {torch.float32}
    assert [e["loss"] for e in mixed] == pytest.approx([e["loss"] for e in plain], rel=2e-2)
    assert [e["loss"] for e in mixed] != [e["loss"] for e in plain]


def test_losses_terms_and_values_go_where_report_to_says(tiny_lm, examples, monkeypatch, runs):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    logged = []

    class Memory(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **more):
            logged.append((state.global_step, dict(logs)))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "memory", Memory)
    monitor = Monitor(measure=lambda *_: {"score": 0.5, "none": None}, every=5)
    runs.npo(
        tiny_lm, runs.rows(tiny_lm, examples), replace(runs.settings, report_to="memory"), monitor=monitor
    )
    steps = [logs for _, logs in logged if "loss" in logs]
    assert len(steps) == 5
    assert {"loss", "learning_rate", "forget_npo", "retain_ce"} <= set(steps[0])
    assert [(step, logs["eval/score"]) for step, logs in logged if "eval/score" in logs] == [
        (0, 0.5),
        (5, 0.5),
    ]
    with pytest.raises(
        ConfigError, match=r"report_to names 'paper'; use none, all, or some of: .*tensorboard"
    ):
        runs.npo(tiny_lm, runs.rows(tiny_lm, examples), replace(runs.settings, report_to="paper"))
