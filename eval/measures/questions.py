"""Everything TOFU's evaluation asks: likelihoods of right and wrong answers, generated answers, membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.errors import DataError
from eval.measures.membership import absent_attacks, membership_log
from eval.measures.texts import key_spans
from eval.metrics import entries

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.measures.plan import Context, Plan
    from eval.models.scoring import TokenScores
    from eval.types import Example

__all__ = ["Questions"]

NINE_TERM_SPLITS = ("retain", "ra", "wf")
REWORDED = "forget_paraphrased"


@dataclass(frozen=True)
class Questions:
    """The metrics of TOFU and OpenUnlearning on question-answer rows; every split but ``holdout`` is asked."""

    paraphrased_questions: bool = False
    """Also ask the forget questions in their other wording."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score every answer of every split once and generate one answer for each question."""
        splits = _splits(benchmark)
        for name, rows in splits.items():
            needs_moments = name in ("forget", "holdout") and "holdout" in splits
            plan.score(f"{name} gold", rows, [[row.answer or ""] for row in rows], moments=needs_moments)
            if name == "holdout":
                continue
            if _all_paraphrased(rows):
                plan.score(f"{name} paraphrased", rows, [[row.paraphrased_answer or ""] for row in rows])
            if all(row.perturbed_answers for row in rows):
                plan.score(f"{name} wrong", rows, [row.perturbed_answers for row in rows])
            leaks = "leak_rate" if name == "forget" else None
            plan.generate(name, rows, texts=f"{name}_Q_A_ROUGE", leaks=leaks)
        if self.paraphrased_questions and all(row.paraphrased_question for row in splits["forget"]):
            rows = tuple(
                row.replace(question=row.paraphrased_question, messages=None) for row in splits["forget"]
            )
            plan.generate(REWORDED, rows, texts=f"{REWORDED}_Q_A_ROUGE", leaks="leak_rate_paraphrased")

    def entries(self, context: Context) -> dict[str, Any]:
        """Log likelihoods, truth ratios, memorisation, membership and texts."""
        splits, absent = _splits(context.benchmark), context.benchmark.absent
        gold = {name: [row[0] for row in context.answers.scores[f"{name} gold"]] for name in splits}
        log: dict[str, Any] = {}
        for name in splits:
            if name != "holdout":
                log |= _likelihoods(name, gold[name], context)
        for name in NINE_TERM_SPLITS:
            if name not in splits:
                missing = entries.absent_entry(absent.get(name, f"the benchmark has no {name} split"))
                probability = "retain_Q_A_Prob" if name == "retain" else f"{name}_Q_A_Prob_normalised"
                log |= dict.fromkeys((probability, f"{name}_Truth_Ratio", f"{name}_Q_A_ROUGE"), missing)
        log |= entries.memorization_entries(gold["forget"])
        if "holdout" in splits:
            forget, holdout = ((splits[name], gold[name]) for name in ("forget", "holdout"))
            log |= membership_log(context, forget, holdout, has_end=True)
        else:
            log |= absent_attacks(absent.get("holdout", "the benchmark has no holdout rows"))
        return log | _texts(splits, gold, context)


def _splits(benchmark: Benchmark) -> Mapping[str, tuple[Example, ...]]:
    splits = {name: tuple(rows) for name, rows in benchmark.splits.items() if rows}
    if "forget" not in splits:
        raise DataError(f"Benchmark {benchmark.name} tests no forget rows; there is nothing to evaluate.")
    for split, rows in splits.items():
        for row in rows:
            if (row.question is None and row.messages is None) or row.answer is None:
                raise DataError(
                    f"Row {row.id!r} of {benchmark.name}'s split {split!r} has no question or no answer; evaluation "
                    "asks questions: give it both (documents: benchmark text:FILE)."
                )
    return splits


def _all_paraphrased(rows: Sequence[Example]) -> bool:
    return all(row.paraphrased_answer for row in rows)


def _likelihoods(name: str, gold: list[TokenScores], context: Context) -> dict[str, Any]:
    paraphrased, wrong = (context.answers.scores.get(f"{name} {kind}") for kind in ("paraphrased", "wrong"))
    ratio = "forget_truth_ratio" if name == "forget" else f"{name}_Truth_Ratio"
    log = {f"{name}_Q_A_Prob": entries.probability_entry(gold)}
    correct = gold
    if paraphrased is not None:
        first = [row[0] for row in paraphrased]
        log[f"{name}_Q_A_PARA_Prob"] = entries.probability_entry(first)
        if name not in ("ra", "wf"):
            correct = first
    if wrong is not None:
        log[f"{name}_Q_A_PERT_Prob"] = entries.wrong_probability_entry(wrong)
        if name in ("ra", "wf"):
            log[f"{name}_Q_A_Prob_normalised"] = entries.normalised_entry(gold, wrong)
        log[ratio] = entries.truth_ratio_entry(correct, wrong)
    elif name in ("forget", *NINE_TERM_SPLITS):
        missing = entries.absent_entry("not every row of the split has wrong answers (perturbed_answers)")
        log[ratio] = missing
        if name in ("ra", "wf"):
            log[f"{name}_Q_A_Prob_normalised"] = missing
    return log


def _texts(
    splits: Mapping[str, tuple[Example, ...]], gold: Mapping[str, list[TokenScores]], context: Context
) -> dict[str, Any]:
    log: dict[str, Any] = {}
    generated = context.answers.generations
    for name in (*(n for n in splits if n != "holdout"), *([REWORDED] if REWORDED in generated else [])):
        is_reworded = name == REWORDED
        rows = splits["forget" if is_reworded else name]
        asked = (
            [row.replace(question=row.paraphrased_question, messages=None) for row in rows]
            if is_reworded
            else rows
        )
        truths = context.decode(gold["forget" if is_reworded else name])
        log[f"{name}_Q_A_ROUGE"] = entries.rouge_entry(context.inputs(asked), truths, generated[name])
        if name in ("forget", REWORDED):
            questions = [" ".join(turn.content for turn in row.conversation) for row in asked]
            key = "leak_rate_paraphrased" if is_reworded else "leak_rate"
            log[key] = entries.leak_entry(generated[name], [key_spans(row) for row in rows], questions)
    return log | entries.generation_entries(generated["forget"], entries.human_texts(context.benchmark))
