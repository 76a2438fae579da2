"""The pyvene path and the hook path compute the same edit."""

import pytest
import torch

from eval.data.collate import encode_prompts, pad_left
from eval.models import GenerationOptions
from eval.types import Message
from grun.intervenable import at, intervening


def _batch(lm, examples):
    return lm.collate(lm.encode(examples, [example.answer for example in examples]))


def _prompts(lm, examples, sizes=(1, 2, 3)):
    """Prompts of different lengths."""
    questions = [" ".join([example.question] * size) for example, size in zip(examples, sizes, strict=False)]
    ids = encode_prompts(lm.tokenizer, lm.template, [(Message("user", q),) for q in questions])
    assert len({len(row) for row in ids}) == len(sizes)
    return questions, ids


def test_logits_gates_and_gradients_agree(family, make_lm, loud, examples):
    lm = make_lm(family)
    edited = loud(lm)
    mixed = [e.replace(question=e.question * (1 + i % 3)) for i, e in enumerate(examples[:6])]
    batch = _batch(lm, mixed)
    assert len(set(batch.prompt_end.tolist())) > 1
    with torch.no_grad():
        plain = lm.answer_logits(batch)
    results = []
    for through_pyvene in (True, False):
        with edited.training_session(through_pyvene=through_pyvene) as trainable:
            logits, gates = edited.answer_and_gate_logits(batch)
            (logits.float().logsumexp(-1).sum() + gates.square().sum()).backward()
            gradients = {name: p.grad.clone() for name, p in trainable.named_parameters()}
            results.append((logits.detach(), gates.detach(), gradients))
    (logits_a, gates_a, grads_a), (logits_b, gates_b, grads_b) = results
    assert (logits_a - plain).abs().max() > 0.1, "the edit must be visible, else equality proves nothing"
    assert torch.equal(logits_a, logits_b)
    assert gates_a.shape == (4, 6)
    assert torch.equal(gates_a, gates_b)
    for name, gradient in grads_a.items():
        torch.testing.assert_close(gradient, grads_b[name], rtol=1e-5, atol=1e-6)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generated_tokens_agree(family, num_beams, make_lm, loud, examples):
    lm = make_lm(family)
    edited = loud(lm)
    questions, prompts = _prompts(lm, examples)
    options = GenerationOptions(max_new_tokens=12, num_beams=num_beams)
    plain = [row.token_ids for row in lm.generate(questions, options)]
    by_hooks = [row.token_ids for row in edited.generate(questions, options)]
    assert by_hooks != plain, "the edit must be visible, else equality proves nothing"

    ids, mask = pad_left(prompts, 0)
    columns = torch.full((len(ids) * num_beams,), ids.shape[1] - 1)
    edits = {int(layer): edit for layer, edit in edited.edits.items()}
    with intervening(lm.model, edited.config.blocks_path, edits) as session, torch.no_grad():
        _, out = session.generate(
            {"input_ids": ids, "attention_mask": mask},
            unit_locations=at(columns, len(edits)),
            intervene_on_prompt=True,
            max_new_tokens=12,
            num_beams=num_beams,
            do_sample=False,
        )
    rows = [tuple(row[: row.index(2)] if 2 in row else row) for row in out[:, ids.shape[1] :].tolist()]
    assert rows == by_hooks


def test_pyvene_leaves_the_model_as_it_was(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    seen = []
    handle = lm.model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    lm.model.model.layers[1].train()
    lm.model.lm_head.weight.requires_grad_(False)
    required = {n: p.requires_grad for n, p in lm.model.named_parameters()}
    batch = _batch(lm, examples[:2])
    with edited.training_session():
        edited.answer_and_gate_logits(batch)
        assert lm.model.model.layers[1].training
        assert not any(p.requires_grad for p in lm.model.parameters())
    assert seen == [1], "a user's own hook must survive"
    assert {n: p.requires_grad for n, p in lm.model.named_parameters()} == required
    assert lm.model.model.layers[1].training
    assert not lm.model.model.layers[0].training
    handle.remove()
    # upstream's clean-up would leave an empty tuple from the second call on
    for _ in range(2):
        out = lm.model(input_ids=batch.input_ids, output_hidden_states=True)
        assert len(out.hidden_states) == 5


def test_state_comes_back_after_an_error(make_lm, loud):
    lm = make_lm()
    edited = loud(lm)
    with pytest.raises(ZeroDivisionError), edited.training_session():
        raise ZeroDivisionError
    assert all(p.requires_grad for p in lm.model.parameters())
    assert edited._session is None


def test_gate_outputs_do_not_pile_up(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    edits = {int(layer): edit for layer, edit in edited.edits.items()}
    _, prompts = _prompts(lm, examples)
    ids, mask = pad_left(prompts, 0)
    with intervening(lm.model, edited.config.blocks_path, edits) as session, torch.no_grad():
        counts = []
        for _ in range(3):
            session.generate(
                {"input_ids": ids, "attention_mask": mask},
                unit_locations=at(torch.full((3,), ids.shape[1] - 1), len(edits)),
                intervene_on_prompt=True,
                max_new_tokens=3,
            )
            counts.append(len(session.full_intervention_outputs))
    assert counts == [4, 4, 4]


def test_gradient_checkpointing_gives_equal_gradients(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    batch = _batch(lm, examples[:3])
    found = []
    for checkpoints in (False, True):
        if checkpoints:
            lm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        lm.model.train()
        for through_pyvene in (True, False):
            with edited.training_session(through_pyvene=through_pyvene) as trainable:
                logits, gates = edited.answer_and_gate_logits(batch)
                (logits.logsumexp(-1).sum() + gates.sum()).backward()
                found.append([p.grad.clone() for p in trainable.parameters()])
    for gradients in found[1:]:
        for first, other in zip(found[0], gradients, strict=True):
            torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5)
