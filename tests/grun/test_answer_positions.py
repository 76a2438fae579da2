"""One decision for the whole answer: held in the cache, whatever happens to its rows."""

import numpy as np
import pytest
import torch

import grun
from eval.errors import ConfigError
from eval.models import GenerationOptions
from eval.types import Example
from grun.gate import DETECTORS, FollowingGate, PhraseGate
from grun.hooks import SHUT
from grun.model import new_edit

QUESTIONS = ["Where was Ada born?", "What is it?", "Who wrote the long and winding book about the sea?"]


@pytest.fixture
def held(make_lm):
    """Return a function: gate kind -> an edit at answer positions that changes the text, open on some prompts."""

    def make(gate="phrase", opens=3.0):
        edited, _ = new_edit(make_lm(), layers=(0, 2), rank=4, positions="answer", gate=gate, seed=3)
        generator = torch.Generator().manual_seed(3)
        for edit in edited.interventions.values():
            edit.weight.data.copy_(torch.randn(edit.weight.shape, generator=generator) * 20 / 32**0.5)
            edit.bias.data.copy_(torch.randn(edit.bias.shape, generator=generator) * 5)
        first = edited.interventions[0].gate
        (first.out_bias if gate == "phrase" else first.bias).data.fill_(opens)
        return edited

    return make


def _examples():
    return [Example(id=str(i), question=q, answer="It was the sea.") for i, q in enumerate(QUESTIONS)]


@pytest.mark.parametrize("gate", ["phrase", "linear"])
def test_cached_scoring_equals_one_whole_forward(held, gate):
    """Shared prompts run once and leave the gates in their cache; with gradients every row runs whole."""
    edited = held(gate)
    rows = [row for row in _examples() for _ in range(2)]
    answers = ["It was the sea.", "Nobody knows that at all."] * 3
    batch = edited.collate(edited.encode(rows, answers))
    whole, _ = edited.answer_and_gate_logits(batch)
    with torch.no_grad():
        cached = edited.answer_logits(batch)
    torch.testing.assert_close(cached, whole.detach(), rtol=1e-4, atol=1e-4)
    plain = edited.base.answer_logits(batch)
    assert (cached - plain).abs().max() > 0.1


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 3}, {"prefill_chunk_size": 3}])
def test_generation_paths_agree(held, options):
    edited = held()
    texts = [
        next(g.token_ids for g in edited.generate([q], GenerationOptions(max_new_tokens=8)))
        for q in QUESTIONS
    ]
    together = [g.token_ids for g in edited.generate(QUESTIONS, GenerationOptions(max_new_tokens=8))]
    assert together == texts
    from eval.data.collate import encode_prompts, pad_left
    from eval.types import conversation

    ids, mask = pad_left(
        encode_prompts(edited.tokenizer, edited.template, [conversation(q) for q in QUESTIONS]), 0
    )
    ends = torch.full((len(ids) * options.get("num_beams", 1),), ids.shape[1])
    with torch.no_grad(), edited.forward_context(ends):
        out = edited.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0, **options
        )
    rows = out[:, ids.shape[1] :].tolist()
    if "num_beams" in options:  # beams find other texts; the same ones as without padding
        with torch.no_grad(), edited.forward_context(torch.full((3,), int(mask[1].sum()))):
            alone = edited.model.generate(
                input_ids=ids[1:2, -int(mask[1].sum()) :], attention_mask=mask[1:2, -int(mask[1].sum()) :],
                max_new_tokens=8, do_sample=False, pad_token_id=0, **options,
            )  # fmt: skip
        assert rows[1] == alone[0, -len(rows[1]) :].tolist()
        return
    assert [row[: len(text)] for row, text in zip(rows, texts, strict=True)] == [list(text) for text in texts]


def test_a_shut_gate_leaves_the_base_bit_for_bit(held):
    edited = held(opens=SHUT - 1)
    batch = edited.collate(edited.encode(_examples(), ["It was the sea."] * 3))
    with torch.no_grad():
        assert torch.equal(edited.answer_logits(batch), edited.base.answer_logits(batch))
    assert edited.gate(QUESTIONS).max() < 0.01


def test_held_open_rows_are_edited_and_their_gate_is_still_read(held):
    edited = held(opens=SHUT - 5)
    batch = edited.collate(edited.encode(_examples(), ["It was the sea."] * 3))
    own, gates = edited.answer_and_gate_logits(batch)
    forced, same = edited.answer_and_gate_logits(batch, open_rows=torch.tensor([False, True, False]))
    changed = torch.zeros(3, dtype=torch.bool)
    changed[batch.rows[((own - forced).abs() > 1e-2).any(1)]] = True
    assert changed.tolist() == [False, True, False]
    assert torch.equal(gates, same)


def test_a_phrase_is_found_wherever_it_stands():
    """One detector of three given states fires by their strongest place; padding and chunks change nothing."""
    gate = PhraseGate(8, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1))
    full = gate.decide(gate.scan(hidden, torch.ones(1, 6, dtype=torch.bool)))
    padded = torch.cat([torch.randn(1, 2, 8), hidden, torch.randn(1, 3, 8)], dim=1)
    mask = torch.tensor([[False] * 2 + [True] * 6 + [False] * 3])
    torch.testing.assert_close(gate.decide(gate.scan(padded, mask)), full)
    state = None
    for part in hidden.split(2, dim=1):
        state = gate.scan(part, torch.ones(1, part.shape[1], dtype=torch.bool), state)
    torch.testing.assert_close(gate.decide(state), full)
    seen = torch.nn.functional.rms_norm(hidden, (8,))[0]
    before = torch.cat([torch.zeros(2, 8), seen])
    by_hand = torch.stack([gate.detectors @ before[t : t + 3].flip(0).flatten() for t in range(6)]).amax(0)
    strengths = gate.scan(hidden, torch.ones(1, 6, dtype=torch.bool))[0, :DETECTORS]
    torch.testing.assert_close(strengths, by_hand)


def test_later_blocks_follow_the_first(held):
    edited = held()
    assert isinstance(edited.interventions[2].gate, FollowingGate)
    values = edited.gate(QUESTIONS)
    assert np.array_equal(values[:, 0], values[:, 1])


def test_a_phrase_gate_needs_answer_positions(make_lm):
    with pytest.raises(ConfigError, match="use positions=answer"):
        new_edit(make_lm(), layers=(0,), gate="phrase", positions="prompt")


def test_it_survives_saving(held, make_lm, tmp_path):
    edited = held()
    edited.save(tmp_path)
    again = grun.attach(make_lm(), tmp_path)
    assert np.array_equal(again.gate(QUESTIONS), edited.gate(QUESTIONS))
