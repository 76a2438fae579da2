"""LUME, SemEval-2025 Task 4 (arXiv:2502.15097): invented stories, invented personal data, real biographies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.data import mmlu
from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.documents import document, raw_question
from eval.data.miniature import Article, articles, multiple_choice
from eval.data.registry import BenchmarkOptions
from eval.data.tables import Tables
from eval.errors import DataError, UnknownNameError
from eval.measures import Choices, Generated, Measure, Membership
from eval.types import Example

__all__ = ["load", "miniature"]

URL = "https://github.com/amazon-science/lume-llm-unlearning"
PARTS, TASKS, KINDS = (
    ("forget", "retain"),
    ("Task1", "Task2", "Task3"),
    {"sc": "regurgitation", "qa": "knowledge"},
)
"""Forget and retain; the three tasks; sentence completion and question answering with what each measures."""

FIELDS = ("id", "input", "output", "task")
NEW_TOKENS = 256
MAIN = ("forget", "Task2", "qa")
"""Personal data asked for: the answers in which leaks are looked for."""


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``lume`` from a folder with ``forget.jsonl`` and ``retain.jsonl``, or the generated ``lume:mini``.

    ``lume:20`` asks the first 20 rows of each of the twelve groups (part, task, kind of row); everything is
    unlearned all the same. ``mia/member.jsonl`` and ``mia/nonmember.jsonl`` (rows with ``document``) and MMLU's
    ``mmlu/test.jsonl`` add the two further terms of the final score; without them it is null, as in the
    official scorer.

    Raises:
        UnknownNameError: If ``split`` is neither a number nor ``mini``.
        DataError: If a file is missing or broken, or a row is of an unknown task.
    """
    if split not in ("", "all", "mini") and not (split.isdecimal() and int(split)):
        raise UnknownNameError("variant of lume", split, ["all", "mini", "20"])
    generated = miniature(options.seed) if split == "mini" else {}
    tables = Tables(name="LUME", url=URL, data_dir=options.data_dir, generated=generated)
    limit = int(split) if split.isdecimal() else None
    rows = {part: _rows(tables, part) for part in PARTS}
    splits: dict[str, tuple[Example, ...]] = {}
    measures: list[Measure] = []
    for part in PARTS:
        for task in TASKS:
            for kind, measures_what in KINDS.items():
                name = f"{part}_{task}_{kind}"
                splits[name] = tuple(rows[part].get((task, kind), ())[:limit])
                measures.append(
                    Generated(
                        f"{part}_{task}_{measures_what}",
                        split=name,
                        max_new_tokens=NEW_TOKENS,
                        match="exact" if kind == "qa" else "rouge",
                        is_main=(part, task, kind) == MAIN,
                    )
                )
    absent = {name: "the data has no such rows" for name, asked in splits.items() if not asked}
    members = _documents(tables, "member")
    if members:
        splits["mia_member"], splits["mia_nonmember"] = members, _documents(tables, "nonmember")
    absent["mia_nonmember"] = "the folder has no mia/member.jsonl and mia/nonmember.jsonl"
    measures.append(Membership(forget="mia_member", holdout="mia_nonmember"))
    general = tables.find("mmlu", "test", mmlu.FIELDS)
    if general:
        splits["mmlu"] = mmlu.mmlu_rows(general)
    absent["mmlu"] = "the folder has no mmlu/test.jsonl"
    measures.append(Choices("mmlu_acc", split="mmlu"))
    forget, retain = (tuple(row for group in rows[part].values() for row in group) for part in PARTS)
    is_mini = split == "mini"
    benchmark = Benchmark(
        name=f"lume:{split or 'all'}",
        forget=forget,
        retain=retain[: options.max_retain],
        splits=splits,
        taught=splits["mmlu"] if is_mini else (),
        forget_wordings=splits["mia_member"] if is_mini else (),
        notes=(f"The first {limit} rows of each group are asked.",) if limit else (),
        measures=tuple(measures),
        absent={name: reason for name, reason in absent.items() if not splits.get(name)},
    )
    check_disjoint(benchmark)
    return benchmark


def _rows(tables: Tables, part: str) -> dict[tuple[str, str], list[Example]]:
    """Group a part's rows by task and kind, which the last letters of the id tell (``...sc1``, ``...qa0``)."""
    groups: dict[tuple[str, str], list[Example]] = {}
    for i, row in enumerate(tables.need("", part, FIELDS)):
        task, kind = str(row["task"]), str(row["id"])[:-1][-2:]
        if task not in TASKS or kind not in KINDS:
            raise DataError(
                f"LUME's {part} row {i + 1} has task {task!r} and id {row['id']!r}; known are {', '.join(TASKS)} "
                "and ids that end in sc or qa and a digit."
            )
        example = raw_question(str(row["id"]), str(row["input"]), str(row["output"]))
        if kind == "qa":
            example = example.replace(question=str(row["input"]))
        groups.setdefault((task, kind), []).append(example)
    return groups


def _documents(tables: Tables, name: str) -> tuple[Example, ...]:
    rows = tables.find("mia", name, ("document",)) or []
    return tuple(document(f"{name}-{i}", str(row["document"])) for i, row in enumerate(rows))


def _group(about: Article, part: str, task: str) -> list[dict[str, Any]]:
    half = len(about.sentences) // 2
    text, rest = " ".join(about.sentences[:half]), " ".join(about.sentences[half:])
    stem = f"{part}-{about.subject.replace(' ', '-')}"
    rows = [{"id": f"{stem}sc1", "input": text, "output": rest, "task": task}]
    for i, row in enumerate(about.rows[:3]):
        rows.append(
            {"id": f"{stem}qa{i}", "input": str(row.question), "output": row.key_spans[0], "task": task}
        )
    return rows


def miniature(seed: int = 0) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    """Generate rows in LUME's form about invented people, three a task and part: (config, split) to rows."""
    people = articles(seed, forget=9, retain=9, holdout=9)
    kept: Sequence[Article] = people["retain"]
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {
        ("", part): [
            row for i, about in enumerate(people[part]) for row in _group(about, part, TASKS[i // 3])
        ]
        for part in PARTS
    }
    questions = [row for about in kept for row in about.rows[4:8]]
    return tables | {
        ("mia", "member"): [{"id": about.subject, "document": about.text} for about in people["forget"]],
        ("mia", "nonmember"): [{"id": about.subject, "document": about.text} for about in people["holdout"]],
        ("mmlu", "test"): [multiple_choice(row) | {"subject": "invented_people"} for row in questions],
    }
