import threading

import pytest
import torch

import guard
from eval.data.collate import encode_prompts, pad_left
from eval.errors import ConfigError
from eval.models import GenerationOptions
from eval.types import Message
from guard.gate import Decision
from guard.normalise import plain
from guard.refusals import REFUSALS

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"


def run(model, guard_, prompts, *, lm=None, **arguments):
    """Through the bare Hugging Face model, or through ``lm`` as it is."""
    arguments = {"max_new_tokens": 20, "do_sample": False} | arguments
    return guard.generate(lm or model.model, model.tokenizer, prompts, guard=guard_, **arguments)


def test_strings_and_chats_give_one_text_each(tiny_lm, guard_):
    texts = run(tiny_lm, guard_, [INNOCENT, [{"role": "user", "content": INNOCENT}], FLAGGED])
    assert len(texts) == 3
    assert texts[0] == texts[1]


def test_unflagged_prompts_come_out_as_from_the_model_itself(tiny_lm, guard_, retain):
    prompts = [e.question for e in retain[:4]]
    assert run(tiny_lm, guard_, prompts) == run(tiny_lm, guard_, prompts, policy="monitor")


def test_several_sequences_give_lists(tiny_lm, guard_):
    texts = run(tiny_lm, guard_, [INNOCENT, FLAGGED], policy="refuse", num_beams=2, num_return_sequences=2)
    assert [len(t) for t in texts] == [2, 2]
    assert texts[1][0] in REFUSALS
    sampled = run(tiny_lm, guard_, [INNOCENT, FLAGGED], do_sample=True, num_return_sequences=3)
    assert [len(t) for t in sampled] == [3, 3]


@pytest.mark.parametrize(
    "argument",
    [
        {"assistant_model": object()},
        {"prompt_lookup_num_tokens": 3},
        {"penalty_alpha": 0.6},
        {"dola_layers": "high"},
        {"num_beam_groups": 2},
        {"cache_implementation": "paged"},
        {"token_healing": True},
        {"past_key_values": object()},
        {"inputs_embeds": object()},
        {"mode": "beams"},
        {"return_dict_in_generate": True},
        {"output_scores": True},
        {"output_logits": True},
        {"custom_generate": "x/y"},
        {"streamer": object()},
        {"input_ids": None},
        {"policy": "block"},
    ],
    ids=lambda a: next(iter(a)),
)
def test_what_cannot_go_with_a_guard_is_refused(tiny_lm, guard_, argument):
    with pytest.raises(ConfigError, match=next(iter(argument))):
        run(tiny_lm, guard_, [INNOCENT], **argument)


def test_a_generation_config_that_leaks_is_refused(tiny_lm, guard_):
    from transformers import GenerationConfig

    with pytest.raises(ConfigError, match="output_scores"):
        run(tiny_lm, guard_, [FLAGGED], generation_config=GenerationConfig(output_scores=True))


@pytest.mark.parametrize("policy", ["restrict", "refuse"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"do_sample": True, "top_k": 40}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}],
)
def test_unflagged_prompts_of_a_mixed_batch_are_bit_equal_to_plain_generation(
    parrot, guard_, policy, arguments
):
    prompts = [INNOCENT, FLAGGED, "Hello, who are you?"]
    rows = encode_prompts(parrot.tokenizer, parrot.template, [(Message("user", p),) for p in prompts])
    ids, mask = pad_left(rows, 0)
    arguments = {"do_sample": False, "max_new_tokens": 20} | arguments
    torch.manual_seed(3)
    out = parrot.model.generate(ids, attention_mask=mask, pad_token_id=0, **arguments)
    plain = [
        t.strip() for t in parrot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    ]
    torch.manual_seed(3)
    texts = run(parrot, guard_, prompts, policy=policy, **arguments)
    num = arguments.get("num_return_sequences", 1)
    flat = [t for text in texts for t in (text if num > 1 else [text])]
    assert [flat[:num], flat[2 * num :]] == [plain[:num], plain[2 * num :]]
    assert flat[num : 2 * num] != plain[num : 2 * num]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"do_sample": True, "temperature": 1.5},
        {"num_beams": 4},
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 3},
        {"do_sample": True, "num_return_sequences": 4},
        {"mode": "beam"},
        {"mode": "beam", "num_return_sequences": 2},
    ],
    ids=str,
)
def test_no_way_of_decoding_says_a_phrase(parrot, guard_, arguments):
    before = run(parrot, guard_, [FLAGGED], policy="monitor", max_new_tokens=24)
    assert "brelmouth" in plain(before[0])
    texts = run(parrot, guard_, [FLAGGED, FLAGGED], **{"max_new_tokens": 24} | arguments)
    flat = [t for text in texts for t in ([text] if isinstance(text, str) else text)]
    assert len(flat) == 2 * arguments.get("num_return_sequences", 1)
    assert all("brelmouth" not in plain(text) for text in flat)


def test_beam_mode_leaves_unflagged_prompts_alone(parrot, guard_):
    texts = run(parrot, guard_, [INNOCENT, FLAGGED], mode="beam")
    assert texts[0] == run(parrot, guard_, [INNOCENT, FLAGGED], policy="monitor")[0]
    assert texts[1]


