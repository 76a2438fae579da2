"""Runs of several phases, alternating steps, an inner perturbation, monitors, and what a run may report to."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch

from eval.errors import ArtifactError, ConfigError
from eval.types import Example
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.method import METHODS, train
from finetune_baselines.monitoring import Monitor, monitoring
from finetune_baselines.objective import RecipeObjective, new_objective
from finetune_baselines.perturbation import Perturbation, perturbed, uphill
from finetune_baselines.recipes import RECIPES
from finetune_baselines.sampling import Chunks, Pairs, Schedule
from finetune_baselines.training import TrainRows, TrainSettings, run_training

SETTINGS = TrainSettings(
    learning_rate=1e-3, epochs=2, batch_size=2, warmup_epochs=0.0, weight_decay=0.0, retain_per_forget=2
)


def _rows(lm, examples):
    gold = encode_rows(lm, examples[:5], [row.answer for row in examples[:5]], reference=lm)
    return TrainRows(
        forget=[(row,) for row in gold],
        retain=encode_rows(lm, examples[5:], [row.answer for row in examples[5:]]),
    )


def _state(lm):
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def _put(lm, state):
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            parameter.copy_(state[name])


def _same(first, second, atol=0.0):
    return all(torch.allclose(first[name], second[name], rtol=0, atol=atol) for name in first)


def _run(lm, rows, settings=SETTINGS, recipe="npo-rt", objective=None, **options):
    return run_training(lm, objective or RecipeObjective(RECIPES[recipe]), rows, settings, **options)


@dataclass(frozen=True)
class _OnePhase:
    """A sampling that is one phase of another."""

    whole: Chunks
    number: int

    def schedule(self, size):
        return Schedule([self.whole.schedule(size).phases[self.number]])


# --- phases -----------------------------------------------------------------------------------------------------


def test_a_chunked_run_is_its_chunks_run_one_after_another_each_with_a_new_optimizer(tiny_lm, examples):
    rows, start, chunks = _rows(tiny_lm, examples), _state(tiny_lm), Chunks(chunk_size=2)
    result = _run(tiny_lm, rows, sampling=chunks)
    whole = _state(tiny_lm)
    _put(tiny_lm, start)
    apart = [_run(tiny_lm, rows, sampling=_OnePhase(chunks, number)) for number in range(3)]
    assert _same(whole, _state(tiny_lm), atol=1e-7)
    assert result.steps == sum(one.steps for one in apart) == 2 + 2 + 1
    rates = [entry["learning_rate"] for entry in result.history]
    assert rates == [entry["learning_rate"] for one in apart for entry in one.history]
    assert [entry["phase"] for entry in result.history] == ["chunk 1 of 3"] * 2 + ["chunk 2 of 3"] * 2 + [
        "chunk 3 of 3"
    ]


def test_a_chunked_run_killed_in_its_second_chunk_goes_on_as_if_nothing_had_been(tiny_lm, examples, tmp_path):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    settings = replace(SETTINGS, epochs=4, save_steps=1)
    options = {"settings": settings, "sampling": Chunks(chunk_size=2)}
    seen = {}

    def objective(tag):
        inner = RecipeObjective(RECIPES["npo-rt"])

        class Watching(RecipeObjective):
            def __call__(self, lm, batch, module):
                seen.setdefault(tag, []).append(batch.both.input_ids.tolist())
                return inner(lm, batch, module)

        return Watching(RECIPES["npo-rt"])

    _run(tiny_lm, rows, objective=objective("whole"), output_dir=tmp_path / "whole", **options)
    whole = _state(tiny_lm)
    _put(tiny_lm, start)

    def kill(what, done, total):
        if done == 7:  # the third step of the second chunk of 4 + 4 + 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tiny_lm, rows, objective=objective("cut"), output_dir=tmp_path / "cut", progress=kill, **options)
    seen["cut"] = seen["cut"][:6]  # the seventh step was not kept
    for checkpoint in (True, tmp_path / "cut" / "checkpoints" / "checkpoint-5"):
        _put(tiny_lm, start)
        tag = str(checkpoint)
        kept = _run(tiny_lm, rows, objective=objective(tag), output_dir=tmp_path / "cut", resume=checkpoint,
                    **options)  # fmt: skip
        done = 6 if checkpoint is True else 5
        assert [entry["step"] for entry in kept.history] == list(range(done + 1, 11))
        assert seen["cut"][:done] + seen[tag] == seen["whole"]
        assert _same(whole, _state(tiny_lm), atol=1e-6)
        if checkpoint is True:  # for the second round: the checkpoints as they were
            again = replace(settings, epochs=4)
            _put(tiny_lm, start)
            with pytest.raises(KeyboardInterrupt):
                _run(tiny_lm, rows, objective=objective("again"), output_dir=tmp_path / "cut", progress=kill,
                     **(options | {"settings": again}))  # fmt: skip


@pytest.mark.parametrize(("recipe", "term"), [("graddiff", "forget_ga"), ("npo-rt", "forget_npo")])
def test_alternating_steps_see_one_side_each_with_a_fresh_forward(tiny_lm, examples, recipe, term):
    sides = []

    class Watching(RecipeObjective):
        def __call__(self, lm, batch, module):
            sides.append((batch.num_forget, batch.num_retain))
            return super().__call__(lm, batch, module)

    result = _run(
        tiny_lm,
        _rows(tiny_lm, examples),
        objective=Watching(RECIPES[recipe]),
        sampling=Pairs(alternate=True),
    )
    assert result.steps == 10
    assert sides == [(2, 0), (0, 4)] * 5
    for number, entry in enumerate(result.history):
        forgets, retains = entry["terms"][term], entry["terms"]["retain_ce"]
        assert (forgets != 0 and retains == 0) if number % 2 == 0 else (forgets == 0 and retains > 0)


def test_each_sequential_recipe_unlearns_and_its_phases_are_logged(tiny_lm, examples, tmp_path):
    things = ["door", "house", "hat", "ship", "tree", "book", "sea", "sky"]
    retain = [
        Example(id=thing, question=f"What colour is the {thing}?", answer=f"The {thing} is blue.")
        for thing in things
    ]
    for name in ("clausen", "ails-sugd", "ails-agad"):
        options = {
            "epochs": 2,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "chunk_size": 2,
            "targets": "all-linear",
            "retain_per_forget": 1,
        }
        if name != "clausen":
            options["max_forget_loss"] = 50.0
        tuned = train(tiny_lm, name, forget=examples[:4], retain=retain, parametrization="lora",
                      overrides=options, output_dir=tmp_path / name)  # fmt: skip
        answers = [row.answer for row in examples[:4]]
        before, after = (sum(s.prob for s in lm.score(examples[:4], answers)) for lm in (tiny_lm, tuned))
        assert after < before, name
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert len({line["phase"] for line in lines}) == (5 if name == "ails-agad" else 2)


def test_one_forget_row_and_seven_retain_rows_weigh_as_the_winning_run_had_them(tiny_lm, examples):
    """SUGD with factor 0.5: -CE_f / 8 + 0.5 * 7/8 * mean CE_r, each CE a mean over its row's tokens."""
    longer = [row.replace(answer=row.answer + " Yes." * i) for i, row in enumerate(examples[:8])]
    rows = encode_rows(tiny_lm, longer, [row.answer for row in longer])
    losses = [score.avg_loss for score in tiny_lm.score(longer, [row.answer for row in longer])]
    objective = new_objective(RECIPES["ails-sugd"])
    batch = collate_pairs(tiny_lm, rows[:1], rows[1:])
    with torch.no_grad():
        terms = objective(tiny_lm, batch, tiny_lm.model)
    assert float(terms["forget_ga-rows"]) == pytest.approx(-losses[0] / 8, rel=1e-4)
    assert float(terms["retain_ce-rows"]) == pytest.approx(0.5 * 7 / 8 * sum(losses[1:]) / 7, rel=1e-4)


