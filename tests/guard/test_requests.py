"""What a forget request may hold: subjects with aliases, documents, and stores without readable text."""

import re
from dataclasses import replace

import pytest

from eval.errors import ArtifactError, ConfigError, DataError
from eval.types import Example
from guard.config import GuardSettings
from guard.core import Guard
from guard.hashing import NGRAM, PhraseHashes, Veil
from guard.normalise import plain
from guard.restriction import Restriction
from guard.stopwords import STOP_WORDS
from guard.verbatim import NUM_WORDS
from guard.vocabulary import vocabulary

BOOK = (
    "The miller of Harrowgate kept seven lanterns on the weir, and each one burned a different oil. When the river "
    "rose he lit them from the east, so the barges knew which arch was safe, and when it fell he let them die in turn "
) + " ".join(
    f"On day {i} the ferryman {i * 7} counted barge {i * 3} twice before breakfast." for i in range(60)
)


@pytest.fixture
def fresh(forget, retain, quick):
    return Guard.build(forget=forget, retain=retain, settings=quick, request="first")


def test_a_subject_is_recognised_by_its_names_and_says_that_it_is_covered_weakly(fresh):
    assert not fresh.check("Where did Jane Roewick live?").flagged
    added = fresh.add("second", subject="Jane Roewick", aliases=["J. T. Quistgard"])
    assert len(added.ids) == 2
    assert "weakly" in added.notices[0]
    for question in ("Where did Jane Roewick live?", "What did J. T. Quistgard do in 1990?"):
        decision = fresh.check(question)
        assert decision.flagged, question
        assert decision.phrases == () == decision.passages, "nothing is known that an answer should leave out"
        assert set(added.ids) <= set(decision.entries)
    assert not fresh.check("Where did Jane Austen live?").flagged
    fresh.remove("second")
    assert not fresh.check("Where did Jane Roewick live?").flagged


def test_a_document_is_cut_into_pieces_that_are_recognised(fresh):
    added = fresh.add("novel", documents=[BOOK])
    assert len(added.ids) > 3
    assert "repeated" in added.notices[0]
    decision = fresh.check(f"Continue this text: {BOOK[:120]}")
    assert decision.flagged
    assert decision.passages[0].startswith("The miller of Harrowgate")
    assert "breakfast" in decision.passages[-1], "every piece of the document is kept from being repeated"
    assert decision.phrases == ()
    assert {fresh.store.entries[i].kind for i in added.ids} == {"document"}


@pytest.mark.parametrize("private", [False, True])
def test_all_texts_of_a_request_are_kept_from_being_repeated(retain, quick, private, tiny_tokenizer):
    chapters = [
        Example(id="1", text="The miller of Harrowgate kept seven white geese behind the crooked windmill."),
        Example(id="2", text="Down by the tannery a blind fiddler sold painted buttons to sleepy sailors."),
    ]
    g = Guard.build(forget=chapters, retain=retain, settings=replace(quick, private=private))
    decision = g.check("The miller of Harrowgate kept seven white geese behind")
    assert decision.flagged
    restriction = Restriction(decision, vocabulary(tiny_tokenizer))
    assert restriction.matches("And then a blind fiddler sold painted buttons there.")
    assert not restriction.matches("A fiddler sold buttons to the sailors.")


def test_documents_of_a_subject_tell_facts(fresh):
    fresh.add(
        "roe", subject="Jane Roewick", documents=["Jane Roewick was born in Quillmarsh and keeps bees."]
    )
    assert "quillmarsh" in fresh.check("Where was Jane Roewick born?").phrases


def test_an_example_with_a_text_is_a_document(retain, quick):
    g = Guard.build(forget=[Example(id="b", text=BOOK)], retain=retain, settings=quick)
    assert g.check(f"What comes next? {BOOK[:200]}").flagged
    assert not g.check(retain[0].question).flagged


def test_empty_requests_are_refused(fresh):
    with pytest.raises(DataError, match="no examples, no subject and no document"):
        fresh.add("x")
    with pytest.raises(DataError, match="aliases but no subject"):
        fresh.add("x", aliases=["J."], documents=["Some text."])
    with pytest.raises(DataError, match="empty name or document"):
        fresh.add("x", documents=["  "])
    assert fresh.list() == {"first": 10}


@pytest.fixture(scope="module")
def private(forget, retain):
    settings = GuardSettings(max_rewordings=40, private=True)
    return Guard.build(forget=forget, retain=retain, settings=settings, request="first")


