"""Hugging Face's own calls with the edit on: generate in every mode, streaming threads, unusual bases."""

import threading

import pytest
import torch

from eval.data.collate import encode_prompts, pad_left
from eval.errors import ConfigError
from eval.models import GenerationOptions, LanguageModel
from eval.types import Message
from grun.loading import attach


def _inputs(lm, questions):
    prompts = encode_prompts(lm.tokenizer, lm.template, [(Message("user", q),) for q in questions])
    ids, mask = pad_left(prompts, 0)
    return {"input_ids": ids, "attention_mask": mask}


def _new(out, inputs):
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [tuple(row[: row.index(2)] if 2 in row else row) for row in rows]


@pytest.fixture
def questions(examples):
    return [example.question * (1 + i % 3) for i, example in enumerate(examples[:3])]


@pytest.fixture
def edited(make_lm, loud):
    return loud(make_lm())


@torch.no_grad()
def test_the_view_generates_as_the_edited_model(edited, questions):
    expected = [row.token_ids for row in edited.generate(questions, GenerationOptions(max_new_tokens=12))]
    inputs = _inputs(edited, questions)
    view = edited.huggingface()
    greedy = {"max_new_tokens": 12, "do_sample": False}
    assert _new(view.generate(**inputs, **greedy), inputs) == expected
    assert _new(
        view.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **greedy), inputs
    ) == (expected)
    with edited.editing(inputs["input_ids"], inputs["attention_mask"]):
        assert _new(edited.model.generate(**inputs, **greedy), inputs) == expected
    assert _new(edited.model.generate(**inputs, **greedy), inputs) != expected, "the model itself stays plain"
    embeds = edited.model.get_input_embeddings()(inputs["input_ids"])
    out = view.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **greedy)
    assert [tuple(r[: r.index(2)] if 2 in r else r) for r in out.tolist()] == expected
    assert view.config is edited.model.config


@torch.no_grad()
def test_sampling_and_several_sequences(edited, questions):
    inputs = _inputs(edited, questions)
    view = edited.huggingface()
    options = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 3, "top_k": 5}
    outs = []
    for model in (view, view, edited.model):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            outs.append(model.generate(**inputs, **options))
    assert outs[0].shape[0] == 9
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    scores = view.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True).scores[0]
    first = view(**inputs).logits[:, -1]
    kept = torch.isfinite(scores)
    torch.testing.assert_close(scores[kept], first.repeat_interleave(3, 0)[kept], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_streaming_from_a_thread(edited, questions):
    from transformers import TextIteratorStreamer

    inputs = _inputs(edited, questions[:1])
    expected = edited.generate(questions[:1], GenerationOptions(max_new_tokens=12))[0].text
    streamer = TextIteratorStreamer(edited.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    arguments = {**inputs, "max_new_tokens": 12, "do_sample": False, "streamer": streamer}
    thread = threading.Thread(target=edited.huggingface().generate, kwargs=arguments)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text.strip() == expected
    assert expected != edited.base.generate(questions[:1], GenerationOptions(max_new_tokens=12))[0].text


@torch.no_grad()
def test_a_forward_with_answers_says_where_the_prompt_ends(edited, examples):
    batch = edited.collate(edited.encode(examples[:3], [example.answer for example in examples[:3]]))
    view = edited.huggingface()
    logits = view(batch.input_ids, attention_mask=batch.attention_mask, prompt_end=batch.prompt_end).logits
    torch.testing.assert_close(logits[batch.predicting], edited.answer_logits(batch), rtol=1e-3, atol=1e-4)


def test_prompts_that_cannot_be_served_are_refused(edited, questions):
    inputs = _inputs(edited, questions)
    view = edited.huggingface()
    flipped = {name: value.flip(1) for name, value in inputs.items()}
    with pytest.raises(ConfigError, match="padded on the right"):
        view.generate(**flipped, max_new_tokens=2)
    with pytest.raises(ConfigError, match="no prompt"):
        view.generate(max_new_tokens=2)


def test_a_later_turn_continues_the_cache_of_an_earlier_one(edited, questions):
    """The end of the second prompt is edited although the first turn's tokens come from the cache."""
    view = edited.huggingface()
    first = _inputs(edited, questions[:1])
    with torch.no_grad():
        out = view.generate(
            **first, max_new_tokens=4, min_new_tokens=4, do_sample=False, return_dict_in_generate=True
        )
        more = torch.tensor([[30, 40, 50]])
        ids = torch.cat([out.sequences, more], 1)
        arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
        with_cache = view.generate(ids, past_key_values=out.past_key_values, **arguments)
        # the same from nothing: both turns' ends are edited in one forward each
        with edited.editing(first["input_ids"]):
            cache = edited.model(**first, use_cache=True).past_key_values
        by_hand = view.generate(ids, past_key_values=cache, **arguments)
        plain = edited.model.generate(ids, **arguments)
    assert torch.equal(with_cache, by_hand)
    assert not torch.equal(with_cache, plain)


@torch.no_grad()
@pytest.mark.parametrize("placed", ["device_map", "disk", "int8"])
def test_unusual_bases(placed, make_lm, loud, questions, tmp_path):
    plain = make_lm()
    edited = loud(plain)
    edited.save(tmp_path / "edit")
    inputs = _inputs(edited, questions)
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = edited.huggingface().generate(**inputs, **options)
    lm = _placed(placed, plain, tmp_path)
    again = attach(lm, tmp_path / "edit", any_base=placed != "device_map")
    before = lm.model.generate(**inputs, **options)
    found = again.huggingface().generate(**inputs, **options)
    assert not torch.equal(found, before)
    assert torch.equal(lm.model.generate(**inputs, **options), before)
    assert all(p.device.type == "cpu" for p in again.edits.parameters())
    if placed != "int8":  # other weights, other words
        assert torch.equal(found, expected)


def _placed(placed, plain, tmp_path):
    from eval.models import load

    if placed == "int8":
        import warnings

        from torch.ao.quantization import quantize_dynamic

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain.model.model = quantize_dynamic(plain.model.model, {torch.nn.Linear}, dtype=torch.qint8)
        return LanguageModel(plain.model, plain.tokenizer)
    plain.save(tmp_path / "base")
    if placed == "device_map":
        return load(tmp_path / "base", device_map={"": "cpu"}, template=plain.template)
    from accelerate import disk_offload

    lm = load(tmp_path / "base", device="cpu", template=plain.template)
    disk_offload(lm.model, tmp_path / "offload", execution_device=torch.device("cpu"))
    return lm
