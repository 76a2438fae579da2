import time

import pytest
import torch

from guard.gate import Decision
from guard.normalise import fold
from guard.private import HashMatcher
from guard.restriction import Restriction, must_refuse, restriction_for
from guard.verbatim import RunMatcher, split_words
from guard.vocabulary import vocabulary

BOOK = "The old mill by the river turned its wheel all night, and nobody in Tarn slept. It was Ada's mill."


def flagged(*phrases, **more):
    return Decision(flagged=True, score=0.9, threshold=0.5, entries=(1,), phrases=phrases, **more)


def banned_at(ban, ids):
    return [i for i, token in enumerate(ids) if token in ban(ids[:i]).tolist()]


class Secrets:
    """Hashed phrases, without the hashing: folded words in a set."""

    longest = 3

    def __init__(self, *phrases):
        self.phrases = {tuple(split_words(fold(phrase))) for phrase in phrases}

    def ends_in_phrase(self, words):
        return any(tuple(words[-n:]) in self.phrases for n in range(1, 1 + min(len(words), self.longest)))


def test_a_run_of_a_document_meets_a_ban_at_its_last_word(tiny_tokenizer):
    matcher = RunMatcher([BOOK], vocabulary(tiny_tokenizer), num_words=4)
    ids = tiny_tokenizer(" we saw the old mill by night")["input_ids"]
    (place, *_) = banned_at(matcher.banned, ids)
    assert tiny_tokenizer.decode(ids[:place]).rstrip().startswith(" we saw the old mill")
    assert "mill by" not in tiny_tokenizer.decode(ids[:place])
    for innocent in (
        "the old mill on the river turned",
        "nobody in Oslo slept all night",
        "mill. It was Ada",
    ):
        assert banned_at(matcher.banned, tiny_tokenizer(innocent)["input_ids"]) == [], innocent


def test_greedy_choice_through_the_bans_never_holds_a_run(tiny_tokenizer):
    matcher = RunMatcher([BOOK], vocabulary(tiny_tokenizer), num_words=4)
    kept = []
    for token in (
        tiny_tokenizer(BOOK.upper().replace(" ", "  "))["input_ids"] + tiny_tokenizer(BOOK)["input_ids"]
    ):
        if token not in matcher.banned(kept).tolist():
            kept.append(token)
    assert len(kept) > 40
    assert not matcher.matches(tiny_tokenizer.decode(kept))
    assert matcher.matches(f"And so {BOOK[4:40]}")


def test_runs_do_not_cross_from_one_passage_to_the_next(tiny_tokenizer):
    matcher = RunMatcher(["a b c d", "e f g h"], vocabulary(tiny_tokenizer), num_words=4)
    assert matcher.matches("a b c d")
    assert not matcher.matches("c d e f")
    assert not RunMatcher(["too short"], vocabulary(tiny_tokenizer)).matches("too short")


def test_hashed_phrases_are_banned_among_the_likeliest_and_all_others_with_them(tiny_tokenizer):
    restriction = Restriction(flagged(hashes=Secrets("in rome", "12 may")), vocabulary(tiny_tokenizer))
    ids = tiny_tokenizer("lived in Rome")["input_ids"]
    scores = torch.zeros(len(tiny_tokenizer))
    scores[ids[-1]], scores[7], scores[8] = 9.0, 5.0, 4.0
    banned = set(restriction.banned(ids[:-1], scores).tolist())
    assert ids[-1] in banned
    assert not {7, 8} & banned
    assert len(banned) >= len(tiny_tokenizer) - 256
    assert restriction.matches("He lived in ROME.")
    assert not restriction.matches("Rome it is")
    assert restriction.held("so he lived in Paris") == len("lived in Paris")


def test_hashed_phrases_in_pieces_of_words(tiny_tokenizer):
    matcher = HashMatcher(Secrets("brelmouth"), vocabulary(tiny_tokenizer))
    import numpy as np

    ids = tiny_tokenizer(" Brelmouth")["input_ids"]
    places = [i for i, t in enumerate(ids) if not len(matcher.allowed(ids[:i], np.array([t])))]
    assert places == [len(ids) - 1]


