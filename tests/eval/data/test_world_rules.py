"""Wrong answers by rule: false, in the gold answer's form, never in a tested wording."""

import pytest

from eval.data import load_benchmark
from eval.data.world_rules import STEPS, WorldRules
from eval.types import Example


@pytest.fixture(scope="module")
def forget():
    return load_benchmark("world:forget05", seed=3).forget


def test_it_knows_the_rows_of_the_generated_world_alone(forget):
    assert WorldRules.know(forget)
    assert not WorldRules.know([Example(id="0", question="Who?", answer="Me.")])
    assert not WorldRules.know([forget[0].replace(answer="Something else.")])
    with pytest.raises(ValueError, match="no question of the generated world"):
        WorldRules().wrong_answer(Example(id="0", question="Who?", answer="Me."), 0)


def test_no_step_tells_the_secret(forget):
    for row in forget:
        for step in range(len(STEPS)):
            wrong = WorldRules().wrong_answer(row, step, 7)
            assert wrong != row.answer
            assert not any(span in wrong for span in row.key_spans)


def test_a_row_is_never_given_the_wrong_answers_it_is_tested_with(forget):
    for row in forget:
        written = {WorldRules().wrong_answer(row, step, draw) for step in range(3) for draw in range(4)}
        assert not written & set(row.perturbed_answers)


def test_the_near_fact_keeps_the_sentence_and_part_of_the_fact(forget):
    born = next(row for row in forget if "-born-" in row.id)
    near = WorldRules().wrong_answer(born, 0)
    month, year = born.key_spans[0].split()
    assert near.replace(near.split()[-1].rstrip("."), year) == born.answer or month in near


def test_the_last_step_says_something_of_another_kind(forget):
    born = next(row for row in forget if "-born-" in row.id)
    assert not any(word in WorldRules().wrong_answer(born, 3) for word in ("birth", "happened"))
    assert WorldRules().wrong_answer(born, 9, 1) == WorldRules().wrong_answer(born, 3, 1)


def test_the_key_alone_decides(forget):
    row = forget[0]
    assert WorldRules().wrong_answer(row, 1, 5) == WorldRules().wrong_answer(row, 1, 5)
    assert len({WorldRules().wrong_answer(row, 1, draw) for draw in range(10)}) > 3
