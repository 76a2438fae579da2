"""A run's own checkpoints: whose they are, which is the newest whole one."""

from __future__ import annotations

import shutil
from pathlib import Path

from eval.artifacts import read_json, write_json
from eval.errors import ArtifactError
from eval.processes import is_main, wait

__all__ = [
    "OBJECTIVE",
    "STATE",
    "TENSORS",
    "WEIGHTS",
    "check_owner",
    "claim",
    "drop_checkpoints",
    "keep_lines",
    "last_checkpoint",
    "step_of",
]

WEIGHTS = "trainable.safetensors"
"""The trained parameters."""
STATE = "trainer_state.json"
"""Written last: a checkpoint without it is half-written."""
OBJECTIVE = "objective.json"
"""Numbers the objective keeps between steps, where it does."""
TENSORS = "objective.safetensors"
"""Tensors it keeps, where it does."""
OWNER = "run.json"
"""Which method with which settings on which data the checkpoints belong to."""


def claim(folder: Path, method: str, run: str) -> bool:
    """Return whether ``folder`` holds checkpoints of the very same run; those of other settings go.

    Args:
        folder: Of the checkpoints; made if missing.
        method: Name of the method.
        run: Fingerprint of everything the run depends on.

    Raises:
        ArtifactError: If they are of another method.
    """
    is_same = check_owner(folder, method, run)
    wait()
    if is_main() and not is_same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / OWNER, {"method": method, "run": run})
    wait()
    return is_same


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of an earlier run: one that starts over would be mistaken for it."""
    wait()
    if is_main():
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
    wait()


def check_owner(folder: Path, method: str, run: str | None = None) -> bool:
    """Return whether the checkpoints in ``folder`` are of the very same run (``None``: of any of that method).

    Raises:
        ArtifactError: If they are of another method.
    """
    if not (folder / OWNER).is_file():
        return False
    owner = read_json(folder / OWNER)
    if owner["method"] != method:
        raise ArtifactError(
            f"{folder} holds the checkpoints of an unfinished run of {owner['method']!r}, which {method!r} cannot "
            "take up; finish that run, remove the folder, or choose another output folder."
        )
    return run is None or bool(owner["run"] == run)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint."""
    complete = [
        path
        for path in folder.glob("checkpoint-*")
        if all((path / name).is_file() for name in (WEIGHTS, STATE))
    ]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return how many steps were done when a checkpoint was written."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def keep_lines(metrics: Path, steps: int) -> None:
    """Keep the first ``steps`` lines of a log: what a resumed run will write again goes."""
    if is_main() and metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines()[:steps]
        metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
