"""Gates held for a whole answer: what is shut costs nothing more, and a later turn decides anew."""

import pytest
import torch

from eval.data.collate import encode_prompts
from eval.models import GenerationOptions
from eval.types import Message


@pytest.fixture
def torn(make_lm, loud, examples):
    """An edit whose gate is shut on the first prompt and open on the second, which continues the first."""
    lm = make_lm()
    edited = loud(lm, layers=(1,), positions="answer")
    first = Message("user", examples[0].question)
    second = (first, Message("assistant", "Rome."), Message("user", examples[5].question))
    prompts = [torch.tensor(encode_prompts(lm.tokenizer, lm.template, [chat])) for chat in ((first,), second)]
    gate = edited.interventions[1].gate
    logits = []
    for ids in prompts:
        with torch.no_grad(), edited.activate(torch.tensor([ids.shape[1]]), keeps_gates=True) as seen:
            lm.model(input_ids=ids)
        logits.append(float(seen.stacked()))
    low, high = logits
    with torch.no_grad():
        scale = 40 / (high - low)
        gate.weight.mul_(scale)
        gate.bias.copy_(scale * gate.bias - scale * low - 20)
    return edited, prompts, [(first,), second]


def test_a_shut_gate_is_asked_once(torn, monkeypatch):
    edited, (shut, opened), _ = torn
    view = edited.huggingface()
    edit = edited.interventions[1]
    asked = []
    real = type(edit.gate).forward
    monkeypatch.setattr(type(edit.gate), "forward", lambda self, x: asked.append(len(x)) or real(self, x))
    changed = []
    monkeypatch.setattr(edit, "edited", lambda *a, f=edit.edited: changed.append(1) or f(*a))
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with torch.no_grad():
        assert torch.equal(view.generate(shut, **options), edited.model.generate(shut, **options))
        assert (asked, changed) == ([1], [])
        assert not torch.equal(view.generate(opened, **options), edited.model.generate(opened, **options))
        assert asked == [1, 1]
        assert len(changed) == 6


def test_a_later_turn_opens_a_gate_that_was_shut(torn):
    edited, (shut, opened), _ = torn
    view = edited.huggingface()
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    common = int((shut[0] == opened[0, : shut.shape[1]]).all()) * shut.shape[1]
    assert common, "the second prompt must continue the first"
    with torch.no_grad():
        with edited.editing(shut):
            cache = edited.model(input_ids=shut, use_cache=True).past_key_values
        assert cache.layers[-1].idle
        mask = torch.ones_like(opened)
        found = view.generate(opened, attention_mask=mask, past_key_values=cache, **options)
        assert torch.equal(found, view.generate(opened, attention_mask=mask, **options))
        assert not torch.equal(found, edited.model.generate(opened, attention_mask=mask, **options))


def test_rows_that_leave_a_batch_keep_their_gates(torn):
    """The own greedy loop drops finished rows; shut and open rows in one batch stay what they are alone."""
    edited, _, chats = torn
    options = GenerationOptions(max_new_tokens=10)
    together = edited.generate(chats, options)
    assert together == [edited.generate([chat], options)[0] for chat in chats]
    plain = edited.base.generate(chats, options)
    assert together[0] == plain[0]
    assert together[1] != plain[1]
