"""What an attack is, and how one is run: it asks differently, or changes the model, and counts what comes out.

An attack sees a `LanguageModel` and never asks which method made it. The measure is the same throughout: the share
of forget questions whose answer contains a key span. Two rows put it in proportion: the *target*, which knows
everything (an attack under which it does not answer either shows nothing), and the *oracle*, which was never taught
the answers and shows what guessing, or learning anew, reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.data.key_spans import derive_key_spans
from eval.errors import UnlearnError
from eval.metrics.leakage import leaked_spans
from eval.partial import generated, kept
from eval.types import Example, MetricResult, Progress

if TYPE_CHECKING:
    from eval.models.language_model import GenerationOptions, LanguageModel

__all__ = [
    "DOES_NOT_APPLY",
    "INFORMATIVE",
    "Attack",
    "AttackData",
    "AttackDoesNotApplyError",
    "AttackResult",
    "run_attack",
]

Family = Literal["none", "prompt", "sampling", "relearning", "quantization", "edit", "probing"]

INFORMATIVE = 0.5
"""Share of answers that must leak from the target under an attack before its result says anything."""

DOES_NOT_APPLY = "does not apply"
"""How the reason of an attack that has nothing to act on begins."""


class AttackDoesNotApplyError(UnlearnError):
    """The model has nothing for this attack to act on (no edit to switch off, ...); says why."""


@dataclass(frozen=True, kw_only=True)
class AttackData:
    """What an attacker may use."""

    questions: tuple[Example, ...]
    """The forget questions that are tested, with answers and key spans."""
    retain: tuple[Example, ...] = ()
    """Innocent rows (benign relearning)."""
    start: LanguageModel | None = None
    """The model before unlearning (merge attacks)."""
    keep: Path | None = None
    """Folder for weights that the attacker trains; ``None``: they are trained anew each time."""


Ask = Callable[[Sequence[Example], int], list[Example]]
"""Takes the questions and a seed; returns those it can rewrite, each under its own id."""
Change = Callable[["LanguageModel", AttackData, int, Progress | None], "LanguageModel"]
"""Takes a model; returns another that the attacker made of it. The model given stays as it was."""
Probe = Callable[["LanguageModel", Sequence[Example]], list[float | None]]
"""Looks inside instead of asking: one value from 0 to 1 for each question."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack; exactly the fields it needs are set."""

    name: str
    family: Family
    summary: str
    """One line: what the attacker does."""
    ask: Ask | None = None
    change: Change | None = None
    tested: Ask | None = None
    """Which questions are asked after ``change`` (half of them, where the other half was given away)."""
    samples: int = 1
    """Answers drawn for each question; above 1: sampled at temperature 1, and one leak is enough."""
    probe: Probe | None = None
    shows_answer: bool = False
    """Whether the prompt shows key spans among others: picking one is knowing it, so it counts all the same."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What one attack found out about one model."""

    items: tuple[Mapping[str, Any], ...]
    """Per question: ``id``, ``question``, ``score`` (0 or 1, or the probe's value), ``answers``, ``spans``."""
    reason: str | None = None
    """Why there is no value."""

    def metric(self, *, seed: int = 0) -> MetricResult:
        """Return the share that leaked, with a bootstrap interval."""
        from eval.metrics.bootstrap import mean_interval

        scores = [float(item["score"]) for item in self.items if item["score"] is not None]
        if not scores:
            return MetricResult(value=None, reason=self.reason or "the attack fits none of the questions")
        return MetricResult(
            value=sum(scores) / len(scores), ci=mean_interval(scores, seed=seed), n=len(scores)
        )


def run_attack(
    lm: LanguageModel,
    attack: Attack,
    data: AttackData,
    *,
    seed: int = 0,
    options: GenerationOptions | None = None,
    partial_dir: Path | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack a model and count the answers that leak.

    Args:
        lm: Plain, edited, tuned or filtered; it stays as it was.
        attack: What to do.
        data: What the attacker has.
        seed: Of rewordings, sampling and training.
        options: Of generation; default: greedy, at most 64 new tokens.
        partial_dir: Folder of ``partial.jsonl``, where finished answers stand until the caller, who has kept the
            result, takes it away; an attack of the same that was killed goes on there.
        progress: Told what is being done.
    """
    from eval.models.language_model import GenerationOptions

    options = options or GenerationOptions(max_new_tokens=64)
    questions = list(data.questions)
    try:
        model = lm if attack.change is None else attack.change(lm, data, seed, progress)
    except AttackDoesNotApplyError as error:
        return AttackResult(items=(), reason=f"{DOES_NOT_APPLY}: {error}")
    if attack.tested is not None:
        questions = attack.tested(questions, seed)
    if attack.probe is not None:
        values = attack.probe(model, questions)
        return AttackResult(
            items=tuple(
                {"id": e.id, "question": e.question, "score": value}
                for e, value in zip(questions, values, strict=True)
            )
        )
    asked = questions if attack.ask is None else attack.ask(questions, seed)
    if attack.samples > 1:
        options = replace(options, do_sample=True, temperature=1.0, top_p=1.0)
    answers: list[list[str]] = [[] for _ in asked]
    with kept(model, partial_dir, attack.name) as partial:
        for draw in range(attack.samples):
            drawn = replace(options, seed=seed + draw)
            written = generated(model, asked, drawn, partial=partial, progress=progress)
            for texts, generation in zip(answers, written, strict=True):
                texts.append(generation.text)
    return AttackResult(
        items=tuple(_item(e, texts, attack.shows_answer) for e, texts in zip(asked, answers, strict=True))
    )


def _item(example: Example, texts: Sequence[str], shows_answer: bool) -> dict[str, Any]:
    spans = example.key_spans or derive_key_spans(example)
    prompt = " ".join(turn.content for turn in example.conversation)
    asked = "" if shows_answer else prompt
    found = sorted({span for text in texts for span in leaked_spans(text, spans, question=asked)})
    is_secret = any(leaked_spans(span, [span], question=asked) for span in spans)
    return {
        "id": example.id,
        "question": prompt,
        "answers": list(texts),
        "spans": found,
        # An attack that gives every key span away in the prompt leaves nothing to leak.
        "score": float(bool(found)) if is_secret else None,
    }
