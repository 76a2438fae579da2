"""The edited model: base untouched, rows and threads apart, every way of generating, saved and attached."""

import json
import threading

import numpy as np
import pytest
import torch

from eval.data.collate import encode_prompts, pad_left
from eval.errors import ArtifactError, ConfigError
from eval.models import GenerationOptions, LanguageModel
from eval.types import Message
from grun.artifact import CONFIG_FILE, TENSORS_FILE
from grun.config import resolve_layers
from grun.loading import attach
from grun.model import new_edit

GREEDY = GenerationOptions(max_new_tokens=16)


def _batch(lm, examples):
    return lm.collate(lm.encode(examples, [example.answer for example in examples]))


def _questions(examples):
    return [" ".join([example.question] * (1 + i % 3)) for i, example in enumerate(examples)]


@torch.no_grad()
def _logits(lm, batch):
    return lm.answer_logits(batch)


def test_a_fresh_edit_is_the_identity(make_lm, examples):
    lm = make_lm()
    batch = _batch(lm, examples[:4])
    edited, num_merged = new_edit(lm, layers=(0, 2))
    assert num_merged == 0
    torch.testing.assert_close(_logits(edited, batch), _logits(lm, batch), rtol=1e-4, atol=1e-5)


def test_the_base_stays_plain_and_off_is_bit_equal(make_lm, loud, examples):
    lm = make_lm()
    batch = _batch(lm, examples[:4])
    before = _logits(lm, batch)
    edited = loud(lm)
    assert torch.equal(_logits(lm, batch), before)
    with edited.edit_disabled():
        assert torch.equal(_logits(edited, batch), before)
        assert edited.generate(_questions(examples[:3]), GREEDY) == lm.generate(
            _questions(examples[:3]), GREEDY
        )
    assert not torch.equal(_logits(edited, batch), before)


KINDS = [
    ("last_prompt", "linear"),
    ("prompt", "mlp"),
    ("answer", "linear"),
    ("answer", "phrase"),
    ("all", "linear"),
]


@pytest.mark.parametrize(("positions", "gate"), KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_way_of_generating_agrees(family, positions, gate, make_lm, loud, examples):
    """Own greedy loop (rows leave the batch), one row at a time, and Hugging Face's loop with odd caches."""
    lm = make_lm(family)
    edited = loud(lm, positions=positions, gate=gate)
    questions = _questions(examples[:6])
    together = [row.token_ids for row in edited.generate(questions, GREEDY)]
    assert together != [row.token_ids for row in lm.generate(questions, GREEDY)]
    assert together == [edited.generate([question], GREEDY)[0].token_ids for question in questions]

    prompts = encode_prompts(lm.tokenizer, lm.template, [(Message("user", q),) for q in questions])
    ids, mask = pad_left(prompts, 0)
    for options in ({}, {"use_cache": False}, {"prefill_chunk_size": 5}):
        with torch.no_grad(), edited.forward_context(torch.full((len(ids),), ids.shape[1])):
            out = lm.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=16, do_sample=False, **options
            )
        rows = [tuple(r[: r.index(2)] if 2 in r else r) for r in out[:, ids.shape[1] :].tolist()]
        assert rows == together, options


@pytest.mark.parametrize(("positions", "gate"), KINDS)
def test_beams_need_no_cache_to_agree(positions, gate, make_lm, loud, examples):
    """Beams are reordered in the cache, held gates with them; without a cache everything is computed anew."""
    lm = make_lm()
    edited = loud(lm, positions=positions, gate=gate)
    prompts = encode_prompts(
        lm.tokenizer, lm.template, [(Message("user", q),) for q in _questions(examples[:4])]
    )
    ids, mask = pad_left(prompts, 0)
    arguments = {"attention_mask": mask, "max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    with torch.no_grad():
        found = [edited.huggingface().generate(ids, use_cache=uses, **arguments) for uses in (True, False)]
        plain = lm.model.generate(ids, **arguments)
    assert torch.equal(*found)
    assert found[0].shape != plain.shape or not torch.equal(found[0], plain)


@pytest.mark.parametrize(("positions", "gate"), KINDS)
def test_prompt_lookup_decoding_agrees(positions, gate, make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm, positions=positions, gate=gate)
    question = examples[0].question
    expected = edited.generate([question], GREEDY)[0].token_ids
    ids = torch.tensor(encode_prompts(lm.tokenizer, lm.template, [(Message("user", question),)]))
    with torch.no_grad(), edited.forward_context(torch.tensor([ids.shape[1]])):
        out = lm.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, prompt_lookup_num_tokens=3
        )
    row = out[0, ids.shape[1] :].tolist()
    assert tuple(row[: row.index(2)] if 2 in row else row) == expected


