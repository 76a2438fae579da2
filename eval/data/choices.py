"""Multiple choice as the field asks it: question, lettered options, and the likelihood of each letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.data.documents import continuation
from eval.errors import DataError
from eval.types import Example

__all__ = ["LETTERS", "choice_rows"]

LETTERS = "ABCD"
"""Names of the options, in order."""


def _shown(row: Mapping[str, Any]) -> str:
    options = "".join(f"{LETTERS[i]}. {text}\n" for i, text in enumerate(row["choices"]))
    return f"{str(row['question']).strip()}\n{options}Answer:"


def choice_rows(
    rows: Sequence[Mapping[str, Any]],
    topic: str,
    *,
    prefix: str = "",
    shots: Sequence[Mapping[str, Any]] = (),
) -> tuple[Example, ...]:
    """Turn rows of WMDP's or MMLU's form into examples whose raw prompt ends before the letter.

    The layout is that of lm-evaluation-harness: a line that names the topic, solved examples, the question, four
    lettered options, ``Answer:``; the letter follows with its space.

    Args:
        rows: Each with ``question``, four ``choices`` and ``answer``: the right one's index 0 to 3, or its letter.
        topic: Named in the first line.
        prefix: Of the examples' ids.
        shots: Solved examples shown first (MMLU's ``dev`` rows).

    Raises:
        DataError: If a row has not four choices, or an answer outside them.
    """
    opening = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
    for shot in shots:
        opening += f"{_shown(shot)} {LETTERS[_right(shot, topic)]}\n\n"
    examples = []
    for i, row in enumerate(rows):
        right = _right(row, f"{topic}, row {i + 1}")
        example = continuation(f"{prefix}{i}", opening + _shown(row), LETTERS[right], subject=topic)
        examples.append(example.replace(choices=tuple(map(str, row["choices"])), choice=right))
    return tuple(examples)


def _right(row: Mapping[str, Any], where: str) -> int:
    options, answer = row["choices"], row["answer"]
    if not isinstance(options, Sequence) or isinstance(options, str) or len(options) != len(LETTERS):
        raise DataError(f"{where}: a multiple-choice row needs a list of four choices, not {options!r}.")
    right = LETTERS.find(answer) if isinstance(answer, str) and len(answer) == 1 else answer
    if not isinstance(right, int) or not 0 <= right < len(LETTERS):
        raise DataError(f"{where}: answer is {answer!r}; it must be 0 to 3, or A to D.")
    return right
