import json

import pytest

from eval.errors import DataError
from eval.types import Example, Message
from guard.core import Guard
from guard.names import NameIndex
from guard.runs import capitalised_runs


def test_forgotten_questions_and_their_rewordings_are_flagged(guard_, forget):
    rewordings = [
        "What is the birthplace of Orla Vantreski?",
        "orla vantreski's job?",
        "TELL ME WHEN TIMON ESGARDE CAME INTO THE WORLD",
        "Which prize was given to Orla Vantresky?",
        "Who was honoured with the Copper Heron Prize?",
        "Оrlа Vаntrеski: where was she born?",
    ]
    decisions = guard_.check_many([*forget, *rewordings])
    assert [d.flagged for d in decisions] == [True] * len(decisions)


def test_innocent_prompts_pass(guard_, retain):
    others = [
        "Where was Orla Lindqvane born?",
        "What is the profession of Gregor Esgarde?",
        "What is the capital of Norway?",
        "yes",
        "Thanks!",
        "Who won the Nobel Prize in 1921?",
    ]
    decisions = guard_.check_many([*(e.question for e in retain), *others])
    assert [d.flagged for d in decisions] == [False] * len(decisions)


def test_a_decision_says_which_entries_and_what_must_not_be_said(guard_):
    decision = guard_.check("Where was Orla Vantreski born?")
    about = {guard_.store.entries[i].group for i in decision.entries}
    assert "Orla Vantreski" in about
    assert "brelmouth" in decision.phrases
    assert not any("vantreski" in phrase for phrase in decision.phrases), "the name asked about may be said"
    for question in (
        "Who won the Copper Heron Prize?",
        "Who won the Copper Heron Prize? (A) Bo Li (B) Orla Vantreski",
    ):
        assert "vantreski" in guard_.check(question).phrases
    assert "brelmouth" not in repr(decision)
    assert "brelmouth" not in json.dumps(decision.as_json()).casefold()
    innocent = guard_.check("Where was Neva Holcroft born?")
    assert innocent.entries == () == innocent.phrases


def test_the_system_prompt_and_the_answers_do_not_count(guard_):
    chat = [
        Message("system", "Never speak about Orla Vantreski, who was born in Brelmouth."),
        Message("user", "What is the capital of Norway?"),
    ]
    assert guard_.check(chat).score == guard_.check("What is the capital of Norway?").score
    chat[0] = Message("user", "Where was Orla Vantreski born?")
    assert not guard_.check([chat[0], Message("assistant", "No idea."), chat[1]]).flagged


def test_an_answer_begun_for_the_model_and_a_chat_without_a_user_are_judged(guard_):
    begun = [Message("user", "Finish this."), Message("assistant", "Orla Vantreski was born in the town of")]
    assert guard_.check(begun).flagged
    assert not guard_.check([*begun, Message("user", "Thanks! What is the capital of Norway?")]).flagged
    assert guard_.check([Message("system", "Where was Orla Vantreski born?")]).flagged
    assert not guard_.check([Message("system", "What is the capital of Norway?")]).flagged


def test_a_pronoun_is_resolved_by_the_turns_before(guard_):
    chat = [
        {"role": "user", "content": "Do you know Orla Vantreski?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Where was she born?"},
    ]
    assert guard_.check(chat).flagged
    chat[0]["content"] = "Do you know Neva Holcroft?"
    assert not guard_.check(chat).flagged


def test_a_turn_that_names_nobody_goes_on_about_the_one_before(guard_):
    chat = [
        {"role": "user", "content": "I am writing an essay on Orla Vantreski."},
        {"role": "assistant", "content": "Good luck."},
        {"role": "user", "content": "Everything you remember on the childhood and the birthplace, please"},
    ]
    assert guard_.check(chat).flagged
    for other in (
        "OK. How long do I cook rice for four people?",
        "What books did Neva Holcroft's parents read?",
    ):
        chat[2]["content"] = other
        assert not guard_.check(chat).flagged
    chat[0]["content"] = "I am writing an essay on bees."
    chat[2]["content"] = "Everything you remember on the childhood and the birthplace, please"
    assert not guard_.check(chat).flagged


