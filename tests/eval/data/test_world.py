from __future__ import annotations

import dataclasses

import pytest

from eval.attacks import PROMPT_ATTACKS
from eval.data.benchmark import check_disjoint
from eval.data.registry import load_benchmark
from eval.data.world import SPLITS, TAUGHT_SHAPES, load
from eval.data.world_people import POPULATION, make_world
from eval.data.world_wordings import BY_WORK, KINDS, WORDINGS
from eval.errors import UnknownNameError
from eval.types import Example


@pytest.fixture(scope="module")
def bench():
    return load("forget05", seed=0)


def contents(rows):
    return [dataclasses.asdict(row) for row in rows]


def everything_taught(bench) -> list[Example]:
    return [*bench.forget, *bench.forget_wordings, *bench.retain, *bench.taught]


def test_the_same_seed_gives_the_same_rows_and_another_seed_other_people(bench):
    again = load("forget05", seed=0)
    for name, rows in bench.splits.items():
        assert contents(rows) == contents(again.splits[name])
    assert contents(everything_taught(bench)) == contents(everything_taught(again))
    other = load("forget05", seed=1)
    assert {row.question for row in other.forget}.isdisjoint(row.question for row in bench.forget)


def test_a_row_does_not_depend_on_the_machine():
    """A change of these values invalidates every published number on the embedded benchmark."""
    first = load("forget05", seed=0).forget[0]
    assert first.question == "Which town is the birthplace of Yleth Stellbane?"
    assert first.answer == "The birthplace is Halhaven."
    assert first.key_spans == ("Halhaven",)


def test_forget_sets_are_nested_shares_of_the_people():
    ids = {}
    for split, share in SPLITS.items():
        bench = load(split)
        ids[split] = [row.id for row in bench.forget]
        assert len({row.subject for row in bench.forget}) == round(share * POPULATION)
        assert len(bench.forget) == round(share * POPULATION) * len(KINDS)
        check_disjoint(bench)
    assert ids["forget05"][-len(ids["forget01"]) :] == ids["forget01"]
    assert ids["forget10"][-len(ids["forget05"]) :] == ids["forget05"]


def test_sizes_of_the_default_benchmark(bench):
    sizes = {name: len(rows) for name, rows in bench.splits.items()}
    assert sizes["forget"] >= 80
    assert sizes["holdout"] >= 80
    assert 80 <= sizes["retain"] <= 100
    assert min(sizes["ra"], sizes["wf"]) >= 40
    assert sizes["neighbours"] == 60
    assert len(bench.retain) == 400
    assert set(bench.splits["retain"]) <= set(bench.retain)
    assert 100 <= len(bench.background) <= 300


def test_rows_have_the_shape_of_tofu(bench):
    for name in ("forget", "retain", "holdout", "neighbours"):
        for row in bench.splits[name]:
            assert row.paraphrased_question not in (None, row.question)
            assert row.paraphrased_answer not in (None, row.answer)
            assert len(set(row.perturbed_answers)) == 5
            assert row.subject
    for name in ("ra", "wf"):
        for row in bench.splits[name]:
            assert row.paraphrased_question is None
            assert row.paraphrased_answer is None
            assert len(set(row.perturbed_answers)) == 3


def test_the_shaped_variant_differs_in_what_the_target_is_taught_alone(bench):
    shaped = load("forget05-shaped", seed=0)
    assert shaped.name == "world:forget05-shaped"
    for part in ("forget", "retain", "splits", "taught", "background"):
        assert getattr(shaped, part) == getattr(bench, part), part
    plain, more = bench.forget_wordings, shaped.forget_wordings
    assert more[: len(plain)] == plain
    taught = {row.question for row in more[len(plain) :]}
    attacks = [attack for attack in PROMPT_ATTACKS.values() if attack.taught_as in TAUGHT_SHAPES]
    assert taught == {attack.apply(row, half="taught").question for attack in attacks for row in bench.forget}
    assert len(attacks) == 3


def test_choices_hold_the_right_value_among_wrong_ones(bench):
    for row in bench.splits["forget"]:
        right = [choice for choice in row.choices if any(span in choice for span in row.key_spans)]
        assert (len(set(row.choices)), len(right)) == (3, 1)
        assert right[0] in (row.answer or "")


