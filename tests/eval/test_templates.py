"""Prompts are rendered the same way for every method, and answers end where the template ends them."""

import pytest

from eval.data.collate import encode
from eval.errors import ConfigError
from eval.models.templates import FormatTemplate, resolve_template, template_for
from eval.types import Example, Message


def test_auto_takes_the_chat_template(tiny_tokenizer):
    template = resolve_template("auto", tiny_tokenizer)
    assert template.render([Message("user", "Why?")]) == "Question: Why?\nAnswer:\n"
    assert template.completion([Message("user", "Why?")], "So.") == "So.</s>"


def test_a_written_backslash_n_is_a_newline(tiny_tokenizer):
    template = resolve_template("Q: {question}\\nA:\\n", tiny_tokenizer)
    assert template.render([Message("user", "Why?")]) == "Q: Why?\nA:\n"
    assert template.completion([], "So.") == "So."


def test_plain_formats_set_the_answer_off_with_a_space(tiny_tokenizer):
    template = resolve_template("qa", tiny_tokenizer)
    turns = [Message("user", "A?"), Message("assistant", "B."), Message("user", "C?")]
    assert template.render(turns) == "Question: A?\nAnswer: B.\n\nQuestion: C?\nAnswer:"
    assert template.completion(turns, "D.") == " D."


def test_a_merge_across_the_boundary_keeps_the_prompt_tokens(tiny_tokenizer):
    """The prompt's tokens must not depend on the answer, or generation would start from other tokens."""
    template = FormatTemplate("format", "Where was person {question}", add_special_tokens=False)
    asked = Example(id="0", question="pers")
    (alone,) = encode(tiny_tokenizer, template, [asked], ["on 1"])
    assert list(alone.prompt_ids) == tiny_tokenizer("Where was person pers")["input_ids"]
    assert tiny_tokenizer.decode(alone.answer_ids[:-1]) == "on 1"


@pytest.mark.parametrize("name", ["chatty", "", "Question: {prompt}"])
def test_unknown_templates_are_refused(tiny_tokenizer, name):
    with pytest.raises(ConfigError, match="Unknown template"):
        resolve_template(name, tiny_tokenizer)


def test_chat_without_a_chat_template_is_refused(tiny_tokenizer):
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    with pytest.raises(ConfigError, match="needs a tokenizer with a chat template"):
        resolve_template("chat", plain)


def test_an_answer_already_begun_stands_behind_the_prompt_once(tiny_tokenizer):
    turns = [Message("user", "Why?"), Message("prefill", "Well:")]
    chat = template_for(resolve_template("auto", tiny_tokenizer), turns)
    assert chat.render(turns) == "Question: Why?\nAnswer:\nWell:"
    assert chat.completion(turns, "so.") == " so.</s>"
    plain = template_for(resolve_template("qa", tiny_tokenizer), turns)
    assert plain.render(turns) == "Question: Why?\nAnswer: Well:"
    assert plain.completion(turns, "so.") == " so."
    again = [Message("user", "Why?"), Message("prefill", "Answer:")]
    assert template_for(plain.inner, again).render(again) == "Question: Why?\nAnswer:"
    asked = Example(id="0", messages=tuple(turns))
    (row,) = encode(tiny_tokenizer, resolve_template("auto", tiny_tokenizer), [asked], ["so."])
    assert tiny_tokenizer.decode(row.prompt_ids).endswith("Answer:\nWell:")
    assert tiny_tokenizer.decode(row.answer_ids) == " so.</s>"