def test_a_last_block_edit_changes_the_first_token_only(make_lm, loud, examples):
    """Why a shallow model needs early blocks: nothing after the last block reads its output at the prompt."""
    lm = make_lm()
    batch = _batch(lm, examples[:1])
    change = (_logits(loud(lm, layers=(3,)), batch) - _logits(lm, batch)).abs().amax(-1)
    assert change[0] > 0.1
    assert change[1:].max() == 0
    change = (_logits(loud(lm, layers=(1,)), batch) - _logits(lm, batch)).abs().amax(-1)
    assert change.min() > 0


def test_prompts_run_once_give_the_same_scores(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    repeated = [examples[0]] * 3 + [examples[5]] * 2
    answers = ["One answer.", "Another, longer answer.", "A third", "Yes", "No, not at all"]
    batch = edited.collate(edited.encode(repeated, answers))
    shared = _logits(edited, batch)
    with torch.enable_grad():
        whole = edited.answer_logits(batch).detach()
    torch.testing.assert_close(shared, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("positions", "gate"), KINDS)
def test_plain_and_edited_rows_share_a_batch(positions, gate, make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm, positions=positions, gate=gate)
    batch = _batch(
        lm, [e.replace(question=q) for e, q in zip(examples, _questions(examples), strict=True)][:4]
    )
    plain, changed = (_whole(model, batch) for model in (lm, edited))
    rows = torch.tensor([True, False, True, False])
    with edited.activate(batch.prompt_end, rows=rows):
        mixed = _whole(lm, batch)
    chosen = rows[batch.rows]
    torch.testing.assert_close(mixed[chosen], changed[chosen], rtol=1e-4, atol=1e-4)
    assert torch.equal(mixed[~chosen], plain[~chosen])
    assert not torch.equal(plain[chosen], changed[chosen])


def _whole(lm, batch):
    with torch.enable_grad():
        return lm.answer_logits(batch).detach()


def test_threads_do_not_mix(make_lm, loud, examples):
    lm = make_lm()
    models = [lm, loud(lm, seed=3), loud(lm, seed=4)]
    batch = _batch(lm, examples[:3])
    expected = [_logits(model, batch) for model in models]
    assert not torch.equal(expected[1], expected[2])
    wrong: list[int] = []
    barrier = threading.Barrier(3)

    def work(i: int) -> None:
        barrier.wait()
        wrong.extend(i for _ in range(25) if not torch.equal(_logits(models[i], batch), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_edits_stack(make_lm, loud, examples):
    lm = make_lm()
    first = loud(lm, layers=(1,), seed=3)
    second = loud(first, layers=(1, 2), seed=4)
    batch = _batch(lm, examples[:2])
    with second.edit_disabled():
        assert torch.equal(_logits(second, batch), _logits(first, batch))
    assert not torch.equal(_logits(second, batch), _logits(first, batch))
    with second.training_session(), torch.no_grad():
        logits, _ = second.answer_and_gate_logits(batch)
    torch.testing.assert_close(logits, _logits(second, batch), rtol=1e-4, atol=1e-4)


def test_a_wrong_number_of_rows_is_refused(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    batch = _batch(lm, examples[:3])
    with pytest.raises(RuntimeError, match="activated for 2 rows"), edited.activate(torch.tensor([3, 3])):
        lm.model(input_ids=batch.input_ids)


def test_hooks_come_back_when_another_library_popped_them(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    batch = _batch(lm, examples[:2])
    expected = _logits(edited, batch)
    for module in lm.model.modules():
        if module is not lm.model.get_output_embeddings():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
    assert torch.equal(_logits(edited, batch), expected)


def test_gate_values(make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm)
    questions = _questions(examples[:5])
    values = edited.gate(questions)
    assert values.shape == (5, 4)
    assert ((values > 0) & (values < 1)).all()
    assert np.ptp(values) > 0.01
    alone = np.concatenate([edited.gate([question]) for question in questions])
    np.testing.assert_allclose(values, alone, rtol=1e-4)
    with edited.edit_disabled():
        assert not edited.gate(questions).any()


@pytest.mark.parametrize(("positions", "gate"), KINDS)
def test_padding_has_no_say_in_the_gates(positions, gate, make_lm, loud, examples):
    lm = make_lm()
    edited = loud(lm, positions=positions, gate=gate)
    rows = [e.replace(question=q) for e, q in zip(examples, _questions(examples), strict=True)][:4]
    with torch.no_grad():
        together = edited.answer_and_gate_logits(_batch(lm, rows))[1]
        alone = [edited.answer_and_gate_logits(_batch(lm, [row]))[1] for row in rows]
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-4, atol=1e-4)
    ids, mask = pad_left([[5, 6, 7], [8, 9, 10, 11, 12]], 0)
    for row, width in ((0, 3), (1, 5)):
        with torch.no_grad(), edited.activate(torch.full((2,), 5), keeps_gates=True) as padded:
            lm.model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        with torch.no_grad(), edited.activate(torch.tensor([width]), keeps_gates=True) as single:
            lm.model(input_ids=ids[row : row + 1, -width:])
        torch.testing.assert_close(padded.stacked()[:, row], single.stacked()[:, 0], rtol=1e-3, atol=1e-4)


def test_save_and_attach(make_lm, loud, examples, tmp_path):
    lm = make_lm()
    edited = loud(lm)
    edited.training["loss"] = "npo"
    edited.save(tmp_path / "edit")
    assert {path.name for path in (tmp_path / "edit").iterdir()} == {CONFIG_FILE, TENSORS_FILE}
    again = attach(make_lm(), tmp_path / "edit")
    batch = _batch(lm, examples[:4])
    assert torch.equal(_logits(again, batch), _logits(edited, batch))
    assert again.config == edited.config
    assert again.training == {"loss": "npo"}
    assert again.generate(_questions(examples[:4]), GREEDY) == edited.generate(
        _questions(examples[:4]), GREEDY
    )
    assert again.trainable_parameters == 4 * (2 * 4 * 32 + 4 + 32 + 1)


def test_broken_artifacts_are_refused(make_lm, loud, tmp_path, caplog):
    lm = make_lm()
    edited = loud(lm)
    with pytest.raises(ArtifactError, match=f"holds no {CONFIG_FILE}"):
        attach(lm, tmp_path)

    edited.save(tmp_path / "other")
    other = make_lm()
    other.model.get_input_embeddings().weight.data[5] += 1
    with pytest.raises(ArtifactError, match="another base model"):
        attach(other, tmp_path / "other")
    attach(lm, tmp_path / "other", any_base=True)
    assert not caplog.records
    assert attach(other, tmp_path / "other", any_base=True).config == edited.config
    assert "WARNING" in caplog.text
    assert "measure again" in caplog.text
    with pytest.raises(ArtifactError, match="another base model"):
        attach(make_lm("qwen3"), tmp_path / "other")

    edited.save(tmp_path / "torn")
    payload = (tmp_path / "torn" / TENSORS_FILE).read_bytes()
    (tmp_path / "torn" / TENSORS_FILE).write_bytes(payload[:-8])
    with pytest.raises(ArtifactError, match="half-written"):
        attach(lm, tmp_path / "torn")
    (tmp_path / "torn" / TENSORS_FILE).unlink()
    with pytest.raises(ArtifactError, match=f"holds no {TENSORS_FILE}"):
        attach(lm, tmp_path / "torn")

    for name, change in {
        "foreign": {"format": "lora"},
        "newer": {"schema_version": 2},
        "shape": {"edit": {**edited.config.as_json(), "rank": 5}},
        "layers": {"edit": {**edited.config.as_json(), "layers": [0, 1, 2]}},
        "unknown": {"edit": {**edited.config.as_json(), "depth": 5}},
    }.items():
        edited.save(tmp_path / name)
        file = tmp_path / name / CONFIG_FILE
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(ArtifactError, match=name if name == "shape" else str(tmp_path / name)):
            attach(lm, tmp_path / name)


def test_a_base_of_another_shape_is_named(make_lm, loud, tmp_path, tiny_lm):
    edited = loud(make_lm(), layers=(1, 3))
    edited.save(tmp_path)
    with pytest.raises(ArtifactError, match=r"'llama', where it edits block 3, but 'tiny' has blocks 0 to 1"):
        attach(tiny_lm, tmp_path)
    file = tmp_path / CONFIG_FILE
    value = json.loads(file.read_text())
    value["edit"]["hidden_size"] = 64
    file.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=r"'llama' of hidden size 64, but 'qwen3' has 32"):
        attach(make_lm("qwen3"), tmp_path, any_base=True)
    file.write_text(file.read_text()[:100])
    with pytest.raises(ArtifactError, match="not valid JSON"):
        attach(make_lm(), tmp_path)


def test_shapes_that_no_model_can_serve_are_refused(make_lm):
    lm = make_lm()
    for change, says in (
        ({"layers": (0, 4)}, "block 4, but the model has blocks 0 to 3"),
        ({"layers": (0,), "rank": 33}, "rank is 33"),
        ({"layers": (0,), "gate": "cubic"}, "Unknown gate 'cubic'"),
        ({"layers": (0,), "positions": "first"}, "Unknown positions 'first'"),
        ({"layers": (0,), "gate": "phrase", "positions": "prompt"}, "decides once for the whole answer"),
    ):
        with pytest.raises(ConfigError, match=says):
            new_edit(lm, **change)


def test_an_unwritable_folder_is_refused(make_lm, loud, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        loud(make_lm()).save(tmp_path / "file" / "edit")


def test_layers_resolve():
    paper = (20 / 31, 25 / 31, 1.0)
    assert resolve_layers(paper, 32) == ((20, 25, 31), 0)
    assert resolve_layers(paper, 4) == ((2, 3), 1)
    assert resolve_layers((0, 0.5, -1), 5) == ((0, 2, 4), 0)
    for wrong in ((), (5,), (1.5,), (True,), ("2",)):
        with pytest.raises(ConfigError):
            resolve_layers(wrong, 5)


def test_edits_work_inside_peft(make_lm, loud, examples):
    from peft import LoraConfig, get_peft_model

    from eval.models import LanguageModel

    lm = make_lm()
    with torch.random.fork_rng():
        peft = get_peft_model(
            lm.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        ).eval()
    adapted = LanguageModel(peft, lm.tokenizer)
    batch = _batch(adapted, examples[:2])
    before = _logits(adapted, batch)
    edited = loud(adapted)
    with edited.training_session() as trainable:
        logits, _ = edited.answer_and_gate_logits(batch)
        logits.sum().backward()
        assert all(p.grad is not None for p in trainable.parameters())
        assert torch.equal(logits.detach(), _whole(edited, batch))
    assert any(p.requires_grad for p in peft.parameters()), "LoRA parameters must stay trainable afterwards"
    with edited.edit_disabled():
        assert torch.equal(_logits(edited, batch), before), (
            "switching the edit off must keep the LoRA adapter"
        )


@pytest.mark.parametrize("template", ["chat", "Question: {question}\nAnswer:"])
@pytest.mark.parametrize("positions", ["last_prompt", "prompt", "answer", "all"])
def test_several_turns_find_their_position_by_construction(positions, template, make_lm, loud, examples):
    """The first edited block's output differs from the base's at exactly the columns the positions name."""
    lm = LanguageModel(make_lm().model, make_lm().tokenizer, template=template)
    turns = (
        Message("user", "Who is person 3?"),
        Message("assistant", "A painter."),
        Message("user", "Where was person 3 born?"),
    )
    chat = examples[3].replace(question=None, messages=turns)
    rows = [chat, examples[0]] if template == "chat" else [examples[3], examples[0].replace(question="Who?")]
    edited = loud(lm, layers=(1,), positions=positions)
    batch = _batch(lm, rows)
    seen: list[torch.Tensor] = []
    handle = lm.model.model.layers[1].register_forward_hook(lambda m, a, out: seen.append(out))
    try:
        for model in (lm, edited):
            with torch.enable_grad():
                model.answer_logits(batch)
    finally:
        handle.remove()
    changed = (seen[0] != seen[1]).any(-1)
    for row, example in enumerate(rows):
        length = int(batch.attention_mask[row].sum())
        prompt = encode_prompts(lm.tokenizer, lm.template, [example.conversation])[0]
        end = len(prompt)
        assert batch.input_ids[row, :end].tolist() == list(prompt)
        expected = {
            "last_prompt": range(end - 1, end),
            "prompt": range(end),
            "answer": range(end - 1, length),
            "all": range(length),
        }[positions]
        assert changed[row, :length].nonzero()[:, 0].tolist() == list(expected)
