"""Scores made of other scores, each with its formula."""

from __future__ import annotations

from eval.metrics.composites import FORMULAS
from eval.metrics.info.base import MetricInfo

__all__ = ["SUMMARIES"]

_OWN = (
    "A definition of this package: the field publishes such scores without a formula, so values do not compare "
    "with published ones."
)
_HARMONIC = "A harmonic mean: one part near 0 takes the whole score there."

SUMMARIES = (
    MetricInfo(
        name="lume_task_aggregate",
        measures="SemEval-2025 Task 4: how well all three tasks are forgotten and kept at once.",
        direction="higher",
        floor="0: one of the twelve terms is 0",
        ceiling="1: forgotten and kept perfectly",
        traps=(_HARMONIC,),
        formula=FORMULAS["lume_task_aggregate"],
        column="Task aggregate",
    ),
    MetricInfo(
        name="lume_mia_score",
        measures="SemEval-2025 Task 4: how little members and non-members can be told apart by loss.",
        direction="higher",
        floor="0: an AUC of 0 or 1 gives every member away",
        ceiling="1: an AUC of 0.5",
        traps=("Both directions lose: an over-unlearned model is as visible as one that remembers.",),
        formula=FORMULAS["lume_mia_score"],
        column="MIA score",
    ),
    MetricInfo(
        name="lume_final_score",
        measures="SemEval-2025 Task 4: the ranking score.",
        direction="higher",
        floor="0",
        ceiling="1",
        traps=(
            "Null without membership documents or MMLU: read lume_task_aggregate then.",
            "The task ranks no model whose MMLU is below 0.371 (75 % of its 7 B target's).",
            "Gradient ascent reaches 0.39 with a task aggregate of 0: a constant model passes membership inference.",
        ),
        formula=FORMULAS["lume_final_score"],
        column="Final score",
    ),
    MetricInfo(
        name="memorization_score",
        measures="How little of the forget answers is left in the likelihoods.",
        direction="higher",
        floor="0: known by heart in one of four ways",
        ceiling="1; the oracle's value is the honest target",
        traps=(_OWN, _HARMONIC),
        formula=FORMULAS["memorization_score"],
    ),
    MetricInfo(
        name="privacy_score",
        measures="How close four membership attacks come to what they find on the retain model.",
        direction="higher",
        floor="0: one attack sees the whole difference",
        ceiling="1: every attack finds what it finds on the retain model",
        traps=(_OWN, _HARMONIC, "Without a retain log the yardstick is an AUC of 0.5."),
        formula=FORMULAS["privacy_score"],
    ),
    MetricInfo(
        name="utility_score",
        measures="Model utility together with whether answers to forget questions are still language.",
        direction="higher",
        floor="0: an ability is lost, or every answer is gibberish",
        ceiling="1; compare with the model before unlearning",
        traps=(_OWN, _HARMONIC),
        formula=FORMULAS["utility_score"],
    ),
    MetricInfo(
        name="overall_score",
        measures="Memorisation, privacy and utility in one number.",
        direction="higher",
        floor="0: one of the three is 0",
        ceiling="1",
        traps=(_OWN, _HARMONIC, "It hides which of the three is bad: read them first."),
        formula=FORMULAS["overall_score"],
    ),
)
"""Metrics made of other metrics."""