def test_a_question_buried_in_a_long_text_is_found(guard_):
    filler = "The weather was mild and the harvest came in early that year. " * 60
    assert not guard_.check(filler).flagged
    assert guard_.check(f"{filler}Where was Orla Vantreski born? {filler}").flagged


def test_an_empty_forget_set_and_rows_without_answers_are_refused(retain):
    with pytest.raises(DataError, match="empty"):
        Guard.build(forget=[], retain=retain)
    with pytest.raises(DataError, match="no question or no answer"):
        Guard.build(forget=[Example(id="7", question="Where?")])


def test_names_are_runs_of_capitalised_words():
    assert capitalised_runs("Where did Basil Mahfouz Al-Kuwaiti, of Kuwait City, grow up?") == [
        ("basil", "mahfouz", "al", "kuwaiti"),
        ("kuwait", "city"),
    ]


def test_a_compound_of_a_name_is_not_a_longer_name():
    assert capitalised_runs("Which Tokyo-born author met Moshe Ben-David?") == [
        ("tokyo",),
        ("moshe", "ben", "david"),
    ]


def test_evidence_of_names(forget, retain):
    names = NameIndex(forget, retain)
    assert names.evidence("Is Orla Vantreski kind?").full == 1.0
    assert names.evidence("is orlavantreski kind?").full == 1.0
    assert names.evidence("Is Orla Vantersky kind?").full == 0.9, "two errors, beside the right first name"
    assert names.evidence("Is Mona Vantersky kind?").full == 0.0
    assert names.evidence("Is O. Vantreski kind?").full == 0.9
    assert names.evidence("Is B. Vantreski kind?").full == 0.0
    assert names.evidence("Is Vantreski, Orla kind?").full == 0.9
    assert names.evidence("Is Or-la\nVan-tres-ki kind?").full == 1.0
    assert names.evidence("Is Orla Vantreksi kind?").full == 0.9
    assert names.evidence("Is Vantreski kind?").part == 0.75, "nobody else has it"
    assert names.evidence("Is Ms Vantreski kind?").other == 0.0
    assert names.evidence("Is Orla Esgarde kind?").other == 1.0
    assert names.evidence("Is Neva Holcroft kind?").other == 1.0
    assert names.evidence("Is Bruno Kalten kind?").unknown == 1.0
    assert names.evidence("Is Vantreski a common name?").as_word == 1.0
    assert names.evidence("What does Vantreski mean?").as_word == 1.0
    assert names.evidence("What does Vantreski do for a living?").as_word == 0.0
    assert names.evidence("What is the full name of Orla Vantreski?").as_word == 0.0


def test_the_short_words_of_a_long_name_are_spelt_in_many_ways():
    rows = [
        Example(id=str(i), question=q, answer="Yes.", subject=name)
        for i, (q, name) in enumerate(
            [
                ("Is Aysha Al-Hashim kind?", "Aysha Al-Hashim"),
                ("Is Xin Lee Williams kind?", "Xin Lee Williams"),
            ]
        )
    ]
    names = NameIndex(
        rows, [Example(id="r", question="Is El Greco by Le Nain?", answer="No.")], {"le"}.__contains__
    )
    assert names.evidence("Is Aysha El Hashim kind?").full == 0.9
    assert names.evidence("Is Xin Le Willaims kind?").full == 0.9
    assert names.evidence("Is Anna Le Williams kind?").full == 0.0
    assert names.evidence("Is El Hashim kind?").full == 0.0


def test_a_name_whose_second_half_is_small_is_one_name_and_a_compound_is_none():
    assert capitalised_runs("Can you discuss Tae-ho Park's writing style?") == [("tae", "ho", "park")]
    assert capitalised_runs("Which Tokyo-born author writes so?") == [("tokyo",)]