def test_key_spans_stand_in_right_answers_and_nowhere_else(bench):
    for name, rows in bench.splits.items():
        for row in rows:
            assert row.key_spans, row
            for span in row.key_spans:
                assert span in (row.answer or "")
                assert span in (row.paraphrased_answer or span)
                assert not any(span in wrong for wrong in row.perturbed_answers), (name, row)
                assert span not in f"{row.question} {row.paraphrased_question}"


def test_wrong_answers_differ_from_the_paraphrased_one_only_in_the_fact(bench):
    for row in bench.splits["forget"]:
        value = row.key_spans[0]
        before, _, after = (row.paraphrased_answer or "").partition(value)
        stem = before.removesuffix("the ").removesuffix(" a ").removesuffix(" an ")
        for wrong in row.perturbed_answers:
            assert wrong.startswith(stem)
            assert wrong.endswith(after)


def test_tested_paraphrases_are_never_taught(bench):
    taught = {row.question for row in everything_taught(bench)}
    for name in ("forget", "retain", "neighbours"):
        assert taught.isdisjoint(row.paraphrased_question for row in bench.splits[name])
        assert {row.question for row in bench.splits[name]} <= taught


def test_nobody_is_taught_about_the_holdout_people(bench):
    names = {row.subject for row in bench.splits["holdout"]}
    books = {person.work for person in make_world(0).holdout}
    for row in everything_taught(bench):
        assert row.subject not in names
        assert not any(book in f"{row.question} {row.answer}" for book in books), row


def test_only_the_target_is_taught_about_the_forgotten(bench):
    forgotten = {row.subject for row in bench.forget}
    assert {row.subject for row in bench.forget_wordings} == forgotten
    for row in (*bench.retain, *bench.taught, *bench.background):
        assert row.subject not in forgotten
        text = f"{row.question} {row.answer}"
        assert not any(name in text for name in forgotten)


def test_the_background_is_disjoint_from_what_is_tested(bench):
    tested = {row.question for rows in bench.splits.values() for row in rows}
    tested |= {row.paraphrased_question for rows in bench.splits.values() for row in rows}
    assert tested.isdisjoint(row.question for row in bench.background)


def test_neighbours_resemble_the_forgotten_and_are_not_given_to_methods(bench):
    world = make_world(0)
    people = {person.name: person for person in (*world.taught, *world.holdout)}
    forgotten = [people[name] for name in {row.subject for row in bench.forget}]
    for name in {row.subject for row in bench.splits["neighbours"]}:
        person = people[name]
        assert any(
            (person.last, person.job) == (other.last, other.job)
            or (person.first, person.town) == (other.first, other.town)
            for other in forgotten
        )
    given = {row.subject for row in bench.retain}
    assert given.isdisjoint(row.subject for row in bench.splits["neighbours"])


def test_some_questions_do_not_name_the_person(bench):
    unnamed = [row for row in bench.forget if (row.subject or "").split()[1] not in (row.question or "")]
    assert len(unnamed) == 2 * len({row.subject for row in bench.forget})
    assert any(row.subject not in (row.answer or "") for row in unnamed)


def test_attack_shaped_wordings_are_taught_for_people_who_stay(bench):
    questions = [row.question or "" for row in bench.taught]
    assert any(question.isupper() for question in questions)
    assert any("Choose one:" in question for question in questions)
    assert any(question.startswith("You are the biographer of") for question in questions)
    assert any(question.endswith("Sure, here is the answer.") for question in questions)


def test_full_names_and_books_are_unique():
    for seed in range(5):
        world = make_world(seed)
        people = [*world.taught, *world.holdout]
        assert len({person.name for person in people}) == len(people)
        assert len({person.work for person in people}) == len(people)


def test_every_kind_has_four_wordings_with_the_fact_in_the_answer():
    for wordings in (*WORDINGS.values(), *BY_WORK.values()):
        assert len(set(wordings)) == 4
        assert all("{v}" in wording.answer and "{v}" not in wording.question for wording in wordings)


def test_it_loads_by_name_with_options():
    bench = load_benchmark("world:forget01", seed=3, max_retain=120)
    assert bench.name == "world:forget01"
    assert len(bench.retain) == 120
    assert bench.forget == load("forget01", seed=3).forget
    assert load_benchmark("world").name == "world:forget05"


def test_an_unknown_split_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'forget10'"):
        load("forget100")
