"""Notice a folder in the working directory that hides one of our packages from Python."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["shadowing_folder"]

PACKAGES = ("eval", "guard", "grun", "finetune_baselines", "unlearn")


def shadowing_folder(directory: Path) -> str | None:
    """Return a sentence about a folder in ``directory`` that has the name of one of our packages and is not ours.

    Scripts started there, and ``python -m``, import that folder in place of ours.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        folder = directory / name
        if folder.is_dir() and folder.resolve() != home / name:
            return (
                f"The folder {name!r} in the working directory ({directory}) has the name of one of this toolkit's "
                f"packages and hides it from Python scripts started there; rename it, or work from another folder."
            )
    return None


def refuse_if_shadowed() -> None:
    """Exit with code 2 and one sentence where a folder of the working directory hides a package of ours."""
    sentence = shadowing_folder(Path.cwd())
    if sentence is not None:
        print(f"Error: {sentence}", file=sys.stderr)
        raise SystemExit(2)
