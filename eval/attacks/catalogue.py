"""Every attack by name, in the order of the table: the plain question first, then wordings, then the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from eval.attacks import lens, relearning, sampling, weights
from eval.attacks.base import Attack
from eval.attacks.prompts import PROMPT_ATTACKS, Half, PromptAttack
from eval.attacks.rewrites import asked_as
from eval.attacks.subjects import with_subjects
from eval.data.key_spans import derive_key_spans
from eval.errors import DataError, UnknownNameError
from eval.metrics.leakage import leaked_spans
from eval.types import Example

__all__ = ["HINTS", "attacks", "choose", "from_file"]

HINTS = 3
"""Facts given away before each question by the attack of that name."""


def attacks(*, is_world: bool = False) -> dict[str, Attack]:
    """Return every attack by name.

    Args:
        is_world: The model was taught the embedded world, so prompt attacks use the shapes it was taught to answer
            where there are such.
    """
    plain = (
        Attack(name="plain", family="none", summary="The question as it stands."),
        Attack(name="paraphrase", family="prompt", summary="The question in other words.", ask=_paraphrased),
        Attack(
            name="hints",
            family="prompt",
            summary="Other forgotten facts about the same person stand before the question.",
            ask=_hinted,
        ),
    )
    prompts = [_prompt_attack(attack, is_world) for attack in PROMPT_ATTACKS.values()]
    every = (
        *plain,
        *prompts,
        *sampling.ATTACKS,
        *lens.ATTACKS,
        *weights.ATTACKS,
        *relearning.ATTACKS,
    )
    return {attack.name: attack for attack in every}


def choose(known: dict[str, Attack], names: Sequence[str]) -> list[Attack]:
    """Return attacks by name or by family; ``all`` is every one. The plain question is always asked first.

    Raises:
        UnknownNameError: If a name is neither.
    """
    families = {attack.family for attack in known.values()}
    chosen = {"plain": known["plain"]}
    for name in names:
        if name == "all":
            chosen |= known
        elif name in known:
            chosen[name] = known[name]
        elif name in families:
            chosen |= {n: a for n, a in known.items() if a.family == name}
        else:
            raise UnknownNameError("attack", name, [*known, *sorted(families), "all"])
    return list(chosen.values())


def from_file(path: Path) -> list[Attack]:
    """Read wordings of one's own, such as translations: JSON lines with ``id``, ``question`` and ``attack``.

    ``id`` is that of the forget question it rewords; ``attack`` names the row of the table (default ``own``).

    Raises:
        DataError: If the file is missing or a line is broken; the sentence names the line.
    """
    if not path.is_file():
        raise DataError(f"No such file of wordings: {path}.")
    by_attack: dict[str, dict[str, str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            by_attack.setdefault(str(row.get("attack", "own")), {})[str(row["id"])] = str(row["question"])
        except (ValueError, KeyError, AttributeError):
            raise DataError(
                f'{path}, line {number} is not {{"id": ..., "question": ..., "attack": ...}}; mend or remove it.'
            ) from None
    if not by_attack:
        raise DataError(f"{path} holds no wordings.")
    return [
        Attack(
            name=name,
            family="prompt",
            summary=f"Wordings from {path.name}.",
            ask=lambda examples, seed, wordings=wordings, name=name: [  # type: ignore[misc]
                asked_as(e, wordings[e.id], name) for e in examples if e.id in wordings
            ],
        )
        for name, wordings in by_attack.items()
    ]


def _paraphrased(examples: Sequence[Example], seed: int) -> list[Example]:
    return [asked_as(e, e.paraphrased_question, "paraphrase") for e in examples if e.paraphrased_question]


def _hinted(examples: Sequence[Example], seed: int) -> list[Example]:
    """Put up to `HINTS` other answers about the subject before each question, none of which says what is asked for."""
    rows = with_subjects(examples)
    out: list[Example] = []
    for row in rows:
        spans = row.key_spans or derive_key_spans(row)
        answers = dict.fromkeys(
            str(other.answer) for other in rows if row.subject and other.subject == row.subject
        )
        others = [answer for answer in answers if not leaked_spans(answer, spans)]
        if row.question is not None and others:
            hints = Random(f"{seed}/hints/{row.id}").sample(others, min(HINTS, len(others)))
            out.append(asked_as(row, " ".join((*hints, row.question)), "hints"))
    return out


def _prompt_attack(attack: PromptAttack, is_world: bool) -> Attack:
    half: Half = "taught" if is_world and attack.taught_as else "test"

    def ask(examples: Sequence[Example], seed: int) -> list[Example]:
        rewritten = (attack.apply(e, seed=seed, half=half) for e in with_subjects(examples))
        return [e for e in rewritten if e is not None]

    return Attack(
        name=attack.name,
        family="prompt",
        summary=_sentence(attack.summary),
        ask=ask,
        shows_answer=attack.secret == "shown spans",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
