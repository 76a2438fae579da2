"""GUARD's own beam search (arXiv:2505.13312, section 3.3): token and sentence-encoder costs on every candidate.

    cost(y_t) = -log p(y_t | .) + P_token + P_sbert
    P_token   = inf if the text would complete a forbidden phrase, else 0
    P_sbert   = inf if s >= delta, else alpha * s;  s = max_k cos(encoder(last word), encoder(f_k)), at least 0

For reproduction: every step encodes the last word of each candidate (new words in one batch, known ones from the
encoder's cache). The default mode reaches the same aim without an encoder in the loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eval.errors import ConfigError
from guard.encoder import SentenceEncoder
from guard.gate import Decision
from guard.restriction import Restriction, restriction_for

__all__ = ["BeamSearch", "BeamSettings"]

_TAIL = 24
"""Tokens decoded to find the last word."""


@dataclass(frozen=True, kw_only=True)
class BeamSettings:
    """Values of the third-party re-implementation where the paper gives none.

    Raises:
        ConfigError: If a value is out of range.
    """

    num_beams: int = 7
    """Beams kept, and candidates of each beam; at least 1."""
    alpha: float = 1.0
    """Cost in nats of a similarity of 1 below ``delta``; at least 0."""
    delta: float = 0.5
    """Similarity from which a word is banned; in (0, 1]."""

    def __post_init__(self) -> None:
        if self.num_beams < 1 or self.alpha < 0 or not 0 < self.delta <= 1:
            raise ConfigError(
                f"Beam settings are {self}; num_beams is at least 1, alpha at least 0, delta in (0, 1]."
            )


@dataclass
class _Beam:
    tokens: list[int]
    cost: float

    def mean_cost(self) -> float:
        return self.cost / max(1, len(self.tokens))


class BeamSearch:
    """What ``model.generate(custom_generate=...)`` calls for one flagged prompt, given ``num_beams`` times.

    Args:
        encoder: The guard's sentence encoder.
        decision: Whose phrases are costly.
        tokenizer: The model's.
        settings: Beam width and costs.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        decision: Decision,
        tokenizer: Any,
        settings: BeamSettings | None = None,
    ) -> None:
        restriction = restriction_for(decision, tokenizer)
        if restriction is None or restriction.bans_all:
            raise ConfigError("mode='beam' needs a flagged prompt with phrases; other prompts need no costs.")
        self.restriction: Restriction = restriction
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.settings = settings or BeamSettings()
        self._phrases = torch.from_numpy(encoder.encode(decision.phrases)) if decision.phrases else None

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Tensor:
        """Return prompt and best continuations, shape ``(num_return_sequences, T + N)``, padded on the right."""
        width = input_ids.shape[1]
        ends = set(generation_config._eos_token_tensor.tolist())
        beams = [_Beam([], 0.0)]
        finished: list[_Beam] = []
        sequences, tokens, cache = input_ids, input_ids, None
        while sequences.shape[1] < generation_config.max_length:
            with torch.no_grad():
                out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logps = torch.log_softmax(out.logits[:, -1].float(), dim=-1)
            logps = logits_processor(sequences, logps)[: len(beams)]
            candidates = self._candidates(beams, logps)
            finished += [beam for _, beam in candidates if beam.tokens[-1] in ends]
            going = [(i, beam) for i, beam in candidates if beam.tokens[-1] not in ends]
            going = going[: self.settings.num_beams]
            if not going or len(finished) >= self.settings.num_beams:
                beams = []
                break
            beams = [beam for _, beam in going]
            # the model always sees as many rows as it was given: spare ones repeat the best
            parents = [i for i, _ in going] + [going[0][0]] * (len(input_ids) - len(going))
            rows = beams + [beams[0]] * (len(input_ids) - len(going))
            cache.reorder_cache(torch.tensor(parents, device=input_ids.device))
            tokens = torch.tensor([[beam.tokens[-1]] for beam in rows], device=input_ids.device)
            sequences = torch.cat([sequences[parents], tokens], dim=1)
        best = sorted([*finished, *beams], key=_Beam.mean_cost) or [_Beam([min(ends)], 0.0)]
        best = (best * generation_config.num_return_sequences)[: generation_config.num_return_sequences]
        longest = max(len(beam.tokens) for beam in best)
        new = input_ids.new_full((len(best), longest), int(generation_config._pad_token_tensor))
        for row, beam in zip(new, best, strict=True):
            row[: len(beam.tokens)] = torch.tensor(beam.tokens)
        return torch.cat([input_ids[:1, :width].expand(len(best), -1), new], dim=1)

    def _candidates(self, beams: Sequence[_Beam], logps: Tensor) -> list[tuple[int, _Beam]]:
        """Extend each beam by its likeliest tokens; return parents and beams of finite cost, cheapest first."""
        found: list[tuple[int, int, float]] = []
        for i, beam in enumerate(beams):
            scores = logps[i].clone()
            ids = self.restriction.banned(beam.tokens, scores)
            scores[torch.as_tensor(ids[ids < len(scores)], device=scores.device)] = -torch.inf
            values, best = scores.topk(min(self.settings.num_beams, len(scores)))
            found += [
                (i, int(token), -float(value))
                for value, token in zip(values, best, strict=True)
                if value > -torch.inf
            ]
        words = [self._last_word([*beams[i].tokens[-_TAIL:], token]) for i, token, _ in found]
        penalties = self._penalties(words)
        extended = [
            (i, _Beam([*beams[i].tokens, token], beams[i].cost + cost + penalty))
            for (i, token, cost), penalty in zip(found, penalties, strict=True)
            if penalty != float("inf")
        ]
        return sorted(extended, key=lambda pair: pair[1].cost)

    def _last_word(self, tokens: Sequence[int]) -> str:
        words = re.findall(r"\w+", self.restriction.vocabulary.decode(tokens))
        return words[-1] if words else ""

    def _penalties(self, words: Sequence[str]) -> list[float]:
        named = list(dict.fromkeys(word for word in words if word))
        if self._phrases is None or not named:
            return [0.0] * len(words)
        similarities = (
            (torch.from_numpy(self.encoder.encode(named)) @ self._phrases.T).amax(dim=1).clamp(min=0)
        )
        settings = self.settings
        cost = {
            word: float("inf") if s >= settings.delta else settings.alpha * s
            for word, s in zip(named, similarities.tolist(), strict=True)
        }
        return [cost.get(word, 0.0) for word in words]
