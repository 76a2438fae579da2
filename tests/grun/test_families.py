"""The edit on every family of decoder: found by module path, visible, switched off bit for bit, saved and loaded."""

import pytest
import torch

from eval.models import GenerationOptions
from eval.models.blocks import decoder_blocks, hidden_size
from grun.loading import attach

SHORT = GenerationOptions(max_new_tokens=8)
PATHS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


@torch.no_grad()
def _logits(lm, batch):
    return lm.answer_logits(batch)


@pytest.mark.parametrize(("positions", "gate"), [("last_prompt", "mlp"), ("answer", "phrase")])
def test_an_edit_lives_on_every_family(family, positions, gate, make_lm, loud, examples, tmp_path):
    lm = make_lm(family)
    path, blocks = decoder_blocks(lm.model)
    assert (path, len(blocks), hidden_size(lm.model)) == (PATHS.get(family, "model.layers"), 4, 32)
    rows = [e.replace(question=e.question * (1 + i % 2)) for i, e in enumerate(examples[:4])]
    batch = lm.collate(lm.encode(rows, [row.answer for row in rows]))
    questions = [row.question for row in rows]
    plain, plain_texts = _logits(lm, batch), lm.generate(questions, SHORT)

    edited = loud(lm, layers=(0, 2), positions=positions, gate=gate)
    changed, texts = _logits(edited, batch), edited.generate(questions, SHORT)
    assert (changed - plain).abs().max() > 0.1
    assert texts != plain_texts
    with edited.edit_disabled():
        assert torch.equal(_logits(edited, batch), plain)
        assert edited.generate(questions, SHORT) == plain_texts

    edited.save(tmp_path)
    again = attach(make_lm(family), tmp_path)
    assert again.config == edited.config
    assert torch.equal(_logits(again, batch), changed)
    assert again.generate(questions, SHORT) == texts