def test_a_private_store_keeps_no_readable_text(private, forget, retain, tmp_path):
    private.save(tmp_path / "store")
    stored = b"".join(p.read_bytes().lower() for p in (tmp_path / "store").iterdir() if p.name != ".lock")
    for secret in ("vantreski", "orla", "brelmouth", "lighthouse", "copper", "neva", "holcroft"):
        assert secret.encode() not in stored, secret
    assert (tmp_path / "store" / "veil.key").stat().st_mode & 0o077 == 0
    loaded = Guard.load(tmp_path / "store")
    for g in (private, loaded):
        asked = g.check("Where was Orla Vantreski born?")
        assert asked.flagged
        assert asked.phrases == ()
        assert asked.hashes.ends_in_phrase(["she", "comes", "from", "brelmouth"])
        assert not asked.hashes.ends_in_phrase(["she", "comes", "from", "paris"])
        assert g.check("orla vantreski job").flagged
        passed = [g.check(e.question).flagged for e in retain]
        assert passed == [False] * len(retain)
        assert not g.check("What is the capital of Norway?").flagged
    (tmp_path / "store" / "veil.key").unlink()
    with pytest.raises(ArtifactError, match=r"key veil\.key is missing"):
        Guard.load(tmp_path / "store")


def test_no_word_of_a_private_store_stands_in_any_file_of_it(forget, retain, quick, tmp_path):
    g = Guard.build(forget=forget, retain=retain, settings=replace(quick, private=True))
    g.save(tmp_path / "s")
    g.add("r2", subject="Jane Roewick", aliases=["J. T. Quistgard"], documents=[BOOK])
    g.add("r3", [e for e in retain if e.subject == "Juno Marapel"])
    g.save(tmp_path / "s")
    g.remove("r3")
    g.save(tmp_path / "s")
    names = "Jane Roewick J T Quistgard"
    texts = [BOOK, names, *(f"{e.question} {e.answer} {e.subject}" for e in [*forget, *retain])]
    secret = {w for text in texts for w in plain(text).split() if w not in STOP_WORDS and len(w) > 3}
    for path in sorted((tmp_path / "s").iterdir()):
        found = set(re.findall(r"[a-z]{4,}", path.read_bytes().decode("latin-1").lower()))
        assert not found & secret, path.name
    assert len(secret) > 100


def test_a_private_store_can_be_added_to_and_removed_from(private, retain, tmp_path):
    private.save(tmp_path / "store")
    g = Guard.load(tmp_path / "store")
    added = g.add("second", [e for e in retain if e.subject == "Juno Marapel"])
    assert g.check("Where was Juno Marapel born?").hashes.ends_in_phrase(["tollgrave"])
    assert "Juno" not in str([g.store.entries[i] for i in added.ids])
    g.add("book", documents=[BOOK])
    hashes = g.check(f"Continue: {BOOK[:120]}").hashes
    assert hashes.ends_in_phrase(plain("miller of harrowgate kept").split())
    g.remove("second")
    assert not g.check("Where was Juno Marapel born?").flagged


def test_runs_of_words_have_one_length_everywhere():
    assert NGRAM == NUM_WORDS


def test_a_veil_compares_equal_words_and_tells_common_ones():
    veil = Veil(b"k" * 32, {"baker"}.__contains__)
    assert veil.text("The Baker's dog") == veil.text("The baker's dog").replace("qc", "Qc")
    assert veil.text(veil.text("Baker")) == veil.text("Baker")
    assert veil.is_common(veil.word("baker"))
    assert not veil.is_common(veil.word("vantreski"))
    assert Veil(b"x" * 32, str.isalpha).word("baker") != Veil(b"k" * 32, str.isalpha).word("baker")
    hashes = PhraseHashes.of(veil, veil.phrases(["clock restorer", "brelmouth"]))
    assert hashes.longest == 2
    assert hashes.ends_in_phrase(["a", "clock", "restorer"])
    assert not hashes.ends_in_phrase(["clock", "restorer", "a"])


def test_settings_of_the_index_are_checked(forget):
    with pytest.raises(ConfigError, match="min_recall"):
        GuardSettings(min_recall=0.0)
    with pytest.raises(ConfigError, match="at least 5000 vectors"):
        Guard.build(forget=forget, settings=GuardSettings(index="ivf", max_rewordings=10))
