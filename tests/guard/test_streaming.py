import asyncio
import threading

import pytest

import guard
from eval.errors import ConfigError
from guard.gate import Decision
from guard.normalise import plain
from guard.refusals import REFUSALS
from guard.restriction import Restriction
from guard.streaming import Writer
from guard.vocabulary import vocabulary

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"


def forbidding(*phrases, tokenizer):
    decision = Decision(flagged=True, score=0.9, threshold=0.5, entries=(1,), phrases=phrases)
    return Restriction(decision, vocabulary(tokenizer))


def run(lm, guard_, prompt, **arguments):
    arguments = {"max_new_tokens": 24, "do_sample": False} | arguments
    return list(guard.stream(lm.model, lm.tokenizer, prompt, guard=guard_, **arguments))


@pytest.mark.parametrize("prompt", [INNOCENT, FLAGGED])
@pytest.mark.parametrize("policy", ["restrict", "refuse", "monitor"])
def test_chunks_join_to_what_generate_returns(parrot, guard_, prompt, policy):
    chunks = run(parrot, guard_, prompt, policy=policy)
    whole = guard.generate(
        parrot.model,
        parrot.tokenizer,
        [prompt],
        guard=guard_,
        policy=policy,
        max_new_tokens=24,
        do_sample=False,
    )
    assert "".join(chunks) == whole[0]
    assert len(chunks) > 1 or whole[0] in REFUSALS


@pytest.mark.parametrize(
    "text", ["He lives in Brelmouth now", "a Café ｂｒｅｌ", "b r e l m o u t h", "ünï çödé 🙂 ok"]
)
def test_no_split_of_a_text_lets_a_phrase_out(tiny_tokenizer, text):
    restriction = forbidding("brelmouth", "cafe brel", tokenizer=tiny_tokenizer)
    writer = Writer(tiny_tokenizer, (2,), restriction)
    for token in tiny_tokenizer(text)["input_ids"]:
        writer.write(token)
        assert "brelmouth" not in plain(writer.released).replace(" ", "")
        assert "�" not in writer.released
    if restriction.matches(text):
        assert writer.is_broken
        assert writer.finish() == ""
        released = plain(writer.released).replace(" ", "")
        assert not any(released.endswith(piece) for piece in ("b", "br", "brelmout", "cafeb")), released
    else:
        writer.finish()
        assert writer.released == text


def test_a_beginning_that_goes_on_otherwise_is_let_out(tiny_tokenizer):
    writer = Writer(tiny_tokenizer, (2,), forbidding("copper heron prize", tokenizer=tiny_tokenizer))
    seen = []
    for token in tiny_tokenizer("the copper heron flew away")["input_ids"]:
        writer.write(token)
        seen.append(writer.released)
    assert "the" in seen
    assert not any(text.endswith("copper") for text in seen), "could still become the phrase"
    writer.finish()
    assert writer.released == "the copper heron flew away"


def test_the_first_chunk_comes_before_the_end(parrot, guard_):
    chunks = guard.stream(
        parrot.model, parrot.tokenizer, INNOCENT, guard=guard_, max_new_tokens=200, do_sample=False
    )
    first = next(chunks)
    assert 0 < len(first) < 40
    chunks.close()


def test_nothing_is_generated_before_the_verdict(tiny_lm, guard_, monkeypatch):
    from guard.core import Guard

    order = []
    check = Guard.check_many
    forward = tiny_lm.model.forward
    monkeypatch.setattr(Guard, "check_many", lambda self, p: order.append("gate") or check(self, p))
    monkeypatch.setattr(tiny_lm.model, "forward", lambda *a, **k: order.append("model") or forward(*a, **k))
    run(tiny_lm, guard_, INNOCENT, max_new_tokens=2)
    assert order[0] == "gate"
    assert "model" in order


def test_a_closed_stream_ends_its_thread(parrot, guard_):
    before = threading.active_count()
    chunks = guard.stream(
        parrot.model, parrot.tokenizer, INNOCENT, guard=guard_, max_new_tokens=200, do_sample=False
    )
    next(chunks)
    chunks.close()
    assert threading.active_count() == before


def test_an_error_of_the_model_reaches_the_reader(tiny_lm, guard_, monkeypatch, tmp_path):
    from guard.audit import AuditLog, read_audit

    log = AuditLog(tmp_path / "audit.jsonl")

    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(tiny_lm.model, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        run(tiny_lm, guard_, INNOCENT, audit=log, request_id="r7")
    (line,) = read_audit(log.path)
    assert (line["action"], line["reason"], line["request_id"]) == ("failed", "RuntimeError", "r7")


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_beams": 2},
        {"num_return_sequences": 2},
        {"streamer": object()},
        {"output_scores": True},
        {"mode": "beam"},
    ],
    ids=lambda a: next(iter(a)),
)
def test_what_cannot_be_streamed_is_refused_at_the_call(tiny_lm, guard_, arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        guard.stream(tiny_lm.model, tiny_lm.tokenizer, INNOCENT, guard=guard_, **arguments)


def test_many_async_streams_do_not_mix(parrot, guard_):
    prompts = [INNOCENT, FLAGGED] * 8
    expected = ["".join(run(parrot, guard_, prompt, max_new_tokens=10)) for prompt in prompts[:2]]

    async def one(prompt):
        chunks = guard.astream(
            parrot.model, parrot.tokenizer, prompt, guard=guard_, max_new_tokens=10, do_sample=False
        )
        return "".join([chunk async for chunk in chunks])

    async def all_of_them():
        return await asyncio.gather(*(one(prompt) for prompt in prompts))

    assert asyncio.run(all_of_them()) == expected * 8


def test_agenerate_is_generate_in_a_thread(tiny_lm, guard_):
    arguments = {"guard": guard_, "max_new_tokens": 6, "do_sample": False}
    prompts = [INNOCENT, FLAGGED]
    whole = asyncio.run(guard.agenerate(tiny_lm.model, tiny_lm.tokenizer, prompts, **arguments))
    assert whole == guard.generate(tiny_lm.model, tiny_lm.tokenizer, prompts, **arguments)
