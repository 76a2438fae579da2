"""A run folder: who works in it, what is finished in it, and whether that still answers the question asked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import read_json, writable_dir, write_json
from eval.errors import ArtifactError, ConfigError
from eval.report import BenchmarkInfo, RunInfo, Section
from eval.types import Progress
from unlearn.located import is_same

if TYPE_CHECKING:
    from eval.data import Benchmark

__all__ = [
    "Finished",
    "aged",
    "benchmark_info",
    "labelled",
    "locked_run",
    "read_finished",
    "read_sections",
    "read_trained",
    "refuse_other_run",
    "slug",
    "start_stage",
    "write_finished",
    "write_trained",
]

STARTED, TRAINED, RECORD = "stage.json", "trained.json", "result.json"
"""What a stage's folder says: that it is ours, that its model is made, and what was measured of it."""
RECORD_VERSION = 2
_PACKAGES = ("unlearn-toolkit", "torch", "transformers")
"""Whose versions are recorded with a row, since its numbers may depend on them."""


@dataclass(frozen=True)
class Finished:
    """One finished stage of a run: what it cost and what was measured."""

    info: RunInfo
    results: dict[str, dict[str, Any]]


def slug(text: str) -> str:
    """Turn a name into a folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "run"


@contextmanager
def locked_run(directory: Path) -> Iterator[Path]:
    """Make the run folder and hold it for this process.

    Raises:
        ConfigError: If the folder cannot be written to, or another process works in it.
    """
    from filelock import FileLock, Timeout

    writable_dir(directory)
    lock = FileLock(directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"The run folder {directory} is in use by another process; wait for it, or choose another --output-dir."
        ) from None
    try:
        yield directory
    finally:
        lock.release()


def benchmark_info(benchmark: Benchmark) -> BenchmarkInfo:
    """Say which questions were asked, and how many."""
    return BenchmarkInfo(
        name=benchmark.name,
        splits={name: len(rows) for name, rows in benchmark.splits.items()},
        notes=list(benchmark.notes),
    )


def refuse_other_run(directory: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that holds the run of another model or benchmark: its work would be thrown away.

    Raises:
        ConfigError: With what the folder holds.
    """
    import yaml

    path = directory / "config.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    for name in ("benchmark", "model"):
        if isinstance(before, dict) and name in config and not is_same(name, before, config):
            raise ConfigError(
                f"{directory} holds a run with {name} {before[name]!r}, and this one has {config[name]!r}; "
                "choose another --output-dir, or remove that folder."
            )


def labelled(progress: Progress | None, label: str) -> Progress | None:
    """Return a progress that names ``label`` before each stage it is told of."""
    if progress is None:
        return None

    def tell(what: str, done: int, total: int) -> None:
        progress(f"{label}: {what}", done, total)

    return tell


def start_stage(directory: Path, key: str) -> Path:
    """Return the folder of a stage: an interrupted one of the same key is kept, to be resumed; another is emptied.

    Raises:
        ArtifactError: If the folder holds something that no stage of ours wrote.
    """
    started = directory / STARTED
    if directory.exists() and any(directory.iterdir()):
        if not started.is_file():
            raise ArtifactError(
                f"{directory} is not empty and no run of ours wrote it; choose another --output-dir."
            )
        if read_json(started).get("key") != key:
            shutil.rmtree(directory)
    write_json(started, {"record_version": RECORD_VERSION, "key": key})
    return directory


def write_trained(directory: Path, key: str, info: RunInfo) -> None:
    """Record that a stage's model is made; ``key`` fingerprints everything it depends on."""
    _write_record(directory / TRAINED, key, {"info": asdict(info)})


def read_trained(directory: Path, key: str) -> RunInfo | None:
    """Return what making a stage's model cost, or ``None`` if it is not made or what it depends on has changed."""
    value = _read_record(directory / TRAINED, key)
    return None if value is None else RunInfo(**value["info"])


def write_finished(directory: Path, key: str, finished: Finished) -> None:
    """Record that a stage is done; ``key`` fingerprints everything its numbers depend on."""
    _write_record(directory / RECORD, key, {"info": asdict(finished.info), "results": finished.results})


def read_finished(directory: Path, key: str) -> Finished | None:
    """Return what a stage found, or ``None`` if it was never finished or something it depends on has changed."""
    value = _read_record(directory / RECORD, key)
    return None if value is None else Finished(RunInfo(**value["info"]), value["results"])


def aged(directory: Path) -> list[str]:
    """Return a sentence for each part of a finished stage that other versions than the present ones made."""
    notes: list[str] = []
    for name, what in ((TRAINED, "Trained"), (RECORD, "Measured")):
        before = read_json(directory / name)["versions"] if (directory / name).is_file() else {}
        others = [
            f"{package} {before[package]} (now {current})"
            for package, current in _versions().items()
            if before.get(package, current) != current
        ]
        if others:
            notes.append(f"{what} with {', '.join(others)}; remove its folder to make it anew.")
    return notes


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def _write_record(path: Path, key: str, content: Mapping[str, Any]) -> None:
    write_json(path, {"record_version": RECORD_VERSION, "key": key, "versions": _versions(), **content})


def _read_record(path: Path, key: str) -> dict[str, Any] | None:
    value: dict[str, Any] = read_json(path) if path.is_file() else {}
    is_current = (value.get("record_version"), value.get("key")) == (RECORD_VERSION, key)
    return value if is_current else None


def read_sections(directory: Path) -> list[Section]:
    """Return what a method left in its folder for the report, such as who wrote the answers it trained on."""
    path = directory / "sections.json"
    return [Section(**value) for value in read_json(path)] if path.is_file() else []
