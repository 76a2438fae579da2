"""The order of rows: every identity of sequential data sampling, alternating steps and annealing phases."""

import math
from collections import Counter

import pytest

from eval.errors import ConfigError
from finetune_baselines.microbatches import MicroBatches
from finetune_baselines.sampling import SAMPLINGS, Annealing, Chunks, Item, Pairs, Phase, RunSize, Schedule
from finetune_baselines.training import TrainRows


def _size(**changes):
    return RunSize(
        **{"num_forget": 70, "num_retain": 100, "epochs": 2, "batch_size": 1, "retain_per_forget": 7}
        | changes
    )


def _flat(steps):
    """The rows in the order in which they are met: ("F", i) or ("R", i)."""
    return [row for step in steps for item in step
            for row in [*(("F", i) for i in item.forget), *(("R", i) for i in item.retain)]]  # fmt: skip


# --- sequential chunks ------------------------------------------------------------------------------------------


def test_each_forget_row_comes_once_a_pass_in_consecutive_chunks_with_the_remainder_last():
    schedule = Chunks().schedule(_size())
    assert [phase.name for phase in schedule.phases] == ["chunk 1 of 3", "chunk 2 of 3", "chunk 3 of 3"]
    for phase, rows in zip(schedule.phases, (range(32), range(32, 64), range(64, 70)), strict=True):
        assert [item.forget[0] for step in phase.steps for item in step] == [*rows, *rows]  # two epochs


def test_the_order_is_one_forget_then_seven_retain_rows():
    rows = _flat(Chunks().schedule(_size(epochs=1)))
    assert len(rows) == 70 * 8
    assert [kind for kind, _ in rows] == ["F", *"RRRRRRR"] * 70


def test_the_retain_pointer_goes_on_over_chunks_and_wraps():
    retain = [i for kind, i in _flat(Chunks().schedule(_size(epochs=1))) if kind == "R"]
    assert retain == [i % 100 for i in range(490)]
    second = Chunks().schedule(_size(epochs=1)).phases[1]
    assert second.steps[0][0].retain == tuple((32 * 7 + k) % 100 for k in range(7))


def test_each_epoch_of_a_chunk_meets_the_same_retain_rows():
    phase = Chunks().schedule(_size(epochs=3)).phases[0]
    passes = [phase.steps[start : start + 32] for start in (0, 32, 64)]
    assert _flat(passes[0]) == _flat(passes[1]) == _flat(passes[2])


def test_batches_of_single_rows_keep_the_order():
    pairs, rows = (Chunks(batch_of=unit).schedule(_size(epochs=1)) for unit in ("pairs", "rows"))
    assert _flat(pairs) == _flat(rows)
    assert len(rows) == 70 * 8
    assert all(len(step) == 1 and len(step[0].forget + step[0].retain) == 1 for step in rows)


