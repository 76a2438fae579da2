"""A guard on the model's own hidden states: the same interface, another model refused."""

import dataclasses

import numpy as np
import pytest
import torch

import guard
from eval.errors import ArtifactError, ConfigError
from eval.models import GenerationOptions
from guard.config import GuardSettings
from guard.core import Guard
from guard.hidden import HiddenEncoder
from guard.refusals import REFUSALS
from guard.rewordings import EVERYDAY

FLAGGED = "Where was Orla Vantreski born?"
SETTINGS = GuardSettings(max_rewordings=40, features="hidden")


@pytest.fixture
def hidden_guard(tiny_lm, forget, retain):
    return Guard.build(forget=forget, retain=retain, settings=SETTINGS, model=tiny_lm)


def test_a_vector_is_the_centred_mean_of_the_layer(tiny_lm):
    def mean(text):
        ids = torch.tensor([tiny_lm.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            return tiny_lm.model(ids, output_hidden_states=True).hidden_states[-2][0].mean(0).numpy()

    expected = mean(FLAGGED) - np.mean([mean(text) for text in EVERYDAY], axis=0)
    encoder = HiddenEncoder(tiny_lm)
    alone = encoder.encode([FLAGGED])
    np.testing.assert_allclose(alone[0], expected / np.linalg.norm(expected), atol=1e-4)
    encoder = HiddenEncoder(tiny_lm)
    batch = encoder.encode(["Yes", FLAGGED, "A much longer text than the two others are, " * 5])
    np.testing.assert_allclose(batch[1], alone[0], atol=1e-4)


def test_long_texts_are_read_in_windows_that_overlap(tiny_lm):
    encoder = HiddenEncoder(tiny_lm)
    text = "".join(chr(97 + i % 26) for i in range(3000))
    pieces = encoder.windows(text)
    assert pieces[0] == text[: len(pieces[0])]
    assert pieces[-1].endswith(text[-50:])
    assert all(piece in text for piece in pieces)
    assert encoder.windows("short") == ["short"]


def test_it_judges_is_saved_and_is_refused_on_another_model(hidden_guard, tiny_lm, retain, tmp_path):
    assert hidden_guard.check(FLAGGED).flagged
    assert not any(d.flagged for d in hidden_guard.check_many([row.question for row in retain]))
    hidden_guard.save(tmp_path / "store")
    again = Guard.load(tmp_path / "store", model=tiny_lm)
    assert again.check(FLAGGED) == hidden_guard.check(FLAGGED)
    with pytest.raises(ConfigError, match="give the model"):
        Guard.load(tmp_path / "store")
    with torch.no_grad():
        tiny_lm.model.get_input_embeddings().weight.add_(0.1)
    tiny_lm._identity = None
    with pytest.raises(ArtifactError, match="hidden states of another model than 'tiny'"):
        Guard.load(tmp_path / "store", model=tiny_lm)


def test_another_model_is_refused_as_such_also_where_it_lacks_the_layer(tiny_lm, forget, tmp_path):
    settings = dataclasses.replace(SETTINGS, layer=-3)
    Guard.build(forget=forget, settings=settings, model=tiny_lm).save(tmp_path / "store")
    tiny_lm.model.config.num_hidden_layers = 1
    tiny_lm.forget_identity()
    with pytest.raises(ArtifactError, match="another model"):
        Guard.load(tmp_path / "store", model=tiny_lm)


def test_a_model_with_a_large_vocabulary_needs_no_sentence_encoder(
    tiny_lm, forget, retain, tmp_path, monkeypatch
):
    def missing():
        raise ConfigError("no sentence encoder is installed")

    monkeypatch.setattr("guard.hidden.get_encoder", missing)
    with pytest.raises(ConfigError, match="no sentence encoder is installed"):
        Guard.build(forget=forget, retain=retain, settings=SETTINGS, model=tiny_lm)
    monkeypatch.setattr("guard.hidden._ENOUGH_WORDS", 10)
    own = Guard.build(forget=forget, retain=retain, settings=SETTINGS, model=tiny_lm)
    assert own.check(FLAGGED).flagged
    assert not own.check("Where was Neva Holcroft born?").flagged
    pieces = tiny_lm.tokenizer.get_vocab()
    common = own.encoder.common_words
    assert common
    assert all(f"\u0120{word}" in pieces or f"\u2581{word}" in pieces for word in common)
    own.save(tmp_path / "store")
    assert Guard.load(tmp_path / "store", model=tiny_lm).check(FLAGGED) == own.check(FLAGGED)


def test_it_filters_the_model_it_reads(hidden_guard, tiny_lm):
    guarded = guard.GuardedModel(tiny_lm, hidden_guard, policy="refuse")
    innocent = "Where was Neva Holcroft born?"
    options = GenerationOptions(max_new_tokens=6)
    flagged, passed = guarded.generate([FLAGGED, innocent], options)
    assert flagged.text in REFUSALS
    assert passed.text == tiny_lm.generate([innocent], options)[0].text


def test_what_it_cannot_be_built_on_is_refused(tiny_lm, forget):
    with pytest.raises(ConfigError, match="give the model"):
        Guard.build(forget=forget, settings=SETTINGS)
    with pytest.raises(ConfigError, match="no hidden state 9"):
        HiddenEncoder(tiny_lm, layer=9)
    with pytest.raises(ConfigError, match="features"):
        GuardSettings(features="both")
