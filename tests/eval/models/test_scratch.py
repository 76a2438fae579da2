from __future__ import annotations

import pytest
import torch

from eval.data.world import load
from eval.errors import UnknownNameError
from eval.models.loading import load as load_model
from eval.models.scratch import SIZES, benchmark_texts, build, untrained
from eval.types import Message


@pytest.fixture(scope="module")
def texts():
    return list(benchmark_texts(load("forget01")))


@pytest.fixture(scope="module")
def lm(texts):
    return build("tiny", texts, seed=3)


def test_equal_arguments_give_equal_models_and_the_random_state_stays(lm, texts):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    again = build("tiny", texts, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert again.identity == lm.identity
    assert again.tokenizer.get_vocab() == lm.tokenizer.get_vocab()
    assert build("tiny", texts, seed=4).identity != lm.identity


def test_any_text_survives_the_tokenizer(lm, texts):
    for text in [*texts[:50], "Grüße, 東京! 🜚", "  two  spaces\n"]:
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert lm.tokenizer.decode(ids) == text


def test_bos_eos_and_pad_differ(lm):
    ids = {lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id, lm.tokenizer.pad_token_id}
    assert None not in ids
    assert len(ids) == 3
    assert lm.eos_ids == (lm.tokenizer.eos_token_id,)


def test_the_chat_template_closes_assistant_turns_and_takes_several(lm):
    chat = (
        Message("system", "Be brief."),
        Message("user", "Who?"),
        Message("assistant", "Me."),
        Message("user", "Why?"),
    )
    assert lm.template.render(chat) == (
        "<s><|system|>Be brief.<|user|>Who?<|assistant|>Me.</s><|user|>Why?<|assistant|>"
    )
    assert lm.template.completion(chat, "So.") == "So.</s>"


def test_answers_end_with_eos_once(lm):
    row = load("forget01").forget[0]
    (encoded,) = lm.encode([row], [row.answer])
    assert encoded.prompt_ids[0] == lm.tokenizer.bos_token_id
    assert encoded.answer_ids[-1] == lm.tokenizer.eos_token_id
    assert encoded.answer_ids.count(lm.tokenizer.eos_token_id) == 1


def test_a_saved_model_loads_as_any_other(lm, tmp_path):
    lm.save(tmp_path / "model")
    again = load_model(str(tmp_path / "model"), device="cpu")
    assert again.identity == lm.identity
    assert again.template.name == "chat"
    assert not list((tmp_path / "model").glob("*.bin"))


def test_sizes(texts):
    small = untrained("small")
    parameters = sum(p.numel() for p in small.model.parameters())
    assert 0.5e6 < parameters < 3e6
    assert len(small.tokenizer) <= SIZES["small"].vocab
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        build("smal", texts)