def test_a_decision_that_names_nothing_bans_everything(tiny_tokenizer):
    restriction = restriction_for(flagged(), tiny_tokenizer)
    assert must_refuse(flagged())
    assert len(restriction.banned([], torch.zeros(9))) == 9
    assert not must_refuse(flagged("rome"))
    innocent = Decision(flagged=False, score=0.0, threshold=0.5)
    assert restriction_for(innocent, tiny_tokenizer) is None
    assert not must_refuse(innocent)


def test_equal_decisions_share_a_restriction(tiny_tokenizer):
    first, second = (
        restriction_for(flagged("rome"), tiny_tokenizer),
        restriction_for(flagged("rome"), tiny_tokenizer),
    )
    assert first is second
    assert restriction_for(flagged("oslo"), tiny_tokenizer) is not first


def test_ten_thousand_phrases_are_active_at_once(tiny_tokenizer):
    """A step costs milliseconds, not a multiple of the phrases; a step with one phrase is the yardstick."""
    phrases = tuple(f"{a}{b} {c}ton {n}" for n, (a, b, c) in enumerate(_syllables()))
    assert len(phrases) == 10_000
    many, one = (
        Restriction(flagged(*phrases), vocabulary(tiny_tokenizer)),
        Restriction(flagged(phrases[17]), vocabulary(tiny_tokenizer)),
    )
    ids = tiny_tokenizer(f"It was {phrases[17]} and then Rome was near to person 5")["input_ids"]
    scores = torch.zeros(len(tiny_tokenizer))
    assert set(banned_at(lambda t: one.banned(t, scores), ids)) <= set(
        banned_at(lambda t: many.banned(t, scores), ids)
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(len(ids)):
            many.banned(ids[:i], scores)
        seconds.append((time.perf_counter() - start) / len(ids))
    assert min(seconds) < 0.005


def _syllables():
    parts = ["ba", "ce", "di", "fo", "gu", "hal", "jen", "kir", "lom", "mun"] * 10
    return [(parts[i], parts[j], parts[(i + j) % 10]) for i in range(100) for j in range(100)]


@pytest.mark.parametrize("text", ["", "   ", "…"])
def test_held_text_of_nothing_is_nothing(tiny_tokenizer, text):
    assert Restriction(flagged("rome"), vocabulary(tiny_tokenizer)).held(text) == 0


def test_a_document_is_not_continued_word_by_word(parrot):
    """The model repeats one sentence for ever; the guard lets it say three of its words in a row."""
    from guard.processor import GuardLogitsProcessor

    sentence = ",Brelmouth,Brelmouth,Brelmouth,Brelmouth,Brelmouth"
    decision = flagged(passages=(sentence,))
    ids = torch.tensor([[1]])
    processor = GuardLogitsProcessor([decision], parrot.tokenizer, 1)
    before = parrot.model.generate(ids, max_new_tokens=60, do_sample=False, pad_token_id=0)
    after = parrot.model.generate(
        ids, max_new_tokens=60, do_sample=False, pad_token_id=0, logits_processor=[processor]
    )
    runs = RunMatcher([sentence], vocabulary(parrot.tokenizer))
    assert runs.matches(parrot.tokenizer.decode(before[0]))
    text = parrot.tokenizer.decode(after[0])
    assert not runs.matches(text)
    assert text.count("relmouth") >= 3, "shorter runs may be said"


def test_a_store_without_text_bans_what_it_hashed(tiny_tokenizer):
    from guard.hashing import PhraseHashes, Veil

    veil = Veil(b"k" * 16, lambda word: False)
    hashes = PhraseHashes.of(veil, veil.phrases(["ada s mill", "in rome"]))
    restriction = Restriction(flagged(hashes=hashes), vocabulary(tiny_tokenizer))
    assert restriction.matches("She kept Ada's MILL.")
    ids = tiny_tokenizer(" we saw Ada's mill")["input_ids"]
    scores = torch.zeros(len(tiny_tokenizer))
    places = []
    for i, token in enumerate(ids):
        scores.zero_()[token] = 1.0
        places += [i] if token in restriction.banned(ids[:i], scores).tolist() else []
    assert places == [len(ids) - 1]
