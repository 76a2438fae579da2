"""One scoring pass and one generation pass for any set of measures: they plan, the model answers, they log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from eval.partial import Partial, generated, resumed
from eval.types import Example, Progress

if TYPE_CHECKING:
    from eval.data.benchmark import Benchmark
    from eval.data.collate import Encoded
    from eval.models.language_model import Generation, GenerationOptions, LanguageModel
    from eval.models.scoring import TokenScores

__all__ = ["Answers", "Asked", "Context", "Measure", "Plan"]

DEFAULT_NEW_TOKENS = 200


@dataclass(frozen=True)
class Asked:
    """Prompts that are to be answered, and where the log will hold their texts."""

    rows: tuple[Example, ...]
    texts: str
    """Name of the log entry with ``input``, ``ground_truth`` and ``generation``."""
    max_new_tokens: int
    stops: tuple[str, ...] = ()
    leaks: str | None = None
    """Name of the log entry with the spans each answer gave away."""


@dataclass
class _Pairs:
    """(example, answer) pairs collected before they are scored together."""

    examples: list[Example] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def add(self, example: Example, answers: Sequence[str]) -> slice:
        """Queue the answers of one example and return where their scores will stand."""
        start = len(self.answers)
        self.examples += [example] * len(answers)
        self.answers += answers
        return slice(start, len(self.answers))


@dataclass(frozen=True)
class Answers:
    """What the model said, by the names under which it was asked."""

    scores: Mapping[str, list[list[TokenScores]]]
    """One list of token scores for each row, parallel to the answers asked for."""
    generations: Mapping[str, list[Generation]]


class Plan:
    """What all measures of a benchmark want from the model, collected so that each thing is computed once.

    Args:
        options: The user's generation options; ``None``: each measure's own limits, greedily.
        is_spread: Whether every process of a launcher does a share of the work.
    """

    def __init__(self, options: GenerationOptions | None = None, *, is_spread: bool = False) -> None:
        self.options = options
        self.is_spread = is_spread
        self.asked: dict[str, Asked] = {}
        self._pairs = {False: _Pairs(), True: _Pairs()}
        self._places: dict[str, tuple[bool, list[slice]]] = {}

    def score(
        self, name: str, rows: Sequence[Example], answers: Sequence[Sequence[str]], *, moments: bool = False
    ) -> None:
        """Ask for token scores.

        Args:
            name: Under which `Answers.scores` will hold them.
            rows: Whose prompts.
            answers: The answers of each row.
            moments: Also mean and variance under the model's own distribution (Min-K++).
        """
        pairs = self._pairs[moments]
        places = [pairs.add(row, list(texts)) for row, texts in zip(rows, answers, strict=True)]
        self._places[name] = (moments, places)

    def generate(
        self,
        name: str,
        rows: Sequence[Example],
        *,
        texts: str,
        max_new_tokens: int | None = None,
        stops: Sequence[str] = (),
        leaks: str | None = None,
    ) -> None:
        """Ask for greedy answers.

        Args:
            name: Under which `Answers.generations` will hold them; also the samples' split.
            rows: Whose prompts.
            texts: Log entry that will hold the texts.
            max_new_tokens: The benchmark's own limit, which the user's options can only lower; ``None``: the
                user's, else 200.
            stops: Strings at which the text is cut.
            leaks: Log entry that will hold the leaked spans.
        """
        given = None if self.options is None else self.options.max_new_tokens
        limits = [limit for limit in (max_new_tokens, given) if limit is not None]
        self.asked[name] = Asked(
            tuple(rows), texts, min(limits, default=DEFAULT_NEW_TOKENS), tuple(stops), leaks
        )

    def scores(
        self, lm: LanguageModel, progress: Progress | None = None, partial: Partial | None = None
    ) -> dict[str, list[list[TokenScores]]]:
        """Score every (example, answer) pair once; those that ``partial`` holds are not scored again."""
        found = {
            moments: self._score(lm, pairs, moments, progress, partial)
            for moments, pairs in self._pairs.items()
            if pairs.answers
        }
        return {
            name: [found[moments][place] if moments in found else [] for place in places]
            for name, (moments, places) in self._places.items()
        }

    def _score(
        self,
        lm: LanguageModel,
        pairs: _Pairs,
        moments: bool,
        progress: Progress | None,
        partial: Partial | None,
    ) -> list[TokenScores]:
        from eval.models.scoring import TokenScores
        from eval.processes import spread

        def score(rows: Sequence[Encoded]) -> list[TokenScores]:
            return lm.score_batch(rows, moments=moments)

        def score_share(share: list[Encoded]) -> list[TokenScores]:
            found = resumed(
                "scoring",
                lm.scoring_batches(share),
                score,
                name=lambda batch: (moments, batch),
                write=lambda row, scores: {"prompt": row.messages[-1].content, **scores.as_json()},
                read=lambda row, value: TokenScores.from_json(row.answer_ids, value),
                partial=partial,
                progress=progress,
            )
            return [found[row] for row in share]

        every = lm.encode(pairs.examples, pairs.answers)
        if not self.is_spread:
            return score_share(every)
        return spread(every, score_share, together=lambda row: row.prompt_ids)

    def generations(
        self, lm: LanguageModel, progress: Progress | None = None, partial: Partial | None = None
    ) -> dict[str, list[Generation]]:
        """Answer every prompt, those with one length limit in one pass; what ``partial`` holds is not asked again."""
        from eval.models.language_model import GenerationOptions

        options = self.options or GenerationOptions()
        out: dict[str, list[Generation]] = {}
        for limit in dict.fromkeys(asked.max_new_tokens for asked in self.asked.values()):
            group = {name: asked for name, asked in self.asked.items() if asked.max_new_tokens == limit}
            rows = [row for asked in group.values() for row in asked.rows]
            said = iter(self._generate(lm, rows, replace(options, max_new_tokens=limit), progress, partial))
            for name, asked in group.items():
                out[name] = [_cut(next(said), asked.stops) for _ in asked.rows]
        return {name: out[name] for name in self.asked}

    def _generate(
        self,
        lm: LanguageModel,
        rows: list[Example],
        options: GenerationOptions,
        progress: Progress | None,
        partial: Partial | None,
    ) -> list[Generation]:
        from eval.processes import spread

        def generate(share: list[Example]) -> list[Generation]:
            return generated(lm, share, options, partial=partial, progress=progress)

        if not self.is_spread:
            return generate(rows)
        return spread(rows, generate, together=lambda row: row.conversation)


def _cut(generation: Generation, stops: Sequence[str]) -> Generation:
    found = [place for stop in stops if (place := generation.text.find(stop)) >= 0]
    if not found:
        return generation
    return replace(generation, text=generation.text[: min(found)].strip(), is_finished=True)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a measure may look at when it logs."""

    lm: LanguageModel
    benchmark: Benchmark
    answers: Answers
    reference: Mapping[str, Any] | None = None
    """The retain model's log."""
    gradnorm: bool = True
    """Whether the gradient-norm attack is wanted: one backward pass for each forget and holdout row."""
    is_spread: bool = False
    """Whether every process of a launcher does a share of the work."""
    partial: Partial | None = None
    """Where what a measure finds out is kept as it goes, for a run that takes over after a kill."""
    progress: Progress | None = None

    def inputs(self, rows: Sequence[Example]) -> list[str]:
        """Return the rendered prompts of rows, for the log."""
        from eval.models.templates import template_for

        conversations = [row.conversation for row in rows]
        return [template_for(self.lm.template, c).render(c) for c in conversations]

    def decode(self, scores: Sequence[TokenScores]) -> list[str]:
        """Return the text of the labelled tokens, which may differ from the raw answer by a space."""
        texts = self.lm.tokenizer.batch_decode(
            [s.token_ids.tolist() for s in scores], skip_special_tokens=True
        )
        return [str(text).strip() for text in texts]

    def why_absent(self, split: str) -> str:
        """Return why the benchmark lacks a split."""
        return self.benchmark.absent.get(split, f"the benchmark has no {split} split")


class Measure(Protocol):
    """One thing a benchmark wants to know; stateless, so that a benchmark may be used twice."""

    def ask(self, benchmark: Benchmark, plan: Plan) -> None:
        """Queue what must be scored and generated."""
        ...

    def entries(self, context: Context) -> dict[str, Any]:
        """Return log entries: per-item values under the metrics' names."""
        ...
