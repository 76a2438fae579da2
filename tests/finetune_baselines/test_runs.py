"""Runs of several phases, alternating steps, an inner perturbation."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch

from eval.errors import ConfigError
from eval.types import Example
from finetune_baselines.batches import collate_pairs, encode_rows
from finetune_baselines.method import train
from finetune_baselines.objective import RecipeObjective, new_objective
from finetune_baselines.perturbation import Perturbation, perturbed, uphill
from finetune_baselines.recipes import RECIPES
from finetune_baselines.sampling import Chunks, Pairs, Schedule


@dataclass(frozen=True)
class _OnePhase:
    """A sampling that is one phase of another."""

    whole: Chunks
    number: int

    def schedule(self, size):
        return Schedule([self.whole.schedule(size).phases[self.number]])


# --- phases -----------------------------------------------------------------------------------------------------


def test_a_chunked_run_is_its_chunks_run_one_after_another_each_with_a_new_optimizer(tiny_lm, examples, runs):
    rows, start, chunks = runs.rows(tiny_lm, examples), runs.state(tiny_lm), Chunks(chunk_size=2)
    result = runs.npo(tiny_lm, rows, sampling=chunks)
    whole = runs.state(tiny_lm)
    runs.put(tiny_lm, start)
    apart = [runs.npo(tiny_lm, rows, sampling=_OnePhase(chunks, number)) for number in range(3)]
    assert runs.same(whole, runs.state(tiny_lm), atol=1e-7)
    assert result.steps == sum(one.steps for one in apart) == 2 + 2 + 1
    rates = [entry["learning_rate"] for entry in result.history]
    assert rates == [entry["learning_rate"] for one in apart for entry in one.history]
    assert [entry["phase"] for entry in result.history] == ["chunk 1 of 3"] * 2 + ["chunk 2 of 3"] * 2 + [
        "chunk 3 of 3"
    ]


def test_a_chunked_run_killed_in_its_second_chunk_goes_on_as_if_nothing_had_been(
    tiny_lm, examples, tmp_path, runs
):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    settings = replace(runs.settings, epochs=4, save_steps=1)
    options = {"settings": settings, "sampling": Chunks(chunk_size=2)}
    seen = {}

    def objective(tag):
        inner = RecipeObjective(RECIPES["npo-rt"])

        class Watching(RecipeObjective):
            def __call__(self, lm, batch, module):
                seen.setdefault(tag, []).append(batch.both.input_ids.tolist())
                return inner(lm, batch, module)

        return Watching(RECIPES["npo-rt"])

    runs.npo(tiny_lm, rows, objective=objective("whole"), output_dir=tmp_path / "whole", **options)
    whole = runs.state(tiny_lm)
    runs.put(tiny_lm, start)

    def kill(what, done, total):
        if done == 7:  # the third step of the second chunk of 4 + 4 + 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.npo(
            tiny_lm, rows, objective=objective("cut"), output_dir=tmp_path / "cut", progress=kill, **options
        )
    seen["cut"] = seen["cut"][:6]  # the seventh step was not kept
    for checkpoint in (True, tmp_path / "cut" / "checkpoints" / "checkpoint-5"):
        runs.put(tiny_lm, start)
        tag = str(checkpoint)
        kept = runs.npo(tiny_lm, rows, objective=objective(tag), output_dir=tmp_path / "cut", resume=checkpoint,
                    **options)  # fmt: skip
        done = 6 if checkpoint is True else 5
        assert [entry["step"] for entry in kept.history] == list(range(done + 1, 11))
        assert seen["cut"][:done] + seen[tag] == seen["whole"]
        assert runs.same(whole, runs.state(tiny_lm), atol=1e-6)
        if checkpoint is True:  # for the second round: the checkpoints as they were
            again = replace(settings, epochs=4)
            runs.put(tiny_lm, start)
            with pytest.raises(KeyboardInterrupt):
                runs.npo(tiny_lm, rows, objective=objective("again"), output_dir=tmp_path / "cut", progress=kill,
                     **(options | {"settings": again}))  # fmt: skip


@pytest.mark.parametrize(("recipe", "term"), [("graddiff", "forget_ga"), ("npo-rt", "forget_npo")])
def test_alternating_steps_see_one_side_each_with_a_fresh_forward(tiny_lm, examples, recipe, term, runs):
    sides = []

    class Watching(RecipeObjective):
        def __call__(self, lm, batch, module):
            sides.append((batch.num_forget, batch.num_retain))
            return super().__call__(lm, batch, module)

    result = runs.npo(
        tiny_lm,
        runs.rows(tiny_lm, examples),
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
            "learning_rate": 3e-2,
            "rank": 8,
            "chunk_size": 2,
            "targets": "all-linear",
            "retain_per_forget": 1,
        }
        if name != "clausen":
            options["max_forget_loss"] = 50.0
        if name == "ails-agad":
            options["annealing_fraction"] = 0.25
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
def test_micro_batches_of_rows_add_up_to_the_batch(tiny_lm, examples, batch_of, runs):
    longer = [row.replace(answer=row.answer + " Yes." * i) for i, row in enumerate(examples)]
    rows, start = runs.rows(tiny_lm, longer), runs.state(tiny_lm)
    histories = []
    for accumulation in (1, 4):
        runs.put(tiny_lm, start)
        settings = replace(runs.settings, batch_size=4, accumulation=accumulation)
        objective = new_objective(RECIPES["ails-sugd"])
        sampling = Chunks(chunk_size=3, batch_of=batch_of)
        histories.append(runs.npo(tiny_lm, rows, settings, objective=objective, sampling=sampling).history)
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
def test_the_forget_gradient_is_taken_uphill_and_the_retain_gradient_is_not(
    tiny_lm, examples, accumulation, runs
):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    settings = replace(runs.settings, epochs=1, batch_size=4, accumulation=accumulation, max_grad_norm=0.0)
    first = runs.npo(tiny_lm, rows, settings, objective=_Sharp(0.5)).history[0]
    runs.put(tiny_lm, start)
    plain = runs.npo(tiny_lm, rows, settings).history[0]
    runs.put(tiny_lm, start)
    assert first["grad_norm"] == pytest.approx(_naive_gradient(tiny_lm, rows, 0.5), rel=1e-3)
    assert first["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-2)
    assert first["terms"]["retain_ce"] == pytest.approx(plain["terms"]["retain_ce"], rel=1e-4)
    assert first["terms"]["forget_npo"] > plain["terms"]["forget_npo"]  # uphill


def test_without_length_the_perturbation_is_none(tiny_lm, examples, runs):
    rows, start = runs.rows(tiny_lm, examples), runs.state(tiny_lm)
    runs.npo(tiny_lm, rows, objective=_Sharp(0.0))
    flat = runs.state(tiny_lm)
    runs.put(tiny_lm, start)
    runs.npo(tiny_lm, rows)
    assert runs.same(flat, runs.state(tiny_lm))


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
