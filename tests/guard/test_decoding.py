import pytest

import guard
from eval.errors import ConfigError
from guard.refusals import REFUSALS

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"


def run(lm, guard_, prompts, **arguments):
    arguments = {"max_new_tokens": 8, "do_sample": False} | arguments
    return guard.generate(lm.model, lm.tokenizer, prompts, guard=guard_, **arguments)


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


def test_a_bare_string_is_refused_and_nothing_gives_nothing(tiny_lm, guard_):
    with pytest.raises(ConfigError, match="list of prompts"):
        run(tiny_lm, guard_, FLAGGED)
    assert run(tiny_lm, guard_, []) == []


def test_every_public_name_can_be_had():
    assert all(getattr(guard, name) is not None for name in guard.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        guard.nothing  # noqa: B018
