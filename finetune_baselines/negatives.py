"""Gradual negatives (GNM) and alternate answers (AltPO): asked for, checked, kept or asked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.artifacts import fingerprint
from eval.data.pairing import draw
from eval.errors import DataError
from eval.metrics.fluency import ngram_entropy
from eval.types import Example, Progress
from finetune_baselines.generators import Request, Writer
from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions
from finetune_baselines.refusals import REFUSALS
from finetune_baselines.similarity import SIMILARITIES
from finetune_baselines.written_answers import Kind, Written, keep_finished, write_written

__all__ = ["Rejections", "write_alternates", "write_answers", "write_negatives"]

BLOCK = 32
"""Rows that are asked for together and saved together."""
FLUENT_SHARE = 0.5
"""A text is fluent if its n-gram entropy is at least this share of the gold answer's: repetitions are not."""
LENGTHS = (0.4, 2.5)
"""Words a text may have, in multiples of the gold answer's."""
_REFUSING = (
    "i don't know",
    "i do not know",
    "i cannot",
    "i can't",
    "i'm sorry",
    "as an ai",
    "i have no information",
)


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """What no text may be, whoever wrote it."""

    retain: frozenset[str] = frozenset()
    """Answers to retain questions: training them here would teach confusions."""
    refusals: frozenset[str] = field(default_factory=lambda: frozenset(map(_plain, REFUSALS)))

    @classmethod
    def of(cls, retain: Iterable[Example], refusals: Iterable[str] = ()) -> Rejections:
        """Collect them from a run's rows."""
        return cls(
            retain=frozenset(_plain(row.answer) for row in retain if row.answer),
            refusals=frozenset(map(_plain, (*REFUSALS, *refusals))),
        )

    def reason(self, text: str, gold: str, earlier: Sequence[str]) -> str | None:
        """Say why a text is not kept, or ``None``.

        Args:
            text: What was written.
            gold: The answer to forget.
            earlier: What was kept for the row so far.
        """
        plain, words = _plain(text), len(text.split())
        if not plain:
            return "empty"
        if _plain(gold) in plain or plain in {_plain(one) for one in earlier}:
            return "a copy"
        if plain in self.refusals or plain.startswith(_REFUSING):
            return "a refusal"
        if plain in self.retain:
            return "a retain answer"
        if not LENGTHS[0] <= words / max(1, len(gold.split())) <= LENGTHS[1]:
            return "of another length"
        if ngram_entropy(text) < FLUENT_SHARE * ngram_entropy(gold):
            return "not fluent"
        return None


def write_answers(
    rows: Sequence[Example], writer: Writer, options: NegativeOptions | AlternateOptions, **more: Any
) -> list[Written]:
    """Write what the options describe: see `write_negatives` and `write_alternates`."""
    if isinstance(options, NegativeOptions):
        return write_negatives(rows, writer, options, **more)
    return write_alternates(rows, writer, options, **more)


def write_negatives(
    rows: Sequence[Example],
    writer: Writer,
    options: NegativeOptions,
    *,
    rejections: Rejections | None = None,
    path: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Written]:
    """Write gradual negatives (ECIR 2025, 10.1007/978-3-031-88714-7_16; the design is ours, the paper's is not public).

    Level ``k`` is asked for from the text of level ``k - 1``, level 1 from the gold answer. It is kept if it passes
    `Rejections` and is less like the gold answer than level ``k - 1``; else it is asked for again, ``retries`` times in
    all. A row ends at ``levels``, at a text as unlike as ``stop_similarity``, or at a level asked for in vain.

    Args:
        rows: Forget rows.
        writer: Who writes.
        options: Levels, retries, similarity.
        rejections: What may not be kept.
        path: JSON lines, saved after every block; a run that was interrupted goes on from them.
        seed: Of the writer.
        progress: Told the number of rows done.

    Raises:
        DataError: If not a single text was kept.
    """
    checks = rejections or Rejections()
    alike = SIMILARITIES[options.similarity]

    def judge(written: Written, text: str) -> tuple[float, str | None]:
        value = alike(written.answer, text)
        is_nearer = value >= min((1.0, *written.similarity))
        return value, checks.reason(text, written.answer, written.texts) or (
            "not further away" if is_nearer else None
        )

    def one_block(block: Sequence[Example]) -> list[Written]:
        done = {row.id: _fresh(row, writer) for row in block}
        active = list(block)
        for level in range(1, options.levels + 1):

            def request(row: Example, attempt: int, level: int = level) -> Request:
                previous = (row.answer or "", *done[row.id].texts)[-1]
                return Request(row=row, previous=previous, level=level, attempt=attempt)

            seeds = [draw(2**31, seed, "negatives", level, attempt) for attempt in range(options.retries)]
            kept = _ask(active, done, writer, seeds, request, judge)
            active = [row for row in kept if done[row.id].similarity[-1] > options.stop_similarity]
            if not active:
                break
        return list(done.values())

    return _in_blocks("negatives", rows, one_block, _run(writer, options, seed), path, progress)


