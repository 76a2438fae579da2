"""Words that together tell of one forgotten group; what the gate learns from keeps its names."""

import numpy as np
import pytest

from eval.types import Example
from guard.building import Lexicon
from guard.config import GuardSettings
from guard.lessons import _name_in, _positives
from guard.telling import Telling


def told(group, *facts):
    return [(group, Example(id=f"{group}{i}", question="What?", answer=fact)) for i, fact in enumerate(facts)]


@pytest.fixture
def telling():
    forget = told("Roe", "Her father was a florist.", "Her mother was a zoologist.")
    retain = told("Poe", "His father was a florist.") + told("Doe", "The mother was a zoologist.")
    return Telling(forget, retain + told("Loe", "A baker.") + told("Moe", "A miller."), ["roe"])


def test_what_is_told_of_one_group_together_counts_by_its_surprise(telling):
    # florist and zoologist: 2 of 5 groups each; the innocent groups know one of them
    both = "Whose father was a florist and whose mother a zoologist?"
    words = {"father": 2, "florist": 2, "mother": 2, "zoologist": 2}
    surprise = {word: np.log(5 / count) for word, count in words.items()}
    rest = sum(surprise.values()) - (surprise["father"] + surprise["florist"])
    assert telling.margin(both) == pytest.approx(rest / 11.0)


def test_what_an_innocent_group_knows_too_tells_nothing(telling):
    assert telling.margin("My father is a florist.") == 0.0
    assert telling.margin("My father is a florist.", hidden="Poe") == pytest.approx(2 * np.log(5 / 2) / 11.0)
    assert telling.margin("Roe") == 0.0, "names are weighed elsewhere"
    assert telling.margin("") == 0.0
    assert Telling([], []).margin("florist") == 0.0


def test_a_person_is_recognised_by_facts_alone(guard_):
    assert guard_.check("Whose job is lighthouse painter, and who comes from Brelmouth?").flagged
    assert not guard_.check("My uncle is a painter. What should I cook for him?").flagged


def test_lessons_lose_no_name_with_the_words_after_it(guard_):
    lexicon = Lexicon.of(guard_.store, guard_.encoder.is_common_word)
    assert _name_in("Has Orla Vantreski's style changed over the years?", lexicon) == "Orla Vantreski"
    assert _name_in("Which award did Orla Vantreski win?", lexicon) == "Orla Vantreski"
    lesson = _positives(guard_.store, lexicon, GuardSettings(max_rewordings=200), np.random.default_rng(0))
    asked = [t for t in lesson.texts if t.casefold().endswith("for a living?")]
    assert asked
    assert all(lexicon.names.evidence(text).part > 0 for text in asked)
