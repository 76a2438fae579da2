"""Names are told apart by counting; adding texts in parts gives what all of them at once give."""

import random
from dataclasses import replace

import pytest

from eval.types import Example
from guard.building import Lexicon
from guard.census import AskedAbout, Census, asked_about
from guard.core import Guard
from guard.names import NameIndex

QUESTIONS = (
    "Where was Jane Roe born?",
    "What did Jane Roe write?",
    "Who taught Jane Roe in Port Amber?",
    "Is Port Amber large?",
    "What did Port Amber do for Tom Ash?",
    "Where in Port Amber did Tom Ash live?",
    "Did Tom Ash come from Port Amber?",
    "When did Ann Lee live in Port Amber?",
    "Was Ann Lee seen at Port Amber?",
    "Why did Ann Lee write?",
    "Who met Ann Lee?",
)


def row(i, question, answer, subject=None):
    return Example(id=str(i), question=question, answer=answer, subject=subject)


def told(seed, num=60):
    """Rows of few first names, last names, places and works, so that names share words and change what they are."""
    rng = random.Random(seed)
    first, last = ("Ada", "Bea", "Cleo", "Dora"), ("Roe", "Quill", "Marsh", "Vane")
    towns, works = ("Port Amber", "East Lund", "Marsh Vane"), ("The Cold Ford", "Old Salt Road", "Ada Marsh")
    rows = []
    for i in range(num):
        name, town, work = f"{rng.choice(first)} {rng.choice(last)}", rng.choice(towns), rng.choice(works)
        question, answer = rng.choice(
            (
                (f"Where was {name} born?", f"{name} was born in {town}."),
                (f"Who wrote '{work}'?", f"'{work}' was written by {name}."),
                (f"What is {work}?", f"{work} is a book by {name} of {town}."),
                (f"Is {town} near {name}'s home?", f"{town} is where {name} lives."),
                (f"Does {name} know {town}?", f"Yes, {town} is known to her."),
            )
        )
        rows.append(row(i, question, answer, rng.choice((None, name, f"person {i}"))))
    return rows


def state(value):
    """What an object holds, without caches and order."""
    skipped = {"_is_common", "_arrays", "_texts", "_spellings", "_joined_spellings"}
    if isinstance(value, (Census, AskedAbout, NameIndex)):
        return {k: state(v) for k, v in vars(value).items() if k not in skipped}
    if isinstance(value, dict):
        return {k: state(v) for k, v in value.items() if v}
    return value


def test_the_leading_name_of_most_questions_is_asked_about():
    # of all questions "Port Amber" leads the 7 that it is in, being the most frequent, but stands as a place in 5
    assert asked_about(QUESTIONS[:3]) == {("jane", "roe")}
    assert asked_about(QUESTIONS[:2]) == set()
    everything = asked_about(QUESTIONS)
    assert ("port", "amber") not in everything, "it mostly stands where a place does"
    assert ("ann", "lee") not in everything, "it leads 2 of 4 questions"


def test_a_name_may_cease_to_be_one_when_more_is_known():
    asked = AskedAbout()
    asked.add(QUESTIONS[5:])
    before = set(asked.names)
    asked.add(["Where was Ann Lee born?", "What did Ann Lee do?"])
    assert ("ann", "lee") in asked.names - before
    asked.add([f"Does anybody like Ann Lee or Jo Hill in {i} years?" for i in range(9)])
    asked.add([f"Who is Jo Hill of the {i}th?" for i in range(9)])
    assert ("ann", "lee") not in asked.names
    assert ("jo", "hill") in asked.names


@pytest.mark.parametrize("seed", range(8))
def test_counting_in_parts_is_counting_at_once(seed):
    rows, retain = told(seed), told(100 + seed, 12)
    aliases = [("Ada Marsh", "Ada Marsh"), ("Zed", "Zed Roe")]
    once = NameIndex(rows, retain, {"salt", "cold"}.__contains__, aliases)
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, len(rows)), 3))
    parts = NameIndex(rows[: cuts[0]], retain, {"salt", "cold"}.__contains__)
    for begin, end in zip(cuts, [*cuts[1:], len(rows)], strict=True):
        parts.add(rows[begin:end], aliases if begin == cuts[1] else ())
    assert state(parts) == state(once)
    assert sorted(parts.name_words) == sorted({word for name in once.people for word in name})
    for text in [r.question for r in rows + retain] + [
        "ada rue",
        "Marsh",
        "B. Quill",
        "portamber by Bea Marsch",
    ]:
        assert parts.evidence(text) == once.evidence(text)
    assert once.people
    assert once.titles
    assert once.places


@pytest.mark.parametrize("private", [False, True])
def test_adding_in_two_parts_decides_as_building_at_once(forget, retain, quick, private, monkeypatch):
    settings = replace(quick, private=private)
    extra = [r for r in retain if r.subject == "Juno Marapel"]
    kept = [r for r in retain if r.subject != "Juno Marapel"]
    of = []
    original = Lexicon.of.__func__
    monkeypatch.setattr(Lexicon, "of", classmethod(lambda cls, *a: of.append(1) or original(cls, *a)))
    parts = Guard.build(forget=forget, retain=kept, settings=settings)
    built = len(of)
    parts.add("second", extra[:3])
    parts.add("third", extra[3:])
    assert len(of) == built, "the lexicon of what was there is not made anew"
    once = Guard.build(forget=[*forget, *extra], retain=kept, settings=settings)
    prompts = [r.question for r in [*forget, *retain]]
    prompts += [p.lower() for p in prompts] + ["juno marapell", "the map engraver of Tollgrave", "Hello!"]
    if private:  # keys and weights differ: a private gate keeps those it was first given
        same = [(a.flagged, a.entries) for a in parts.check_many(prompts[:-3])]
        assert same == [(b.flagged, b.entries) for b in once.check_many(prompts[:-3])]
    else:
        for a, b in zip(parts.check_many(prompts), once.check_many(prompts), strict=True):
            assert (a.flagged, a.entries, a.phrases, a.evidence) == (
                b.flagged,
                b.entries,
                b.phrases,
                b.evidence,
            )
            assert a.score == pytest.approx(b.score, abs=1e-9)


def test_adding_what_was_innocent_leaves_it_out_of_the_innocent_words(forget, retain, quick):
    parts = Guard.build(forget=forget, retain=retain, settings=quick)
    parts.add("second", [r for r in retain if r.subject == "Juno Marapel"])
    assert "tollgrave" in parts._lexicon.rare.words
    assert ("juno", "marapel") in parts._lexicon.names.people
    assert ("juno", "marapel") not in parts._lexicon.names.retain_names
    assert parts.check("Where was Juno Marapel born?").flagged
    parts.remove("second")
    assert "tollgrave" not in parts._lexicon.rare.words
    assert not parts.check("Where was Juno Marapel born?").flagged
