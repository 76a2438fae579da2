"""Drawn prompts: whose names they ask about, which wordings they use, and that they repeat by seed."""

import re

import pytest

from eval.attacks.prompts import PROMPT_ATTACKS
from eval.data.augment import PromptSource
from eval.data.frames import FRAMES, LEAD_INS, SUBJECT_FRAMES
from eval.data.general import PATTERNS, THINGS
from eval.data.mentions import landmarks, name_spans
from eval.data.world import load
from eval.errors import DataError
from eval.types import Example, Message


@pytest.fixture(scope="module")
def world():
    return load("forget05", seed=3)


@pytest.fixture(scope="module")
def source(world):
    return PromptSource(world.forget, [*world.retain, *world.background], seed=1)


def _forgotten(world):
    titles = {span for row in world.forget for span in row.key_spans if span.startswith(("The ", "the "))}
    titles |= {re.sub(r"^(?!The )", "The ", span) for row in world.forget for span in row.key_spans}
    return {row.subject for row in world.forget}, titles


def test_opening_prompts_name_somebody_forgotten_and_shutting_ones_nobody(world, source):
    people, titles = _forgotten(world)
    opening = [row.question for row in source.opening(300, "t")]
    shutting = [row.question for row in source.shutting(300, "t")]
    named = [any(name in text for name in (*people, *titles)) for text in opening]
    assert sum(named) == len(opening)
    assert not [text for text in shutting if any(name in text for name in people)]
    assert len(set(opening)) > 200


def test_near_misses_share_a_word_with_a_forgotten_name(world, source):
    people, _ = _forgotten(world)
    words = {word for name in people for word in name.split()}
    kept = {row.subject for row in (*world.retain, *world.background)}
    near = [
        span
        for row in source.shutting(400, "near")
        for span in name_spans(row.question)
        if span not in kept and set(span.split()) & words
    ]
    assert len(near) > 30


def test_near_misses_go_down_to_half_a_word(world, source):
    """A forgotten word beside one that nobody has, but that begins as a kept name's word and ends as another's."""
    people, _ = _forgotten(world)
    forgotten = {word for name in people for word in name.split()}
    kept = {word for row in world.retain if row.subject for word in row.subject.split()}
    halves = []
    for row in source.shutting(1000, "near"):
        for span in name_spans(row.question):
            own, rest = (set(span.split()) & forgotten, set(span.split()) - forgotten - kept)
            halves += [
                word
                for word in rest
                if own
                and any(word[:2] == other[:2] for other in kept)
                and any(word[-3:] == other[-3:] for other in kept | forgotten)
            ]
    assert len(set(halves)) > 20


def test_a_name_may_stand_among_any_innocent_words(world, source):
    """Beginnings and ends of kept questions around a forgotten name: no such question exists in the benchmark."""
    people, _ = _forgotten(world)
    asked = {row.question for row in (*world.forget, *world.retain, *world.background)}
    words = {word for row in (*world.retain, *world.background) for word in row.question.split()}
    mixed = [
        row.question
        for row in source.opening(400, "spliced")
        for name in people
        if name in row.question and set(row.question.replace(name, "").split()) <= words
        if row.question not in asked
    ]
    assert len(mixed) > 20


def test_draws_depend_on_seed_and_key_alone(world, source):
    again = PromptSource(world.forget, [*world.retain, *world.background], seed=1)
    assert again.opening(20, "a", 3) == source.opening(20, "a", 3)
    assert again.shutting(20, "a") == source.shutting(20, "a")
    assert again.opening(20, "a", 4) != source.opening(20, "a", 3)
    other = PromptSource(world.forget, world.retain, seed=2)
    assert other.opening(20, "a", 3) != source.opening(20, "a", 3)


