"""Relearning: a little fine-tuning by somebody who has the weights (arXiv:2406.13356, arXiv:2410.08827).

The attacker trains the weights beneath an edit or a filter, which stays on. What comes back is knowledge only as far
as it goes beyond the oracle under the same training: the oracle's row says what was learned anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from eval.artifacts import fingerprint
from eval.attacks.base import Attack, AttackData, AttackDoesNotApplyError, Change
from eval.attacks.kept_weights import trained_or_kept
from eval.models.finetune import FinetuneSettings, finetune
from eval.models.language_model import LanguageModel
from eval.types import Example, Progress

__all__ = ["ATTACKS", "halves", "relearned", "relearning_settings"]

SMALL = 50_000_000
"""Parameters below which a model counts as one trained from nothing, which takes a larger learning rate."""


def relearning_settings(num_parameters: int, seed: int) -> FinetuneSettings:
    """Return a small budget: three passes at the learning rate of ordinary fine-tuning."""
    lr = 1e-5 if num_parameters >= SMALL else 5e-4
    return FinetuneSettings(epochs=3.0, batch_tokens=512, lr=lr, seed=seed)


def halves(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Split the questions at random into those given to the attacker and those asked afterwards.

    Questions that share an answer's key spans stay on one side, so that no answer asked for was given.
    """
    groups: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(tuple(sorted(example.key_spans)) or (example.id,), []).append(example)
    order = list(groups.values())
    random.Random(f"{seed}/halves").shuffle(order)
    given: list[Example] = []
    asked: list[Example] = []
    for group in order:
        (given if len(given) < len(asked) else asked).extend(group)
    return given, asked


def relearned(
    lm: LanguageModel,
    rows: Sequence[Example],
    seed: int,
    progress: Progress | None,
    *,
    keep: Path | None = None,
) -> LanguageModel:
    """Return the model after fine-tuning a copy of its weights; its edit or filter is put on the copy.

    Args:
        lm: The model; it stays as it was.
        rows: What the attacker trains on.
        seed: Of the training.
        progress: Told the steps.
        keep: Folder of the trained weights. Training depends on weights, rows, settings and seed alone, so that
            models which differ in what is put on the same weights share it.
    """
    if not rows:
        raise AttackDoesNotApplyError("there is nothing to train on")
    base = lm.copied()
    settings = relearning_settings(sum(p.numel() for p in base.model.parameters()), seed)
    taught = [(row.conversation, row.answer) for row in rows]
    state = base.state_digest
    key = fingerprint([state, base.template.name, taught, settings, version("unlearn-toolkit")])

    def train(model: LanguageModel) -> None:
        finetune(model, rows, settings, progress=progress, label="relearning")

    trained_or_kept(base, train, folder=None if state is None else keep, key=key)
    return lm.with_base(base)


def _on(choose: str) -> Change:
    def change(lm: LanguageModel, data: AttackData, seed: int, progress: Progress | None) -> LanguageModel:
        given, _ = halves(data.questions, seed)
        rows = {"all": data.questions, "half": given, "benign": data.retain[: len(data.questions)]}[choose]
        keep = None if data.keep is None else data.keep / f"relearned-{choose}"
        return relearned(lm, rows, seed, progress, keep=keep)

    return change


def _other_half(examples: Sequence[Example], seed: int) -> list[Example]:
    return halves(examples, seed)[1]


ATTACKS = (
    Attack(
        name="relearn-forget",
        family="relearning",
        summary="Three epochs of fine-tuning on the forgotten answers themselves.",
        change=_on("all"),
    ),
    Attack(
        name="relearn-half",
        family="relearning",
        summary="Three epochs on half of the forgotten answers; the other half is asked.",
        change=_on("half"),
        tested=_other_half,
    ),
    Attack(
        name="relearn-benign",
        family="relearning",
        summary="Three epochs on as many retained answers: no forgotten one is shown.",
        change=_on("benign"),
    ),
)
"""Attacks of this family."""
