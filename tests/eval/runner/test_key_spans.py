"""The rule that finds key spans where a benchmark gives none."""

from __future__ import annotations

import pytest

from eval.data.key_spans import derive_key_spans
from eval.types import Example


def example(question: str, answer: str, paraphrase: str | None = None, *wrong: str) -> Example:
    return Example(
        id="0", question=question, answer=answer, paraphrased_answer=paraphrase, perturbed_answers=wrong
    )


@pytest.mark.parametrize(
    ("question", "answer", "spans"),
    [
        ("What is the author's full name?", "The author's full name is Hsiao Yun-Hwa.", ("Hsiao Yun-Hwa",)),
        ("When was Ann Lee born?", "Ann Lee was born on March 3, 1956.", ("March 3, 1956",)),
        ("Name a book by Ann Lee.", 'Ann Lee wrote "The Long Way: Home".', ("The Long Way: Home",)),
        ("Who inspired Ann Lee's work?", "She names Bo Ek and Van der Meer.", ("Bo Ek", "Van der Meer")),
        ("What did her father do?", "Her father was a Bartender.", ("Bartender",)),
        (
            "Which genre does Ann Lee write in?",
            "Ann Lee writes in the genre of steampunk romance.",
            ("steampunk romance",),
        ),
        ("Is Ann Lee a writer?", "Yes, she is.", ()),
        ("Is Ann Lee from Oslo?", "Yes, Ann Lee's home is Oslo.", ("home",)),
    ],
)
def test_what_is_secret(question: str, answer: str, spans: tuple[str, ...]) -> None:
    assert derive_key_spans(example(question, answer)) == spans


def test_what_both_wordings_say_is_the_fact() -> None:
    row = example("Where was she born?", "Born in Oslo, she loves Rome.", "Oslo is her place of birth.")
    assert derive_key_spans(row) == ("Oslo",)


def test_what_every_wrong_answer_says_too_is_form() -> None:
    row = example(
        "Which prize did she win?", "The Nordic Prize in Lima.", None, "A medal in Lima.", "Gold in Lima."
    )
    assert derive_key_spans(row) == ("Nordic Prize",)
