"""`GuardLogitsProcessor`: takes the tokens that would complete a forbidden phrase out of the choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from eval.errors import ConfigError
from guard.gate import Decision
from guard.restriction import Restriction, restriction_for
from guard.soft import SoftMatch
from guard.vocabulary import Vocabulary

__all__ = ["GuardLogitsProcessor", "MaskRecord"]


_LAST_RESORT = -1e4
"""Score of the end where nothing else is left: finite, and so low that any other beam is preferred."""


class MaskRecord:
    """At which prefixes the filter changed the most likely token.

    Keyed by prompt and generated tokens, not by row or step, so that rows may be reordered, dropped or forked.
    """

    def __init__(self) -> None:
        self._prefixes: set[tuple[Any, tuple[int, ...]]] = set()
        self._dead_ends: set[tuple[Any, tuple[int, ...]]] = set()

    def note(self, prompt: Any, tokens: Sequence[int]) -> None:
        """Note that the first choice after ``tokens`` was banned."""
        self._prefixes.add((prompt, tuple(tokens)))

    def note_dead_end(self, prompt: Any, tokens: Sequence[int]) -> None:
        """Note that nothing could be said after ``tokens``."""
        self._dead_ends.add((prompt, tuple(tokens)))

    def is_dead_end(self, prompt: Any, tokens: Sequence[int]) -> bool:
        """Whether the answer ``tokens`` ended because nothing could be said after them."""
        return (prompt, tuple(tokens)) in self._dead_ends

    def masked_steps(self, prompt: Any, tokens: Sequence[int]) -> int:
        """Count the noted prefixes of ``tokens``: decoding steps at which the filter changed the choice."""
        return sum((prompt, tuple(tokens[:i])) in self._prefixes for i in range(len(tokens) + 1))


class GuardLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Sets the scores of banned tokens to minus infinity in the rows of flagged prompts.

    Stateless: the banned tokens follow from ``input_ids`` alone, so greedy search, sampling and beam search may
    reorder rows. Rows of unflagged prompts keep their scores bit for bit. Where nothing would be left, the
    end-of-sequence token is, and ``record`` knows it: `guard.generate` then answers with a refusal.

    Args:
        decisions: The gate's decision for each prompt of the batch.
        tokenizer: The model's tokenizer; only its decoding is used.
        prompt_length: Columns of ``input_ids`` before the first generated token.
        rows_per_prompt: Rows of the batch for each prompt (beams, or sequences sampled from one prompt);
            rows of a prompt stand together. ``None``: as many as the batch turns out to have.
        eos_ids: What remains where everything is banned; ``None``: the tokenizer's.
        record: Where to note changed choices; ``None``: a new one, readable as ``record``.
        keys: What identifies each prompt in ``record``; ``None``: its position.
        soft: Bans words near the phrases too; ``None``: the phrases alone.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        tokenizer: Any,
        prompt_length: int,
        rows_per_prompt: int | None = None,
        *,
        eos_ids: Sequence[int] | None = None,
        record: MaskRecord | None = None,
        keys: Sequence[Any] | None = None,
        soft: SoftMatch | None = None,
    ) -> None:
        if rows_per_prompt is not None and rows_per_prompt < 1:
            raise ConfigError(f"rows_per_prompt is {rows_per_prompt}; it must be at least 1.")
        self.tokenizer = tokenizer
        self.prompt_length = prompt_length
        self.record = record if record is not None else MaskRecord()
        own = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self.eos_ids = tuple(own if eos_ids is None else eos_ids)
        names = list(range(len(decisions))) if keys is None else list(keys)
        rows = [i for i in range(len(decisions)) for _ in range(rows_per_prompt or 1)]
        restrictions = [restriction_for(decision, tokenizer, soft) for decision in decisions]
        self._rows = [(restrictions[i], names[i]) for i in rows]
        self._is_fixed = rows_per_prompt is not None
        if self.is_active and not self.eos_ids:
            raise ConfigError(
                "The tokenizer has no end-of-sequence token, which is what remains where everything is banned; "
                "give eos_ids."
            )

    @property
    def is_active(self) -> bool:
        """Whether any row is of a flagged prompt."""
        return any(restriction is not None for restriction, _ in self._rows)

    def select(self, rows: Sequence[int]) -> GuardLogitsProcessor:
        """Return the processor for these rows, in this order; the record of changed choices is shared."""
        chosen = object.__new__(GuardLogitsProcessor)
        chosen.tokenizer, chosen.prompt_length = self.tokenizer, self.prompt_length
        chosen.record, chosen.eos_ids = self.record, self.eos_ids
        chosen._rows, chosen._is_fixed = [self._rows[i] for i in rows], True
        return chosen

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with banned tokens at minus infinity; the given tensor is not changed.

        Args:
            input_ids: Prompt and generated tokens, shape ``(B, T)``.
            scores: Logits or log-probabilities of the next token, shape ``(B, V)``.

        Raises:
            ConfigError: If the number of rows is not that of the decisions.
        """
        rows = self._rows_of(len(input_ids))
        if not self.is_active:
            return scores
        scores = scores.clone()
        for row, (restriction, key) in enumerate(rows):
            if restriction is None:
                continue
            tokens = input_ids[row, self.prompt_length :].tolist()
            ids = restriction.banned(tokens, scores[row])
            index = torch.as_tensor(ids[ids < scores.shape[1]], device=scores.device)
            if not len(index) and restriction.penalty is None:
                continue
            first = int(scores[row].argmax())
            scores[row, index] = -torch.inf
            if restriction.penalty is not None:
                scores[row, : len(restriction.penalty)] -= restriction.penalty.to(scores)[: scores.shape[1]]
            if bool(scores[row, first] == -torch.inf):
                self.record.note(key, tokens)
                self._choose_anew(scores[row], first, restriction.vocabulary)
            if not bool((scores[row] > -torch.inf).any()):
                self.record.note_dead_end(key, tokens)
                scores[row, list(self.eos_ids)] = _LAST_RESORT
        return scores

    @staticmethod
    def _choose_anew(scores: Tensor, first: int, vocabulary: Vocabulary) -> None:
        """Keep words whole after a banned first choice, in place; scores of shape ``(V,)``.

        If that choice would have begun a new word, the next one must not run into the word before it.
        """
        if first >= vocabulary.size or not vocabulary.leads[first]:
            return
        glued = torch.as_tensor(vocabulary.glued, device=scores.device)
        others = scores.clone()
        others[glued[glued < len(scores)]] = -torch.inf
        if bool((others > -torch.inf).any()):
            scores.copy_(others)

    def _rows_of(self, num_rows: int) -> list[tuple[Restriction | None, Any]]:
        num_prompts = len(self._rows)
        if num_rows == num_prompts:
            return self._rows
        if self._is_fixed or num_prompts == 0 or num_rows % num_prompts:
            raise ConfigError(
                f"The batch has {num_rows} rows, but the guard holds decisions for {num_prompts}; "
                "give rows_per_prompt (beams or sequences of each prompt)."
            )
        return [row for row in self._rows for _ in range(num_rows // num_prompts)]
