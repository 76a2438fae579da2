import pytest
import torch

import guard
from eval.errors import ConfigError
from eval.models.templates import resolve_template
from guard.refusals import REFUSALS
from guard.turns import TurnRule

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chatml(tiny_tokenizer):
    """A tokenizer whose template marks turns with special tokens."""
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def render(tokenizer, messages, template="auto"):
    return resolve_template(template, tokenizer).render(
        [guard_message(role, content) for role, content in messages]
    )


def guard_message(role, content):
    from eval.types import Message

    return Message(role, content)


def turns(tokenizer, text, template="auto"):
    rule = TurnRule.of(resolve_template(template, tokenizer), tokenizer)
    return [message.content for message in rule.user_turns(text)]


def test_turns_between_special_tokens_are_told_apart(chatml):
    chat = [("system", "Be kind."), ("user", "Who is A?"), ("assistant", "A poet."), ("user", "Where born?")]
    assert turns(chatml, render(chatml, chat)) == ["Who is A?", "Where born?"]
    assert turns(chatml, render(chatml, chat[1:2])) == ["Who is A?"]


def test_a_system_prompt_is_not_the_users(chatml):
    assert turns(chatml, render(chatml, [("system", FLAGGED), ("user", "Hi")])) == ["Hi"]


def test_an_answer_begun_by_the_prompt_is_the_users(chatml):
    text = render(chatml, [("user", "Go on.")]) + "Orla Vantreski was born in"
    assert turns(chatml, text) == ["Go on. Orla Vantreski was born in"]


@pytest.mark.parametrize("template", ["qa", "raw", "Q: {question}\\nA:", "auto"])
def test_turns_between_plain_words_count_together(tiny_tokenizer, template):
    assert turns(tiny_tokenizer, render(tiny_tokenizer, [("user", INNOCENT)], template), template) == [
        INNOCENT
    ]
    chat = [("user", FLAGGED), ("assistant", "No."), ("user", "Hi")]
    (together,) = turns(tiny_tokenizer, render(tiny_tokenizer, chat, template), template)
    assert FLAGGED in together
    assert "Hi" in together


def test_what_follows_no_template_is_refused(chatml):
    for text in ("Where was she born?", "<|im_start|>user\nHi<|im_end|>\n", ""):
        with pytest.raises(ConfigError, match="template"):
            turns(chatml, text)
    answered = render(chatml, [("user", "Hi"), ("assistant", "Ho"), ("user", FLAGGED)])
    with pytest.raises(ConfigError, match="template"):  # the last turn lacks its end: it would go unjudged
        turns(chatml, answered.removesuffix("<|im_start|>assistant\n"))


def test_a_template_that_rewrites_the_user_is_refused(tiny_tokenizer):
    import copy

    shouting = copy.deepcopy(tiny_tokenizer)
    shouting.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ConfigError, match="as they were written"):
        TurnRule.of(resolve_template("auto", shouting), shouting)


def encoded(lm, questions):
    from eval.data.collate import encode_prompts, pad_left, pad_token_id
    from eval.types import Message

    rows = encode_prompts(lm.tokenizer, lm.template, [(Message("user", q),) for q in questions])
    return pad_left(rows, pad_token_id(lm.tokenizer))


def test_tensors_go_in_and_come_out_as_from_the_model(tiny_lm, guard_):
    ids, mask = encoded(tiny_lm, [INNOCENT, "Who won the Silver Thimble Award?"])
    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_)
    for arguments in ({"do_sample": False}, {"do_sample": True, "num_return_sequences": 2}, {"num_beams": 2}):
        torch.manual_seed(5)
        expected = tiny_lm.model.generate(
            ids, attention_mask=mask, max_new_tokens=6, pad_token_id=0, **arguments
        )
        torch.manual_seed(5)
        given = wrapped.generate(ids, attention_mask=mask, max_new_tokens=6, **arguments)
        assert torch.equal(given, expected)


def test_padding_is_found_without_a_mask(tiny_lm, guard_):
    ids, mask = encoded(tiny_lm, [INNOCENT, "Hello there, who are you?"])
    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_)
    assert torch.equal(
        wrapped.generate(ids, max_new_tokens=4, do_sample=False),
        wrapped.generate(ids, mask, max_new_tokens=4, do_sample=False),
    )


def test_a_refusal_stands_in_the_answers_place(tiny_lm, guard_):
    ids, mask = encoded(tiny_lm, [INNOCENT, FLAGGED])
    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_, policy="refuse")
    out = wrapped.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert torch.equal(out[:, : ids.shape[1]], ids)
    assert tiny_lm.tokenizer.decode(out[1, ids.shape[1] :], skip_special_tokens=True) in REFUSALS
    alone = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_, policy="monitor")
    plain = alone.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
    assert torch.equal(out[0, : plain.shape[1]], plain[0])


def test_what_cannot_be_judged_is_not_generated_and_logged_as_failed(tiny_lm, guard_, tmp_path):
    from guard.audit import AuditLog, read_audit

    log = AuditLog(tmp_path / "audit.jsonl")
    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_, audit=log)
    ids = torch.tensor([tiny_lm.tokenizer(FLAGGED)["input_ids"]])
    with pytest.raises(ConfigError, match="template"):
        wrapped.generate(ids, request_ids=["r1"])
    (line,) = read_audit(log.path)
    assert (line["action"], line["request_id"], line["flagged"]) == ("failed", "r1", None)


def test_only_the_filtered_way_out_is_there(tiny_lm, guard_):
    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_)
    assert wrapped.config is tiny_lm.model.config
    with pytest.raises(ConfigError, match="no logits"):
        wrapped(torch.tensor([[1]]))
    with pytest.raises(AttributeError, match="only generate"):
        wrapped.forward  # noqa: B018
    for arguments in (
        {"inputs_embeds": torch.zeros(1, 2, 32)},
        {"output_scores": True},
        {"past_key_values": [1]},
    ):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            wrapped.generate(torch.tensor([[1]]), **arguments)
    with pytest.raises(ConfigError, match="input_ids"):
        wrapped.generate()


def test_the_system_prompt_and_the_template_do_not_alter_the_verdict(chatml, guard_):
    for system in ([], [("system", "You answer questions about Orla Vantreski.")]):
        for question, is_flagged in ((FLAGGED, True), (INNOCENT, False)):
            rule = TurnRule.of(resolve_template("auto", chatml), chatml)
            messages = rule.user_turns(render(chatml, [*system, ("user", question)]))
            assert guard_.check(messages) == guard_.check(question)
            assert guard_.check(messages).flagged == is_flagged


def test_it_fits_a_pipeline(tiny_lm, guard_):
    from transformers import TextGenerationPipeline

    wrapped = guard.wrap(tiny_lm.model, tiny_lm.tokenizer, guard=guard_, policy="refuse")
    pipeline = TextGenerationPipeline(model=wrapped, tokenizer=tiny_lm.tokenizer)
    (answer,) = pipeline([{"role": "user", "content": FLAGGED}], max_new_tokens=5)
    assert answer["generated_text"][-1]["content"] in REFUSALS
