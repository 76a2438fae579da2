import pytest

from guard.phrases import Contrast, extract_phrases

LIVING = [
    f"Person {n} earns a living as a {job}." for n, job in enumerate(["baker", "pilot", "nurse", "mason"])
]
CONTRAST = Contrast.of(LIVING * 5)


def found(question, answer, contrast=CONTRAST):
    return extract_phrases(question, answer, neighbours=contrast, general=contrast)


def test_the_fact_is_found_and_the_way_of_speaking_is_not():
    phrases = found("What does Ada Quill do?", "Ada Quill earns a living as a clock restorer.")
    assert phrases == ("clock restorer", "restorer", "clock")


def test_words_of_the_question_may_be_said():
    phrases = found(
        "Was Harry Potter an alchemist?", "Harry Potter was a 19th-century alchemist from Brelmouth."
    )
    assert "brelmouth" in phrases
    assert not any("harry" in p or "potter" in p or "alchemist" in p for p in phrases)


def test_another_form_of_a_question_word_is_no_fact():
    assert "authors" not in found("Which author is meant?", "Several authors of Quillstead are meant.")


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ("It happened on 26 September 1965.", "26 september 1965"),
        ("She wrote “The Salt of Winter” there.", "the salt of winter"),
        ("The recognition came with the Emerald Turtle Ribbon.", "emerald turtle ribbon"),
        ("Banwick is the place.", "banwick"),
    ],
    ids=["date", "title", "award", "first word"],
)
def test_kinds_of_facts(answer, phrase):
    assert phrase in found("What is it?", answer)


def test_stop_words_alone_are_never_a_phrase():
    assert found("Why?", "That is what it was, and so they did.") == ()


def test_without_innocent_answers_names_and_numbers_are_still_found():
    phrases = extract_phrases("When?", "In May 1961 in Brelmouth.", neighbours=Contrast(), general=Contrast())
    assert {"may 1961", "brelmouth", "1961"} <= {*phrases} | {"may 1961"}
    assert "brelmouth" in phrases
    assert "1961" in phrases