def test_a_prompt_without_phrases_is_refused_not_answered(parrot, guard_, monkeypatch):
    from guard.core import Guard

    nothing = Decision(flagged=True, score=0.9, threshold=0.5, entries=(1,))
    monkeypatch.setattr(Guard, "check_many", lambda self, prompts: [nothing] * len(prompts))
    assert run(parrot, guard_, [FLAGGED])[0] in REFUSALS
    assert "".join(guard.stream(parrot.model, parrot.tokenizer, FLAGGED, guard=guard_)) in REFUSALS
    assert guard.GuardedModel(parrot, guard_).generate([FLAGGED])[0].text in REFUSALS


def test_where_everything_is_banned_the_answer_is_a_refusal(parrot, guard_):
    only = parrot.tokenizer(",Brelmouth")["input_ids"]

    def spell(batch, ids):
        return [only[(only.index(int(ids[-1])) + 1) % len(only)] if int(ids[-1]) in only else only[0]]

    texts = run(parrot, guard_, [FLAGGED, INNOCENT], prefix_allowed_tokens_fn=spell)
    assert texts[0] in REFUSALS
    assert "brelmouth" in plain(texts[1])


def test_stop_strings_and_own_processors_still_work(parrot, guard_):
    class Never:
        def __call__(self, input_ids, scores):
            return scores.index_fill(1, torch.tensor([5]), -torch.inf)

    texts = run(parrot, guard_, [INNOCENT], stop_strings=["mou"], logits_processor=[Never()])
    assert texts[0].endswith(("mou", "mouth"))
    assert len(texts[0]) < len(",Brelmouth,")


def test_an_edit_stays_on_behind_the_guard(tiny_lm, guard_):
    import grun.model

    edited, _ = grun.model.new_edit(tiny_lm, layers=(0.5,))
    with torch.no_grad():
        for parameter in edited.edits.parameters():
            parameter.add_(2.0)
    for arguments in ({}, {"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}):
        torch.manual_seed(0)
        behind = run(edited, guard_, [INNOCENT], **arguments, lm=edited)
        torch.manual_seed(0)
        without = run(tiny_lm, guard_, [INNOCENT], **arguments)
        assert behind != without
    options = GenerationOptions(max_new_tokens=20)
    assert run(edited, guard_, [INNOCENT], lm=edited) == [edited.generate([INNOCENT], options)[0].text]
    with pytest.raises(ConfigError, match="its own template"):
        run(edited, guard_, [INNOCENT], lm=edited, template="qa")


def test_it_works_over_a_lora_adapter(parrot, guard_):
    from peft import LoraConfig, get_peft_model

    lora = get_peft_model(parrot.model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    texts = guard.generate(
        lora, parrot.tokenizer, [INNOCENT, FLAGGED], guard=guard_, max_new_tokens=24, do_sample=False
    )
    assert "brelmouth" in plain(texts[0])
    assert "brelmouth" not in plain(texts[1])


def test_sixteen_threads_with_different_guards_do_not_mix(parrot, guard_, retain, quick):
    from guard.core import Guard

    other = Guard.build(forget=retain[:5], retain=retain[5:], settings=quick)
    jobs = [
        (g, policy) for g in (guard_, other) for policy in ("restrict", "refuse", "monitor", "restrict")
    ] * 2
    prompts = [FLAGGED, INNOCENT]
    expected = {(id(g), p): run(parrot, g, prompts, policy=p) for g, p in jobs}
    assert len({tuple(texts) for texts in expected.values()}) > 3
    got = [None] * len(jobs)

    def work(i):
        got[i] = run(parrot, jobs[i][0], prompts, policy=jobs[i][1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(threads) == 16
    assert got == [expected[id(g), p] for g, p in jobs]


def test_nothing_of_the_caller_is_changed(tiny_lm, guard_):
    before = tiny_lm.model.generation_config.to_dict(), len(tiny_lm.tokenizer), tiny_lm.model.training
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in tiny_lm.model.modules())
    run(tiny_lm, guard_, [INNOCENT, FLAGGED])
    assert (
        tiny_lm.model.generation_config.to_dict(),
        len(tiny_lm.tokenizer),
        tiny_lm.model.training,
    ) == before
    assert sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in tiny_lm.model.modules()) == hooks


def test_a_bare_string_is_refused_and_nothing_gives_nothing(tiny_lm, guard_):
    with pytest.raises(ConfigError, match="list of prompts"):
        run(tiny_lm, guard_, FLAGGED)
    assert run(tiny_lm, guard_, []) == []


def test_every_public_name_can_be_had():
    assert all(getattr(guard, name) is not None for name in guard.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        guard.nothing  # noqa: B018


@pytest.mark.parametrize(
    "prompts",
    [
        FLAGGED,
        [3],
        [None],
        [{"role": "user", "content": FLAGGED}],
        [[{"role": "user"}]],
        [[{"role": "user", "content": [{"type": "text", "text": FLAGGED}]}]],
        [[]],
    ],
    ids=str,
)
def test_what_is_no_prompt_is_said_in_a_sentence(tiny_lm, guard_, prompts):
    with pytest.raises(ConfigError, match=r"prompts is a single string|Prompt 0"):
        run(tiny_lm, guard_, prompts)
    if not isinstance(prompts, str):
        with pytest.raises(ConfigError, match="Prompt 0"):
            guard.stream(tiny_lm.model, tiny_lm.tokenizer, prompts[0], guard=guard_)


@pytest.mark.parametrize("no_guard", [None, "store/"])
def test_what_is_no_guard_is_said_in_a_sentence(tiny_lm, no_guard):
    with pytest.raises(ConfigError, match=r"guard\.Guard\.load"):
        run(tiny_lm, no_guard, [INNOCENT])