@pytest.mark.parametrize("batch_of", ["pairs", "rows"])
def test_micro_batches_of_rows_add_up_to_the_batch(tiny_lm, examples, batch_of):
    longer = [row.replace(answer=row.answer + " Yes." * i) for i, row in enumerate(examples)]
    rows, start = _rows(tiny_lm, longer), _state(tiny_lm)
    histories = []
    for accumulation in (1, 4):
        _put(tiny_lm, start)
        settings = replace(SETTINGS, batch_size=4, accumulation=accumulation)
        objective = new_objective(RECIPES["ails-sugd"])
        sampling = Chunks(chunk_size=3, batch_of=batch_of)
        histories.append(_run(tiny_lm, rows, settings, objective=objective, sampling=sampling).history)
    for one, parts in zip(*histories, strict=True):
        assert one["terms"] == pytest.approx(parts["terms"], rel=1e-4, abs=1e-6)
        assert one["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-3)


# --- the inner perturbation -----------------------------------------------------------------------------------------


class _Sharp(RecipeObjective):
    """NPO + CE whose forget gradient is taken uphill."""

    def __init__(self, rho):
        super().__init__(RECIPES["npo-rt"])
        self.perturbation = Perturbation(rho=rho)


def _naive_gradient(lm, rows, rho):
    """The norm of grad NPO(theta + rho g / ||g||) + grad CE(theta), on all rows as one batch."""
    objective = RecipeObjective(RECIPES["npo-rt"])
    pairs = [(pair.forget[0], pair.retain) for pair in Pairs().schedule(_size(rows))[0]]
    batch = collate_pairs(
        lm, [rows.forget[i][0] for i, _ in pairs], [rows.retain[j] for _, kept in pairs for j in kept]
    )
    parameters = list(lm.model.parameters())

    def gradient(name):
        return torch.autograd.grad(objective(lm, batch, lm.model)[name], parameters)

    kept, g = gradient("retain_ce"), gradient("forget_npo")
    norm = math.sqrt(sum(float(one.pow(2).sum()) for one in g))
    with torch.no_grad():
        for parameter, one in zip(parameters, g, strict=True):
            parameter.add_(one, alpha=rho / norm)
    sharp = gradient("forget_npo")
    return math.sqrt(sum(float((a + b).pow(2).sum()) for a, b in zip(kept, sharp, strict=True)))


def _size(rows):
    from finetune_baselines.sampling import RunSize

    return RunSize(num_forget=5, num_retain=len(rows.retain), epochs=1, batch_size=4, retain_per_forget=2)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_forget_gradient_is_taken_uphill_and_the_retain_gradient_is_not(tiny_lm, examples, accumulation):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    settings = replace(SETTINGS, epochs=1, batch_size=4, accumulation=accumulation, max_grad_norm=0.0)
    first = _run(tiny_lm, rows, settings, objective=_Sharp(0.5)).history[0]
    _put(tiny_lm, start)
    plain = _run(tiny_lm, rows, settings).history[0]
    _put(tiny_lm, start)
    assert first["grad_norm"] == pytest.approx(_naive_gradient(tiny_lm, rows, 0.5), rel=1e-3)
    assert first["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-2)
    assert first["terms"]["retain_ce"] == pytest.approx(plain["terms"]["retain_ce"], rel=1e-4)
    assert first["terms"]["forget_npo"] > plain["terms"]["forget_npo"]  # uphill


def test_without_length_the_perturbation_is_none(tiny_lm, examples):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    _run(tiny_lm, rows, objective=_Sharp(0.0))
    flat = _state(tiny_lm)
    _put(tiny_lm, start)
    _run(tiny_lm, rows)
    assert _same(flat, _state(tiny_lm))


def _fail_if_unmoved(parameters, before):
    assert not all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    raise RuntimeError("inside")


def test_an_offset_has_its_length_over_all_tensors_and_weights_come_back_bit_for_bit(tiny_lm):
    torch.manual_seed(0)
    parameters = list(tiny_lm.model.bfloat16().parameters())  # adding and subtracting would not be exact here
    before = [parameter.detach().clone() for parameter in parameters]
    offsets = uphill([torch.randn_like(parameter) for parameter in parameters], 0.3)
    length = math.sqrt(sum(float(offset.float().pow(2).sum()) for offset in offsets))
    assert length == pytest.approx(0.3, rel=1e-2)
    with pytest.raises(RuntimeError, match="inside"), perturbed(parameters, offsets):
        _fail_if_unmoved(parameters, before)
    assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    assert all(float(offset.abs().sum()) == 0 for offset in uphill([torch.zeros(3)], 0.3))
    with pytest.raises(ConfigError, match="rho is -1"):
        Perturbation(rho=-1)


# --- monitors -------------------------------------------------------------------------------------------------------


def _forget_loss(lm, examples):
    return sum(s.avg_loss for s in lm.score(examples[:5], [row.answer for row in examples[:5]])) / 5


def test_a_monitor_measures_start_middle_and_end_whoever_starts_the_run(tiny_lm, examples, tmp_path):
    first = _forget_loss(tiny_lm, examples)
    monitor = Monitor(measure=lambda lm, step, folder: {"loss": _forget_loss(lm, examples)}, every=2)
    with monitoring(monitor):
        result = _run(tiny_lm, _rows(tiny_lm, examples), output_dir=tmp_path)
    assert result.steps == 5
    records = [json.loads(line) for line in (tmp_path / "dynamics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    assert records[0]["values"]["loss"] == pytest.approx(first)
    assert records[-1]["values"]["loss"] == pytest.approx(_forget_loss(tiny_lm, examples))
    assert result.best_step is None


def test_measuring_changes_nothing_about_the_run(tiny_lm, examples):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    _run(tiny_lm, rows)
    plain = _state(tiny_lm)
    _put(tiny_lm, start)

    def measure(lm, step, folder):
        torch.rand(7)
        return {"loss": _forget_loss(lm, examples)}

    _run(tiny_lm, rows, monitor=Monitor(measure=measure, every=1))
    assert _same(plain, _state(tiny_lm))


@pytest.mark.parametrize("has_folder", [True, False])
def test_the_best_steps_weights_come_back_and_patience_ends_the_run(tiny_lm, examples, tmp_path, has_folder):
    values = {0: 0.1, 1: 0.4, 2: 0.9, 3: 0.7, 4: 0.9, 5: 0.2}
    seen = {}

    def measure(lm, step, folder):
        seen[step] = _state(lm)
        return {"score": values[step]}

    monitor = Monitor(measure=measure, every=1, criterion="score", patience=2)
    result = _run(
        tiny_lm, _rows(tiny_lm, examples), monitor=monitor, output_dir=tmp_path if has_folder else None
    )
    assert result.best_step == 2  # the first of equals
    assert result.steps == 4
    assert "not improved in 2 evaluations; its best value was at step 2" in result.stopped
    assert _same(seen[2], _state(tiny_lm))
    assert not _same(seen[4], _state(tiny_lm))


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


def test_a_resumed_run_measures_each_step_once_and_remembers_the_best(tiny_lm, examples, tmp_path):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    measured = []

    def measure(lm, step, folder):
        measured.append(step)
        return {"score": -abs(step - 2)}

    monitor = Monitor(measure=measure, every=1, criterion="score")
    settings = replace(SETTINGS, save_steps=1)

    def kill(what, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tiny_lm, rows, settings, monitor=monitor, output_dir=tmp_path, progress=kill)
    _put(tiny_lm, start)
    result = _run(tiny_lm, rows, settings, monitor=monitor, output_dir=tmp_path, resume=True)
    records = [json.loads(line) for line in (tmp_path / "dynamics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == measured == [0, 1, 2, 3, 4, 5]
    assert result.best_step == 2


# --- hooks, precision, reports ----------------------------------------------------------------------------------------


def test_the_objectives_hook_sees_the_gradients_of_each_update(tiny_lm, examples):
    calls = []

    class Hooked(RecipeObjective):
        def after_update(self, step):
            calls.append((step, tiny_lm.model.lm_head.weight.grad is not None))

    _run(tiny_lm, _rows(tiny_lm, examples), objective=Hooked(RECIPES["npo-rt"]))
    assert calls == [(i, True) for i in range(5)]


def test_bf16_trains_fp32_weights_to_nearly_the_same_place(tiny_lm, examples):
    rows, start = _rows(tiny_lm, examples), _state(tiny_lm)
    plain = _run(tiny_lm, rows).history
    _put(tiny_lm, start)
    mixed = _run(tiny_lm, rows, replace(SETTINGS, bf16=True)).history
    assert {parameter.dtype for parameter in tiny_lm.model.parameters()} == {torch.float32}
    assert [e["loss"] for e in mixed] == pytest.approx([e["loss"] for e in plain], rel=2e-2)
    assert [e["loss"] for e in mixed] != [e["loss"] for e in plain]


def test_losses_terms_and_values_go_where_report_to_says(tiny_lm, examples, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    logged = []

    class Memory(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **more):
            logged.append((state.global_step, dict(logs)))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "memory", Memory)
    monitor = Monitor(measure=lambda *_: {"score": 0.5, "none": None}, every=5)
    _run(tiny_lm, _rows(tiny_lm, examples), replace(SETTINGS, report_to="memory"), monitor=monitor)
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
        _run(tiny_lm, _rows(tiny_lm, examples), replace(SETTINGS, report_to="paper"))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_another_method_is_refused_with_a_sentence(tiny_lm, examples, tmp_path):
    from eval.types import UnlearningData

    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    options = {"epochs": 6, "save_steps": 2, "batch_size": 4}

    def kill(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS["npo"](options).unlearn(tiny_lm, data, tmp_path, progress=kill)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(ArtifactError, match="unfinished run of 'npo', which 'graddiff' cannot take up"):
        METHODS["graddiff"](options).unlearn(tiny_lm, data, tmp_path)
    assert kept == sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    checkpoint = tmp_path / "checkpoints" / "checkpoint-4"
    with pytest.raises(ArtifactError, match="unfinished run of 'npo'"):
        train(tiny_lm, "ga", forget=examples[:4], overrides=options, resume_from=checkpoint)
    with pytest.raises(ArtifactError, match="There is no checkpoint"):
        train(tiny_lm, "npo", forget=examples[:4], overrides=options, resume_from=tmp_path / "nothing")
    steps = []
    train(tiny_lm, "npo", forget=examples[:4], retain=examples[4:], overrides=options, resume_from=checkpoint,
          progress=lambda what, done, total: steps.append(done))  # fmt: skip
    assert steps == [5, 6]


def test_sharded_training_is_refused_rather_than_saved_in_pieces(tiny_lm, examples, monkeypatch):
    from finetune_baselines.trainer import UnlearningTrainer

    create = UnlearningTrainer.create_accelerator_and_postprocess

    def sharded(self):
        create(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(UnlearningTrainer, "create_accelerator_and_postprocess", sharded)
    with pytest.raises(ConfigError, match="Sharded weights"):
        _run(tiny_lm, _rows(tiny_lm, examples))