def write_alternates(
    rows: Sequence[Example],
    writer: Writer,
    options: AlternateOptions,
    *,
    rejections: Rejections | None = None,
    path: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Written]:
    """Write alternate answers (arXiv:2409.13474, section 3): each asked for from the gold answer, all different.

    Args and errors are those of `write_negatives`.
    """
    checks = rejections or Rejections()

    def judge(written: Written, text: str) -> tuple[float, str | None]:
        return SIMILARITIES["rouge"](written.answer, text), checks.reason(text, written.answer, written.texts)

    def request(row: Example, attempt: int) -> Request:
        return Request(row=row, previous=row.answer or "", level=_PLAUSIBLE)

    def one_block(block: Sequence[Example]) -> list[Written]:
        done = {row.id: _fresh(row, writer) for row in block}
        for number in range(options.alternates):
            seeds = [draw(2**31, seed, "alternates", number, attempt) for attempt in range(options.retries)]
            _ask(block, done, writer, seeds, request, judge)
        return list(done.values())

    return _in_blocks("alternates", rows, one_block, _run(writer, options, seed), path, progress)


_PLAUSIBLE = 2
"""The level at which rules write another fact in the gold answer's own form."""


def _ask(
    rows: Sequence[Example],
    done: dict[str, Written],
    writer: Writer,
    seeds: Sequence[int],
    request: Callable[[Example, int], Request],
    judge: Callable[[Written, str], tuple[float, str | None]],
) -> list[Example]:
    """Ask for one more text for each row, once with each seed until one can be kept; return the rows that have one."""
    for row in rows:
        done[row.id] = replace(done[row.id], asked=(*done[row.id].asked, 0))
    pending, kept = list(rows), list[Example]()
    for attempt, seed in enumerate(seeds):
        texts = writer.write([request(row, attempt) for row in pending], seed=seed) if pending else []
        still: list[Example] = []
        for row, text in zip(pending, texts, strict=True):
            value, reason = judge(done[row.id], text)
            done[row.id] = _counted(done[row.id], text, value, reason)
            (still if reason else kept).append(row)
        pending = still
    return kept


def _in_blocks(
    kind: Kind,
    rows: Sequence[Example],
    one_block: Callable[[Sequence[Example]], list[Written]],
    run: str,
    path: Path | None,
    progress: Progress | None,
) -> list[Written]:
    """Write what is missing, block by block, and save after each."""
    finished = keep_finished(path, kind, run)
    left = [row for row in rows if row.id not in finished or finished[row.id].answer != row.answer]
    for start in range(0, len(left), BLOCK):
        for written in one_block(left[start : start + BLOCK]):
            finished[written.id] = replace(written, run=run)
        so_far = [finished[row.id] for row in rows if row.id in finished]
        if path is not None:
            write_written(path, kind, so_far)
        if progress is not None:
            progress(f"writing {kind}", len(so_far), len(rows))
    result = [finished[row.id] for row in rows]
    if not any(written.texts for written in result):
        reasons = Counter(reason for written in result for reason in written.rejected)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        raise DataError(
            f"{result[0].writer} was asked for {sum(reasons.values())} {kind} and none could be kept ({listed}); use "
            "a model that follows instructions, another prompt, or a file of your own."
        )
    return result


def _fresh(row: Example, writer: Writer) -> Written:
    return Written(
        id=row.id, question=row.conversation[-1].content, answer=row.answer or "", writer=writer.name
    )


def _counted(written: Written, text: str, similarity: float, reason: str | None) -> Written:
    """Return a row's record with one more text asked for, and kept unless there is a reason against it."""
    asked = (*written.asked[:-1], written.asked[-1] + 1)
    if reason is not None:
        return replace(written, asked=asked, rejected=(*written.rejected, reason))
    return replace(
        written, asked=asked, texts=(*written.texts, text), similarity=(*written.similarity, similarity)
    )


def _run(writer: Writer, options: NegativeOptions | AlternateOptions, seed: int) -> str:
    return fingerprint([writer.name, options, seed])[:16]


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".!")
