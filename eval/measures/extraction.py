"""Extraction likelihood and memorisation accuracy (TDEC, arXiv:2210.01504) from few generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics import entries
from eval.metrics.extraction import extraction_likelihood, memorization_accuracy

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.data.collate import Encoded
    from eval.measures.plan import Context, Plan

__all__ = ["Extraction"]


@dataclass(frozen=True)
class Extraction:
    """``<name>_EL`` and ``<name>_MA`` of a split's documents.

    EL needs the greedy continuation of every prefix. Where the model's first choice after a prefix is the true
    token, the continuation is that token and the continuation of the next longer prefix, so only prefixes at
    which teacher forcing misses are generated from: none at all for a text that is known by heart.
    """

    name: str
    split: str
    length: int = 200
    """Tokens of each sequence (``T``); shorter texts have no value."""
    n: int = 10
    """Length of the n-grams that count as an overlap."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Score each document: which tokens are the model's first choice."""
        rows = benchmark.splits[self.split]
        plan.score(f"{self.name} extraction", rows, [[str(row.answer)] for row in rows])

    def entries(self, context: Context) -> dict[str, Any]:
        """Log both values of each sequence, and what the model goes on with after its first half."""
        rows = context.benchmark.splits[self.split]
        encoded = context.lm.encode(rows, [str(row.answer) for row in rows])
        scores = [row[0] for row in context.answers.scores[f"{self.name} extraction"]]
        likelihoods: list[dict[str, Any]] = []
        accuracies: list[dict[str, Any]] = []
        for i, (row, score) in enumerate(zip(encoded, scores, strict=True)):
            if len(row) < self.length or not np.isfinite(score.logps).all():
                likelihoods.append({"score": None, "num_tokens": len(row)})
                accuracies.append({"score": None, "num_tokens": len(row)})
                continue
            tokens = [*row.prompt_ids, *row.answer_ids][: self.length]
            hits = score.hits[: self.length - 1]
            said = self._continuations(context, row, tokens, hits.tolist())
            half = self.length // 2
            text = context.lm.tokenizer.decode(said[half - 1], skip_special_tokens=True)
            likelihoods.append({"score": extraction_likelihood(tokens, said, n=self.n), "generation": text})
            accuracies.append({"score": memorization_accuracy(hits)})
            if context.progress is not None:
                context.progress("extraction likelihood", i + 1, len(encoded))
        return {
            f"{self.name}_EL{self.n}": entries.entry(likelihoods),
            f"{self.name}_MA": entries.entry(accuracies),
        }

    def _continuations(
        self, context: Context, row: Encoded, tokens: Sequence[int], hits: Sequence[bool]
    ) -> list[list[int]]:
        """Return the greedy continuation of ``tokens[:t]`` up to ``length`` tokens in all, for t = 1 .. length - 1."""
        missed = [t for t in range(1, self.length) if not hits[t - 1]]
        new = context.lm.continue_tokens(
            row.messages, [tokens[:t] for t in missed], [self.length - t for t in missed]
        )
        generated = dict(zip(missed, new, strict=True))
        said: list[list[int]] = [[]]
        for t in range(self.length - 1, 0, -1):
            said.append(generated[t] if t in generated else [tokens[t], *said[-1]])
        return said[:0:-1]