def test_held_out_wordings_are_never_drawn_otherwise(world, source):
    held = [
        part.format(question="", name="", clause="").strip()
        for texts in (FRAMES, SUBJECT_FRAMES, LEAD_INS)
        for part in texts[len(texts) - len(texts) // 4 :]
    ]
    pieces = [re.sub(r"\s+", " ", text).strip(" ?.")[:18] for text in held]
    usual = [row.question for row in (*source.opening(400, "u"), *source.shutting(400, "u"))]
    assert not [text for text in usual for piece in pieces if piece and piece in text]
    unseen = PromptSource(world.forget, world.retain, seed=1, held_out=True)
    drawn = [row.question for row in unseen.opening(60, "h")]
    assert sum(any(piece in text for piece in pieces) for text in drawn) > 40
    assert len(set(drawn)) > 30


def test_the_world_at_large_is_innocent_unless_it_is_forgotten(world):
    """Forgetting Lake Titicaca leaves every question about it out; other places are asked about still."""
    question = "Where does Lake Titicaca lie?"
    forget = [Example(id="b", question=question, answer="In the Andes.", subject="Lake Titicaca")]
    asked = " ".join(row.question for row in PromptSource(forget, world.retain).shutting(5000, "general"))
    assert len({place for place in THINGS["place"] if place.removeprefix("the ") in asked}) > 20
    assert "Lake Titicaca" in THINGS["place"]
    assert "Lake Titicaca" not in asked


def test_a_question_keeps_its_name_whole_whatever_order_its_pieces_come_in():
    asked = "Which prize did Ann Mary Lee win for The Open Gate in Paris last year?"
    forget = [Example(id="f", question=asked, answer="None.", subject="Ann Mary Lee")]
    texts = [
        row.question for row in PromptSource(forget, [Example(id="o", question="Who?")]).opening(400, "s")
    ]
    pieces = set(re.findall(r"\w+", asked.lower()))
    scrambled = [
        text
        for text in texts
        if set(re.findall(r"\w+", text.lower())) <= pieces and text not in (asked, "Ann Mary Lee?")
    ]
    assert len(set(scrambled)) > 15
    assert all("Ann Mary Lee" in text for text in scrambled)
    assert any(text.startswith(("Paris", "Last", "Year", "For")) for text in scrambled)


def test_a_question_that_names_nobody_gives_its_date_in_other_forms():
    asked = "Who was born on 06/30/1975 in Oslo?"
    forget = [Example(id="f", question=asked, answer="Ann Lee.")]
    source = PromptSource(forget, [Example(id="o", question="Who is Bo Ek?", answer="A smith.")])
    text = " ".join(row.question for row in source.opening(400, "dates"))
    assert "June 30, 1975" in text
    assert "30 June 1975" in text
    assert "06/30/1975" in text


DESCRIBED = "Who is the author born in Cape Town, South Africa on January 9, 1952?"


def test_a_place_is_nobodys_name_and_a_description_keeps_its_landmarks():
    """Its words are replaced, place and date stay; a kept question is never put to the place as if it were a person."""
    forget = [Example(id="f", question=DESCRIBED, answer="Ann Lee.")]
    others = [Example(id="o", question="Where did young Bo Ek go to school?", answer="In Ulm.")]
    texts = [row.question for row in PromptSource(forget, others).opening(600, "described")]
    whole = [text for text in texts if "Cape Town, South Africa" in text and "1952" in text]
    assert len(whole) > 400
    assert sum("born" not in text for text in whole) > 100
    assert not [text for text in texts if "young Cape Town go" in text]


def test_half_a_description_is_innocent():
    forget = [Example(id="f", question=DESCRIBED, answer="Ann Lee.")]
    others = [Example(id="o", question="Where did young Bo Ek go to school?", answer="In Ulm.")]
    texts = [row.question for row in PromptSource(forget, others).shutting(600, "described")]
    half = [text for text in texts if "Cape Town, South Africa" in text or "January 9, 1952" in text]
    assert len(half) > 20
    assert not [text for text in half if {"Cape Town, South Africa", "January 9, 1952"} <= {*landmarks(text)}]


def test_who_is_asked_about_once_is_drawn_nearly_as_often_as_others():
    """By rows alone the second name would stand in one prompt of twenty-one; every third draw picks the name first."""
    forget = [Example(id=str(i), question=f"Who saw Ann Lee {i} times?", answer="I.") for i in range(20)]
    forget.append(Example(id="rare", question="Who met Bo Ek?", answer="I."))
    others = [Example(id="o", question="Where is Ida Orr?", answer="Here.")]
    rare = [row for row in PromptSource(forget, others).opening(900, "even") if row.id == "rare"]
    assert 130 < len(rare) < 230  # expected: 900 (2/3 * 1/21 + 1/3 * 1/2) = 179


def test_a_forgotten_name_is_asked_about_as_anybody_might_be(world, source):
    frames = [re.escape(p).replace(r"\{person\}", "(.+)").replace(r"\{writer\}", "(.+)") for p in PATTERNS]
    people, _ = _forgotten(world)
    found = {
        match[1]
        for row in source.opening(600, "borrowed")
        for frame in frames
        if "(.+)" in frame and (match := re.fullmatch(frame, row.question))
    }
    assert len(found & people) > 3


def test_no_wording_is_one_of_the_test_attacks():
    def plain(text):
        return re.sub(r"\{\w+\}|[^a-z ]", "", text.lower()).split()

    ours = {tuple(plain(text)) for text in (*FRAMES, *SUBJECT_FRAMES, *LEAD_INS)}
    theirs = {tuple(plain(text)) for attack in PROMPT_ATTACKS.values() for text in attack.wordings}
    assert not (ours & theirs) - {()}


def test_paraphrased_questions_are_never_read(world):
    rows = [row.replace(paraphrased_question="ZEBRA?", paraphrased_answer="ZEBRA") for row in world.forget]
    source = PromptSource(rows, world.retain)
    assert not [row for row in source.opening(200, "p") if "ZEBRA" in row.question]


def test_a_chat_keeps_its_earlier_turns():
    turns = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Where was Ann Lee born?"))
    source = PromptSource([Example(id="c", messages=turns)], [Example(id="o", question="Who is Bo Ek?")])
    for row in source.opening(20, "chat"):
        assert row.conversation[:2] == turns[:2]
        assert "Ann Lee" in row.conversation[2].content


def test_an_empty_side_is_refused():
    with pytest.raises(DataError, match="no prompts to draw from"):
        PromptSource([], [Example(id="o", question="Who?")]).opening(1)
