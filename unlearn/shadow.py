"""Notice a folder in the working directory that hides one of our packages from Python."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["refuse_if_shadowed", "shadowing_folder"]

PACKAGES = ("eval", "guard", "grun", "finetune_baselines", "unlearn")


def shadowing_folder(directory: Path) -> str | None:
    """Return a sentence about a folder in ``directory`` that has the name of one of our packages and is not ours.

    A folder with an ``__init__.py`` is imported in place of ours by every script started there and by
    ``python -m``. One named ``eval`` is refused without it too: the name is common, and a file added to it later
    would change what a resumed run imports.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        folder = directory / name
        hides = name == "eval" or (folder / "__init__.py").is_file()
        if folder.is_dir() and hides and folder.resolve() != home / name:
            return (
                f"The folder {name!r} in the working directory ({directory}) has the name of one of this toolkit's "
                "packages, and Python started there may import it in place of ours; "
                "rename it, or work from another folder."
            )
    return None


def refuse_if_shadowed() -> None:
    """Exit with code 2 and one sentence where a folder of the working directory may hide a package of ours."""
    sentence = shadowing_folder(Path.cwd())
    if sentence is not None:
        print(f"Error: {sentence}", file=sys.stderr)
        raise SystemExit(2)
