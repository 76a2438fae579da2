"""Before a run: the other answers that its recipe trains on, read from a user's file or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eval.data.pairing import draw
from eval.errors import DataError
from eval.models.language_model import LanguageModel
from eval.processes import is_main, wait
from eval.report import Section
from eval.types import Progress, UnlearningData
from finetune_baselines.generators import choose_writer
from finetune_baselines.negatives import Rejections, write_answers
from finetune_baselines.recipes.base import Recipe
from finetune_baselines.recipes.written import AlternateOptions, NegativeOptions, Subsample
from finetune_baselines.sections import written_section
from finetune_baselines.written_answers import Kind, Written, read_answers

__all__ = ["subsampled", "supply", "written_for"]


def supply(
    lm: LanguageModel,
    recipe: Recipe,
    data: UnlearningData,
    folder: Path | None,
    *,
    seed: int,
    progress: Progress | None,
) -> tuple[UnlearningData, list[Section]]:
    """Return the data with the negatives and alternates that a recipe needs, and what a report says about them.

    Answers that were given with the data stay. Those that are written are kept in ``folder`` as JSON lines.

    Raises:
        DataError: If nobody can write them, or none could be kept.
    """
    sections: list[Section] = []
    if Subsample in recipe.extras:
        data = subsampled(data, recipe.get(Subsample).subsample, seed)
    if "negative" in recipe.answer_kinds and not data.negatives:
        options = recipe.get(NegativeOptions)
        written = written_for(lm, data, "negatives", options, folder, seed=seed, progress=progress)
        last = slice(-1, None) if options.use_levels == "last" else slice(None)
        data = replace(data, negatives={row.id: row.texts[last] for row in written})
        sections.append(written_section("negatives", written, recipe.name))
    if "alternate" in recipe.answer_kinds and not data.alternates:
        given = recipe.get(AlternateOptions)
        written = written_for(lm, data, "alternates", given, folder, seed=seed, progress=progress)
        data = replace(data, alternates={row.id: row.texts for row in written})
        sections.append(written_section("alternates", written, recipe.name))
    return data, sections


def subsampled(data: UnlearningData, share: float, seed: int) -> UnlearningData:
    """Return the data with each forget and each retain row kept with probability ``share``, in their order.

    Raises:
        DataError: If no forget row is left, or no retain row of those there were.
    """
    if share == 1.0:
        return data
    drawn = {
        side: tuple(
            row for i, row in enumerate(rows) if draw(10**6, seed, "subsample", side, i) < share * 10**6
        )
        for side, rows in (("forget", data.forget), ("retain", data.retain))
    }
    if not drawn["forget"] or (data.retain and not drawn["retain"]):
        raise DataError(f"subsample={share} leaves no forget row or no retain row; raise it.")
    return replace(data, forget=drawn["forget"], retain=drawn["retain"])


def written_for(
    lm: LanguageModel,
    data: UnlearningData,
    kind: Kind,
    options: NegativeOptions | AlternateOptions,
    folder: Path | None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sequence[Written]:
    """Read or write the other answers of the forget rows.

    Args:
        lm: The model that is to unlearn.
        data: The rows.
        kind: What to write.
        options: Where from and how.
        folder: Where ``negatives.jsonl`` or ``alternates.jsonl`` is kept.
        seed: Of the writer.
        progress: Told the number of rows done.

    Raises:
        DataError: If the file is broken or about other rows, nobody can write, or none could be kept.
    """
    if options.file is not None:
        return read_answers(Path(options.file), kind, data.forget)
    path = None if folder is None else folder / f"{kind}.jsonl"
    if path is not None and not is_main():
        wait()
        return read_answers(path, kind, data.forget)
    writer = choose_writer(options.generator, data.forget, lm, prompt=options.prompt, kind=kind)
    checks = Rejections.of(data.retain, data.refusals)
    written = write_answers(
        data.forget, writer, options, rejections=checks, path=path, seed=seed, progress=progress
    )
    if path is not None:
        wait()
    return written
