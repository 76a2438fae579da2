"""Measures on running text and short answers: what is generated, what is memorised, how surprising it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from eval.metrics import entries
from eval.metrics.bleu import bleu
from eval.metrics.rouge import exact_match, word_recall

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.measures.plan import Context, Plan
    from eval.types import Example

__all__ = ["Generated", "Memorized", "Perplexity", "key_spans"]


def key_spans(row: Example) -> tuple[str, ...]:
    """Return what would be a leak of a row: the benchmark's own spans, else those a rule finds."""
    from eval.data.key_spans import derive_key_spans

    return row.key_spans or derive_key_spans(row)


@dataclass(frozen=True)
class Generated:
    """ROUGE (or exact match) of greedily generated text against the true answers of a split."""

    name: str
    """Of the log entry, such as ``forget_knowmem_ROUGE``."""
    split: str
    max_new_tokens: int | None = None
    """Of each answer; ``None``: the user's choice, else 200."""
    stops: tuple[str, ...] = ()
    """Where an answer ends."""
    is_main: bool = False
    """Whether leak rate, fluency and a filter's interventions are read from these answers."""
    has_bleu: bool = False
    """Also log BLEU, under ``..._BLEU``."""
    match: Literal["rouge", "exact", "words"] = "rouge"
    """What ``score`` says beside ROUGE: nothing, whether the answers are equal but for case (LUME), or RWKU's recall
    of words."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Generate an answer for each row."""
        plan.generate(
            self.name,
            benchmark.splits.get(self.split, ()),
            texts=self.name,
            max_new_tokens=self.max_new_tokens,
            stops=self.stops,
            leaks="leak_rate" if self.is_main else None,
        )

    def entries(self, context: Context) -> dict[str, Any]:
        """Log the texts with their scores."""
        rows = context.benchmark.splits.get(self.split, ())
        bleu_name = f"{self.name.removesuffix('_ROUGE')}_BLEU"
        if not rows:
            missing = entries.absent_entry(context.why_absent(self.split))
            return {self.name: missing} | ({bleu_name: missing} if self.has_bleu else {})
        generations = context.answers.generations[self.name]
        truths = [str(row.answer) for row in rows]
        log = {self.name: entries.rouge_entry(context.inputs(rows), truths, generations)}
        if self.match != "rouge":
            match = exact_match if self.match == "exact" else word_recall
            logged = log[self.name]["value_by_index"]
            for i, (truth, generation) in enumerate(zip(truths, generations, strict=True)):
                logged[str(i)]["score"] = match(truth, generation.text)
        if self.has_bleu:
            scores = [bleu(truth, g.text) for truth, g in zip(truths, generations, strict=True)]
            log[bleu_name] = entries.entry([{"score": score} for score in scores])
        if self.is_main:
            questions = [" ".join(turn.content for turn in row.conversation) for row in rows]
            log["leak_rate"] = entries.leak_entry(generations, [key_spans(row) for row in rows], questions)
            log |= entries.generation_entries(generations, entries.human_texts(context.benchmark))
        return log


@dataclass(frozen=True)
class Memorized:
    """Exact memorisation and extraction strength of a split's continuations, under teacher forcing."""

    split: str

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score each row's true continuation."""
        rows = benchmark.splits.get(self.split, ())
        plan.score(f"{self.split} memorized", rows, [[str(row.answer)] for row in rows])

    def entries(self, context: Context) -> dict[str, Any]:
        """Log both scores of each row; no end-of-sequence token is there to be left out."""
        scores = context.answers.scores[f"{self.split} memorized"]
        return entries.memorization_entries([row[0] for row in scores], has_end=False)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a split's documents: the exponential of the mean loss per token over rows."""

    name: str
    """Of the log entry; it ends in ``_perplexity``."""
    split: str

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score each document."""
        rows = benchmark.splits.get(self.split, ())
        plan.score(self.name, rows, [[str(row.answer)] for row in rows])

    def entries(self, context: Context) -> dict[str, Any]:
        """Log each document's mean loss and number of tokens."""
        return {self.name: entries.loss_entry([row[0] for row in context.answers.scores[self.name]])}
