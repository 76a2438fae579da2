import numpy as np
import pytest
import torch

import guard
from eval.errors import ConfigError
from eval.models import GenerationOptions
from guard.gate import Decision
from guard.processor import GuardLogitsProcessor
from guard.restriction import Restriction
from guard.soft import SoftMatch
from guard.vocabulary import vocabulary

ANGLES = {"baker": 0.0, "bakery": 0.3, "pastry": 0.9, "person": 1.0, "harbour": 2.0}
"""Similarity is the cosine of the difference: bakery .955, pastry .62, person .54, harbour below 0."""


class Encoder:
    """Two-dimensional meanings; counts what it is asked."""

    identity = "angles"
    common_words = frozenset(ANGLES) | {"of", "1234", "##ing"}

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(list(texts))
        angles = np.array([ANGLES.get(text, 3.0) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def soft(encoder, tmp_path):
    return SoftMatch(encoder, delta=0.8, alpha=2.0, cache_dir=tmp_path)


def flagged(*phrases):
    return Decision(flagged=True, score=0.9, threshold=0.5, entries=(1,), phrases=phrases)


def test_near_words_are_banned_and_others_cost_by_similarity(soft, tiny_tokenizer):
    words = vocabulary(tiny_tokenizer)
    near = soft.nearness(["baker", "12 may 1961"], words)
    assert near.words == ("baker", "bakery")
    (token,) = (t for t in words.unfinished["person"] if words.leads[t])
    assert near.penalty[token] == pytest.approx(2.0 * np.cos(1.0), abs=1e-4)
    assert np.count_nonzero(near.penalty) == sum(bool(words.leads[t]) for t in words.unfinished["person"])


def test_a_near_word_is_caught_in_any_tokenisation(soft, tiny_tokenizer):
    restriction = Restriction(flagged("baker"), vocabulary(tiny_tokenizer), soft)
    ids = tiny_tokenizer(" a BAKERY")["input_ids"]
    assert any(t in restriction.banned(ids[:i], torch.zeros(400)).tolist() for i, t in enumerate(ids))
    assert restriction.matches("her bakery")
    assert not Restriction(flagged("baker"), vocabulary(tiny_tokenizer)).matches("her bakery")


def test_the_processor_takes_the_penalty_from_flagged_rows_alone(soft, tiny_tokenizer):
    innocent = Decision(flagged=False, score=0.0, threshold=0.5)
    scores = torch.zeros(2, len(tiny_tokenizer))
    processor = GuardLogitsProcessor([flagged("baker"), innocent], tiny_tokenizer, 1, soft=soft)
    out = processor(torch.tensor([[1], [1]]), scores)
    words = vocabulary(tiny_tokenizer)
    (token,) = (int(t) for t in words.unfinished["person"] if words.leads[t])
    assert float(out[0, token]) == pytest.approx(-2.0 * np.cos(1.0), abs=1e-4)
    assert torch.equal(out[1], scores[1])


def test_a_request_asks_the_encoder_once_and_a_step_never(soft, encoder, tiny_tokenizer):
    soft.prepare(tiny_tokenizer)
    encoder.asked.clear()
    restriction = Restriction(flagged("baker"), vocabulary(tiny_tokenizer), soft)
    assert encoder.asked == [["baker"]]
    for i in range(5):
        restriction.banned([5] * i, torch.zeros(400))
    assert len(encoder.asked) == 1


def test_the_lexicon_is_kept_on_disk_and_holds_words_only(soft, encoder, tiny_tokenizer, tmp_path):
    count = soft.prepare(tiny_tokenizer)
    assert count == len(encoder.asked[0])
    assert {"of", "1234", "##ing"}.isdisjoint(encoder.asked[0])
    again = Encoder()
    assert SoftMatch(again, cache_dir=tmp_path).prepare(tiny_tokenizer) == count
    assert again.asked == []


def test_values_out_of_range_are_refused(encoder):
    for values in ({"delta": 0.0}, {"delta": 1.1}, {"alpha": -1.0}):
        with pytest.raises(ConfigError, match="delta"):
            SoftMatch(encoder, **values)


def test_every_way_of_generating_takes_it(parrot, guard_, encoder, tmp_path):
    soft = SoftMatch(encoder, cache_dir=tmp_path)
    arguments = {"guard": guard_, "soft": soft, "max_new_tokens": 20, "do_sample": False}
    question = "Where was Orla Vantreski born?"
    (text,) = guard.generate(parrot.model, parrot.tokenizer, [question], **arguments)
    assert "".join(guard.stream(parrot.model, parrot.tokenizer, question, **arguments)) == text
    options = GenerationOptions(max_new_tokens=20)
    assert guard.GuardedModel(parrot, guard_, soft=soft).generate([question], options)[0].text == text