def test_unsplit_chunks_take_all_retain_rows_and_append_the_left_over():
    schedule = Chunks(split_retain=False).schedule(_size(epochs=1))
    for phase, size in zip(schedule.phases, (32, 32, 6), strict=True):
        rows = _flat(phase.steps)
        assert Counter(i for kind, i in rows if kind == "R") == Counter(range(100))
        assert [kind for kind, _ in rows] == ["F", *("R" * (100 // size))] * size + ["R"] * (100 % size)
    orders = [[i for kind, i in _flat(phase.steps) if kind == "R"] for phase in schedule.phases]
    assert orders[0] != orders[1]


def test_chunks_without_retain_rows_are_forget_rows_alone():
    assert _flat(Chunks().schedule(_size(num_retain=0, epochs=1))) == [("F", i) for i in range(70)]


# --- annealing --------------------------------------------------------------------------------------------------


def _names(**options):
    return [phase.name for phase in Annealing(**options).schedule(_size(num_forget=150)).phases]


def test_every_forget_chunk_is_followed_by_its_annealing_and_all_by_a_final_one():
    forget = [f"forget chunk {i} of 3" for i in (1, 2, 3)]
    between = [f"annealing after chunk {i}" for i in (1, 2, 3)]
    assert _names() == [
        forget[0],
        between[0],
        forget[1],
        between[1],
        forget[2],
        between[2],
        "final annealing",
    ]
    assert _names(interleaving_factor=0.5) == [*forget[:2], between[1], forget[2], "final annealing"]
    left_out = [forget[0], between[0], forget[1], between[1], forget[2], "final annealing"]
    assert _names(agad_remainder="final_only") == left_out
    whole = [p.name for p in Annealing(agad_remainder="final_only").schedule(_size(num_forget=128)).phases]
    assert whole[-2] == "annealing after chunk 2"  # no remainder, nothing left out


def test_annealing_phases_hold_one_side_and_their_share_of_the_rows():
    schedule = Annealing(annealing_fraction=0.25).schedule(_size(num_forget=150, epochs=3, batch_size=16))
    drawn = []
    for phase in schedule.phases:
        rows = _flat(phase.steps)
        if phase.name.startswith("forget"):
            assert {kind for kind, _ in rows} == {"F"}
        elif phase.name.startswith("annealing"):
            counts = Counter(rows)
            assert set(counts.values()) == {3}
            drawn.append(frozenset(i for _, i in counts))
            assert len(counts) == 25
        else:
            assert Counter(rows) == Counter({("R", i): 3 for i in range(100)})
    assert len(set(drawn)) == 3
    forgotten = Counter(row for row in _flat(schedule) if row[0] == "F")
    assert forgotten == Counter({("F", i): 3 for i in range(150)})


def test_a_forget_set_smaller_than_a_chunk_is_annealed_too():
    names = [phase.name for phase in Annealing().schedule(_size(num_forget=5)).phases]
    assert names == ["forget chunk 1 of 1", "annealing after chunk 1", "final annealing"]


# --- pairs ------------------------------------------------------------------------------------------------------


def test_alternating_steps_are_a_batchs_forget_rows_and_then_its_retain_rows():
    size = _size(num_forget=5, epochs=3, batch_size=2, retain_per_forget=2)
    together, apart = Pairs().schedule(size), Pairs(alternate=True).schedule(size)
    assert len(apart) == 2 * len(together) == 16
    for i, step in enumerate(together):
        assert _flat([apart[2 * i]]) == [("F", j) for item in step for j in item.forget]
        assert _flat([apart[2 * i + 1]]) == [("R", j) for item in step for j in item.retain]


def test_partners_may_be_fixed_as_published_codes_do():
    size = _size(num_forget=6, num_retain=4, epochs=3, retain_per_forget=1)
    partners = {
        partner: [{item.forget[0]: item.retain for step in phase for item in step if item.epoch == epoch}
                  for phase in (Pairs(partner=partner).schedule(size),) for epoch in range(3)]
        for partner in ("fixed_by_index", "modulo")
    }  # fmt: skip
    assert partners["modulo"] == [{i: (i % 4,) for i in range(6)}] * 3
    fixed = partners["fixed_by_index"]
    assert fixed[0] == fixed[1] == fixed[2]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_run_depends_on_its_seed_alone(name):
    size = _size(num_forget=9, batch_size=3)
    first, again = (list(SAMPLINGS[name]().schedule(size)) for _ in range(2))
    assert first == again
    assert [first[i] for i in reversed(range(len(first)))] == list(first)[::-1]


# --- phases and their learning rates ------------------------------------------------------------------------------


def _three_phases():
    items = [[Item(0, (i,))] for i in range(10)]
    return Schedule([Phase(name="a", steps=items[:4], epochs=2), Phase(name="none", steps=[], epochs=1),
                     Phase(name="b", steps=items[4:], epochs=3)])  # fmt: skip


def test_steps_are_found_in_their_phases():
    schedule = _three_phases()
    assert (len(schedule), schedule.starts) == (10, (0, 4))
    assert [schedule[i][0].forget for i in range(10)] == [(i,) for i in range(10)]
    assert schedule.locate(3) == (schedule.phases[0], 3)
    assert schedule.locate(4) == (schedule.phases[1], 0)
    assert schedule.locate(10) == (schedule.phases[1], 6)  # the end of the run
    with pytest.raises(IndexError):
        schedule[10]


def test_each_phase_warms_up_and_decays_anew():
    factors = [_three_phases().learning_rate_factor(i, kind="linear", warmup_epochs=1.0) for i in range(11)]
    assert factors[:4] == pytest.approx([0, 1 / 2, 1, 1 / 2])  # 4 steps, 2 of them warm-up
    assert factors[4:] == pytest.approx([0, 1 / 2, 1, 3 / 4, 1 / 2, 1 / 4, 0])  # 6 steps, 2 of them warm-up
    cosine = [_three_phases().learning_rate_factor(i, kind="cosine", warmup_epochs=0) for i in range(4)]
    assert cosine == pytest.approx([(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])
    flat = [_three_phases().learning_rate_factor(i, kind="constant", warmup_epochs=0) for i in range(11)]
    assert flat == [1.0] * 11


# --- micro-batches ------------------------------------------------------------------------------------------------


def test_micro_batches_of_a_step_are_its_rows_and_places_left_empty_count_for_nothing(tiny_lm, examples):
    from finetune_baselines.batches import collate_pairs, encode_rows

    forget = [(row,) for row in encode_rows(tiny_lm, examples[:6], [row.answer for row in examples[:6]])]
    schedule = Chunks(chunk_size=6).schedule(_size(num_forget=6, num_retain=0, epochs=1, batch_size=4))
    dataset = MicroBatches(TrainRows(forget=forget), schedule, batch_size=4, parts=4, seed=0)
    assert len(dataset) == 8  # two steps of four
    rows = [[row.encoded for row in dataset[i].forget] for i in range(8) if not dataset[i].is_filler]
    assert rows == [[row.encoded] for (row,) in forget]
    assert [dataset[i].is_filler for i in range(8)] == [False] * 6 + [True] * 2
    filler = collate_pairs(tiny_lm, dataset[7].forget, [])
    assert filler.size("forget_rows") == 1
    from dataclasses import replace

    assert replace(filler, is_filler=True).size("forget_tokens") == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Chunks(chunk_size=0), "chunk_size is 0"),
        (lambda: Chunks(batch_of="words"), "Unknown batch_of 'words'"),
        (lambda: Annealing(annealing_fraction=1.5), "annealing_fraction is 1.5"),
        (lambda: Annealing(agad_remainder="none"), "Unknown agad_remainder 'none'"),
        (lambda: Pairs(partner="nearest"), "Unknown partner 'nearest'"),
    ],
)
def test_settings_out_of_range_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
