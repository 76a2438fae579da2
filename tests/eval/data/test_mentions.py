"""Names, places and dates in questions."""

import pytest

from eval.data.mentions import landmarks, name_spans, other_date, redated


def test_spans_are_runs_of_capitalised_words_after_the_first_word():
    assert name_spans("Who wrote The Hollow Lantern?") == ("The Hollow Lantern",)
    assert name_spans("What did Basil Mahfouz Al-Kuwaiti write?") == ("Basil Mahfouz Al-Kuwaiti",)
    assert name_spans("Has Hina Ameen's father met Jane of York?") == ("Hina Ameen", "Jane of York")
    assert name_spans("Where was she born?") == ()


def test_places_may_be_left_out():
    asked = "Who was born in New York City and wrote The Open Gate?"
    assert name_spans(asked) == ("New York City", "The Open Gate")
    assert name_spans(asked, with_places=False) == ("The Open Gate",)
    assert name_spans("Who came from Cape Town, South Africa to see Ann Lee?", with_places=False) == (
        "Ann Lee",
    )


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Who was born in Manama, Bahrain, January 13, 1941?", ("Manama, Bahrain", "January 13, 1941")),
        ("Who came from Cape Town on the 1st of March, 1936?", ("Cape Town", "the 1st of March, 1936")),
        ("Which writer was born on 06/30/1975 in Oslo?", ("06/30/1975", "Oslo")),
        ("Where did she live?", ()),
    ],
)
def test_landmarks_are_dates_and_capitalised_words(question, found):
    assert landmarks(question) == found


def test_dates_are_written_in_other_ways():
    ways = [redated("on 06/30/1975 and 13/13/1975", lambda choices, what, i=i: i) for i in range(3)]
    assert ways == [f"on {date} and 13/13/1975" for date in ("June 30, 1975", "30 June 1975", "06/30/1975")]


def test_another_date_stands_for_a_date_alone():
    assert other_date("the 1st of March, 1936", lambda choices, what: 0) == "January 1, 1900"
    assert other_date("Oslo", lambda choices, what: 0) is None
