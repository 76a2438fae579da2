"""TOFU (arXiv:2401.06121): 200 fictitious authors, 20 questions each, from the hub or a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.jsonl import read_examples
from eval.data.registry import BenchmarkOptions
from eval.errors import DataError, UnknownNameError
from eval.types import Example

__all__ = ["load"]

HUB = "locuslab/TOFU"
SPLITS = ("forget01", "forget05", "forget10", "forget50", "forget90")
PERTURBED = (1, 5, 10)
"""Percentages for which TOFU ships ``forgetNN_perturbed``."""


class _Files:
    """Where TOFU's files come from."""

    def __init__(self, data_dir: Path | None) -> None:
        if data_dir is not None and not data_dir.is_dir():
            raise DataError(
                f"There is no data folder {data_dir}; check --data-dir, or leave it out to use the hub."
            )
        self.data_dir = data_dir

    def path(self, name: str) -> Path | None:
        """Return the local path of one of TOFU's files, or ``None`` where there is none."""
        if self.data_dir is not None:
            path = self.data_dir / name
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(HUB, name, repo_type="dataset"))
        except LocalEntryNotFoundError:
            raise DataError(
                f"TOFU's {name} could not be fetched from the hub ({HUB}); "
                "check the connection, or give a local folder with --data-dir."
            ) from None
        except EntryNotFoundError:
            return None

    def read(self, name: str) -> tuple[Example, ...] | None:
        """Return the rows of one of TOFU's files, or ``None`` where there is no such file."""
        path = self.path(name)
        return None if path is None else read_examples(path)

    def need(self, name: str) -> tuple[Example, ...]:
        """Return the rows of a file that the benchmark cannot do without."""
        rows = self.read(name)
        if rows is None:
            raise DataError(
                f"{self.data_dir or HUB} has no {name}, which TOFU's evaluation needs; "
                f"get it from https://huggingface.co/datasets/{HUB}."
            )
        return rows


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``tofu:forgetNN``; splits without a file of their own are cut from ``full``.

    Raises:
        UnknownNameError: If ``split`` is not ``forget01`` to ``forget90``.
        DataError: If a file is missing or broken.
    """
    match = re.fullmatch(r"forget(\d\d)", split)
    percent = int(match[1]) if match else 0
    if not 1 <= percent <= 99:
        raise UnknownNameError("split of tofu", split, SPLITS)
    files = _Files(options.data_dir)
    notes: list[str] = []
    absent: dict[str, str] = {}
    forget, retain = _forget_and_retain(files, percent)
    tested = f"forget{percent:02d}_perturbed.json" if percent in PERTURBED else "forget10_perturbed.json"
    if percent not in PERTURBED:
        notes.append(
            f"TOFU ships perturbed answers for forget01, 05 and 10 only: forget metrics of {split} come from "
            + (
                "forget10_perturbed's 400 rows."
                if percent > 10
                else "those rows of forget10_perturbed it contains."
            )
        )
    splits = {
        "forget": files.need(tested),
        "retain": files.need("retain_perturbed.json"),
        "ra": files.need("real_authors_perturbed.json"),
        "wf": files.need("world_facts_perturbed.json"),
    }
    if percent < 10 and percent not in PERTURBED:
        splits["forget"] = tuple(
            row.replace(id=str(i)) for i, row in enumerate(splits["forget"][-len(forget) :])
        )
    if percent > 90:
        taught_answers = {(row.question, row.answer) for row in retain}
        splits["retain"] = tuple(r for r in splits["retain"] if (r.question, r.answer) in taught_answers)
        notes.append(f"retain_perturbed is cut to the {len(splits['retain'])} rows that {split} keeps.")
    holdout = read_examples(options.holdout) if options.holdout else files.read(f"holdout{percent:02d}.json")
    if holdout is None:
        absent["holdout"] = (
            f"TOFU has no holdout rows for {split} here; give rows no model was taught (--holdout FILE)"
        )
    else:
        splits["holdout"] = holdout
    if options.max_retain is not None and len(retain) > options.max_retain:
        retain = retain[: options.max_retain]
        notes.append(
            f"Taught and kept: {options.max_retain} retain rows (--max-retain), those that retain_perturbed "
            "tests first."
        )
        if options.max_retain < len(splits["retain"]):
            splits["retain"] = splits["retain"][: options.max_retain]
    benchmark = Benchmark(
        name=f"tofu:{split}",
        forget=forget,
        retain=retain,
        splits=splits,
        taught=tuple(row.replace(id=f"{name}-{row.id}") for name in ("ra", "wf") for row in splits[name]),
        refusals=_refusals(files),
        notes=tuple(notes),
        absent=absent,
    )
    check_disjoint(benchmark)
    return benchmark


def _forget_and_retain(files: _Files, percent: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Read both files, or cut ``full``: forget is its last ``percent`` %, retain what stands before."""
    forget = files.read(f"forget{percent:02d}.json")
    retain = files.read(f"retain{100 - percent}.json")
    if forget is None or retain is None:
        full = files.need("full.json")
        cut = len(full) - round(len(full) * percent / 100)
        forget = tuple(row.replace(id=str(i)) for i, row in enumerate(full[cut:]))
        retain = full[:cut]
    return forget, retain


def _refusals(files: _Files) -> tuple[str, ...]:
    """TOFU's "I don't know" answers: plain lines, in its code repository rather than on the hub."""
    if files.data_dir is None or not (files.data_dir / "idontknow.jsonl").is_file():
        return ()
    lines = (files.data_dir / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
