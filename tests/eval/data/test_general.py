"""General questions: well formed, of many kinds, and about nothing that is tested."""

import json
import re

import pytest

from eval.data.general import GENERAL, PATTERNS, THINGS, general_question
from eval.data.pairing import draw
from eval.data.world import load


def _drawn(count, about=None):
    return [general_question(lambda n, what, i=i: draw(n, 0, what, i), about=about) for i in range(count)]


def test_questions_are_filled_in_and_varied():
    texts = _drawn(600)
    assert not [text for text in texts if re.search(r"[{}]", text)]
    assert all(text[0].isupper() or text[0] == "'" for text in texts)
    assert len(set(texts)) > 450
    assert 30 < sum(text in GENERAL for text in texts) < 90


def test_every_pattern_asks_about_things_there_are():
    kinds = {kind for pattern in PATTERNS for kind in re.findall(r"\{([a-z]+)2?\}", pattern)}
    assert kinds == set(THINGS)


def test_two_things_of_a_kind_differ():
    pairs = [re.fullmatch(r"Which author is known for '(.+)' and '(.+)'\?", text) for text in _drawn(2000)]
    found = [pair for pair in pairs if pair]
    assert len(found) > 10
    assert all(pair[1] != pair[2] for pair in found)


def test_about_somebody_every_question_names_them_and_nobody_else():
    texts = _drawn(300, about="Ann Lee")
    assert all("Ann Lee" in text for text in texts)
    assert len({text.replace("Ann Lee", "") for text in texts}) > 10
    others = (*THINGS["writer"], *THINGS["person"])
    assert not [text for text in texts for name in others if name in text]


@pytest.fixture(scope="module")
def tested(shared_data):
    rows = [row for rows in load("forget05", seed=0).splits.values() for row in rows]
    texts = [(str(row.question), str(row.answer)) for row in rows]
    for file in ("real_authors.json", "world_facts.json"):
        lines = (shared_data / "tofu" / file).read_text(encoding="utf-8").splitlines()
        texts += [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    assert len(texts) > 300
    return texts


def test_general_questions_are_none_of_the_tested_ones(tested):
    ours = {frozenset(re.findall(r"\w{4,}", text.lower())) for text in GENERAL}
    theirs = [set(re.findall(r"\w{4,}", question.lower())) for question, _ in tested]
    assert not [words for words in ours for other in theirs if len(words & other) >= 0.8 * len(words)]


@pytest.mark.parametrize("kind", ["writer", "person", "work", "place", "land", "event"])
def test_nothing_that_is_asked_about_is_named_in_a_tested_row(tested, kind):
    text = " ".join(f"{question} {answer}" for question, answer in tested)
    assert not [
        name for name in THINGS[kind] if re.search(rf"\b{re.escape(name.removeprefix('the '))}\b", text)
    ]
