"""TDEC (arXiv:2210.01504): sequences of pre-training text that can be extracted; a CSV file is one forget set."""

from __future__ import annotations

import re

from eval.data.benchmark import Benchmark
from eval.data.documents import document
from eval.data.miniature import articles
from eval.data.registry import BenchmarkOptions
from eval.data.tables import Tables, read_table
from eval.errors import UnknownNameError
from eval.measures import Extraction, Measure, Perplexity

__all__ = ["load"]

URL = "https://github.com/joeljang/knowledge-unlearning (data/main)"
SIZES = (1, 4, 8, 32, 128)
LENGTH, MINI_LENGTH = 200, 60
"""Tokens of a sequence that are looked at."""


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``tdec:32_0`` (``lm_extraction_32_0.csv`` of a folder) or the generated ``tdec:mini``.

    Rows have ``doc_id``, ``corpus`` and ``text``; the first 200 tokens of the tested model count, shorter texts are
    left out and counted. ``--holdout`` gives unseen text (a table with ``text``), whose level is where unlearning
    should stop; ``--retain-file`` gives text to keep.

    Raises:
        UnknownNameError: If there is no such forget set.
        DataError: If the file is missing or broken.
    """
    is_mini = split == "mini"
    name = "mini" if is_mini else f"lm_extraction_{split or '32_0'}"
    if not is_mini and not re.fullmatch(r"lm_extraction_\d+_\d+", name):
        raise UnknownNameError("forget set of tdec", split, [*(f"{size}_0" for size in SIZES), "mini"])
    people = articles(options.seed, forget=4, retain=8, holdout=4) if is_mini else {}
    generated = {
        ("", part): [{"doc_id": a.subject, "corpus": "mini", "text": a.text} for a in group]
        for part, group in people.items()
    }
    tables = Tables(name="TDEC", url=URL, data_dir=options.data_dir, generated=generated)
    rows = {"forget": tables.need("", "forget" if is_mini else name, ("text",))}
    for part, path in (("retain", options.retain_file), ("holdout", options.holdout)):
        rows[part] = generated.get(("", part), []) if path is None else read_table(path)
    texts = {
        part: tuple(document(f"{part}-{i}", str(row["text"])) for i, row in enumerate(given))
        for part, given in rows.items()
    }
    length = MINI_LENGTH if is_mini else LENGTH
    splits = {"forget_text": texts["forget"]}
    measures: list[Measure] = [Extraction("forget", split="forget_text", length=length)]
    if texts["holdout"]:
        splits["unseen_text"] = texts["holdout"]
        measures.append(Extraction("unseen", split="unseen_text", length=length))
    if texts["retain"]:
        splits["retain_text"] = texts["retain"]
        measures.append(Perplexity("retain_perplexity", split="retain_text"))
    return Benchmark(
        name=f"tdec:{split or '32_0'}",
        forget=texts["forget"],
        retain=texts["retain"][: options.max_retain],
        splits=splits,
        measures=tuple(measures),
    )
