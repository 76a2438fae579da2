"""Extraction likelihood and memorisation accuracy (TDEC, arXiv:2210.01504) from few generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics import entries
from eval.metrics.extraction import extraction_likelihood, memorization_accuracy
from eval.partial import resumed
from eval.processes import spread

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
        hits = {
            row: score.hits[: self.length - 1].tolist() for row, score in zip(encoded, scores, strict=True)
        }
        is_measured = [
            len(row) >= self.length and bool(np.isfinite(score.logps).all())
            for row, score in zip(encoded, scores, strict=True)
        ]

        def likelihoods(share: list[Encoded]) -> list[dict[str, Any]]:
            found = resumed(
                "extraction likelihood",
                [[row] for row in dict.fromkeys(share)],
                lambda batch: [self._likelihood(context, row, hits[row]) for row in batch],
                name=lambda batch: (self.length, self.n, batch),
                write=lambda _, item: item,
                read=lambda _, value: {name: value[name] for name in ("score", "generation")},
                partial=context.partial,
                progress=context.progress,
            )
            return [found[row] for row in share]

        measured = [row for row, is_one in zip(encoded, is_measured, strict=True) if is_one]
        found = iter(spread(measured, likelihoods) if context.is_spread else likelihoods(measured))
        missing = [{"score": None, "num_tokens": len(row)} for row in encoded]
        return {
            f"{self.name}_EL{self.n}": entries.entry(
                [next(found) if is_one else none for is_one, none in zip(is_measured, missing, strict=True)]
            ),
            f"{self.name}_MA": entries.entry(
                [
                    {"score": memorization_accuracy(hits[row])} if is_one else none
                    for row, is_one, none in zip(encoded, is_measured, missing, strict=True)
                ]
            ),
        }

    def _likelihood(self, context: Context, row: Encoded, hits: Sequence[bool]) -> dict[str, Any]:
        """Return EL of one sequence, and what the model goes on with after its first half."""
        tokens = [*row.prompt_ids, *row.answer_ids][: self.length]
        said = self._continuations(context, row, tokens, hits)
        text = context.lm.tokenizer.decode(said[self.length // 2 - 1], skip_special_tokens=True)
        return {"score": extraction_likelihood(tokens, said, n=self.n), "generation": text}

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
