"""WMDP (arXiv:2403.03218): multiple choice on hazardous knowledge, its corpora to unlearn, MMLU for what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.data import mmlu
from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.choices import choice_rows
from eval.data.documents import chunks, document
from eval.data.miniature import articles, multiple_choice
from eval.data.registry import BenchmarkOptions
from eval.data.tables import Tables
from eval.errors import UnknownNameError
from eval.measures import Choices
from eval.types import Example

__all__ = ["load", "miniature"]

HUB, CORPORA = "cais/wmdp", "cais/wmdp-corpora"
TOPICS = {"bio": "biology", "chem": "chemistry", "cyber": "cybersecurity"}
"""Subset to the topic that the prompt names (lm-evaluation-harness' wording)."""

FIELDS = ("question", "choices", "answer")
MINI = "mini"


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``wmdp:bio``, ``wmdp:chem``, ``wmdp:cyber``, ``wmdp:all`` or the generated, harmless ``wmdp:mini``.

    From the hub, or from a folder with ``wmdp-bio/test.jsonl`` (likewise ``chem``, ``cyber``), corpora to unlearn
    from in ``bio-forget-corpus/train.jsonl`` and ``bio-retain-corpus/train.jsonl`` (rows with ``text``), and MMLU
    in ``mmlu/test.jsonl``. Without a corpus models can be evaluated but nothing can be unlearned; the biology
    corpus is given out on request only.

    Raises:
        UnknownNameError: If there is no such subset.
        DataError: If a file is missing or broken.
    """
    names = [MINI] if split == MINI else list(TOPICS) if split in ("", "all") else [split]
    if not set(names) <= {*TOPICS, MINI}:
        raise UnknownNameError("subset of wmdp", split, [*TOPICS, "all", MINI])
    generated = miniature(options.seed) if split == MINI else {}
    tables = Tables(name="WMDP", hub=HUB, data_dir=options.data_dir, generated=generated)
    topics = TOPICS | {MINI: "invented people"}
    splits = {
        f"wmdp_{name}": choice_rows(
            tables.need(f"wmdp-{name}", "test", FIELDS), topics[name], prefix=f"{name}-"
        )
        for name in names
    }
    forget, retain = (_corpus(options, generated, names, part) for part in ("forget", "retain"))
    if options.max_retain is not None:
        retain = retain[: options.max_retain]
    notes = (
        []
        if forget
        else ["No forget corpus was found: models can be evaluated, but nothing can be unlearned."]
    )
    measures = [Choices(f"wmdp_{name}_acc", split=f"wmdp_{name}") for name in names]
    absent: dict[str, str] = {}
    general = _general(options, generated)
    if general:
        splits["mmlu"] = general
        measures.append(Choices("mmlu_acc", split="mmlu"))
    else:
        absent["mmlu"] = "the folder has no mmlu/test.jsonl"
    benchmark = Benchmark(
        name=f"wmdp:{split or 'all'}",
        forget=forget,
        retain=retain,
        splits=splits,
        taught=splits["mmlu"] if split == MINI else (),
        forget_wordings=splits["wmdp_mini"] if split == MINI else (),
        notes=tuple(notes),
        measures=tuple(measures),
        absent=absent,
    )
    if forget:
        check_disjoint(benchmark)
    return benchmark


def _corpus(
    options: BenchmarkOptions,
    generated: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    names: Sequence[str],
    part: str,
) -> tuple[Example, ...]:
    if not generated and options.data_dir is None and part == "forget" and "cyber" not in names:
        return ()  # the hub's public corpora hold a forget part for cyber alone
    tables = Tables(name="WMDP", hub=CORPORA, data_dir=options.data_dir, generated=generated)
    examples: list[Example] = []
    for name in names:
        rows = tables.find(f"{name}-{part}-corpus", "train", ("text",)) or []
        for i, row in enumerate(rows):
            for j, piece in enumerate(chunks(str(row["text"]))):
                examples.append(document(f"{name}-{part}-{i}-{j}", piece, subject=row.get("title")))
    return tuple(examples)


def _general(
    options: BenchmarkOptions, generated: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
) -> tuple[Example, ...]:
    local = options.data_dir is not None or bool(generated)
    tables = Tables(name="MMLU", hub=mmlu.HUB, data_dir=options.data_dir, generated=generated)
    rows = tables.find("mmlu" if local else "all", "test", mmlu.FIELDS)
    return mmlu.mmlu_rows(rows or [])


def miniature(seed: int = 0) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Generate harmless rows in WMDP's and MMLU's form about invented people: (config, split) to rows."""
    parts = articles(seed, forget=4, retain=8, holdout=0)
    questions = {
        part: [(about.subject, multiple_choice(row)) for about in people for row in about.rows]
        for part, people in parts.items()
    }
    texts = {
        part: [{"title": about.subject, "text": about.text} for about in people]
        for part, people in parts.items()
    }
    return {
        ("wmdp-mini", "test"): [row for _, row in questions["forget"]],
        ("mini-forget-corpus", "train"): texts["forget"],
        ("mini-retain-corpus", "train"): texts["retain"],
        ("mmlu", "test"): [row | {"subject": "invented_people"} for _, row in questions["retain"]],
    }
