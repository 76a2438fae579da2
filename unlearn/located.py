"""Where the files that a run's `config.yaml` names stood: a relative path alone works from one folder only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn.config import CompareConfig

__all__ = ["is_same", "locate", "place", "relocated"]

_NAMING = ("model", "oracle", "benchmark", "data_dir", "holdout", "retain_file", "reference")
"""Settings that may name a file or folder."""
_OF_FILES = ("jsonl", "text")
"""Families of benchmarks that are called after their file."""


def locate(config: CompareConfig) -> dict[str, str]:
    """Return the absolute path of each relative one that ``config`` names, by the text it was given as.

    What does not exist from here keeps the path an earlier run knew.
    """
    places = {
        name: str(path.resolve()) if path.exists() else config.located.get(name)
        for name in _named(config)
        if not (path := Path(name)).is_absolute()
    }
    return {name: path for name, path in places.items() if path is not None}


def relocated(config: CompareConfig) -> CompareConfig:
    """Return ``config`` as it can be followed from here: what does not exist here is named by where it stood."""
    gone = {name: path for name, path in config.located.items() if not Path(name).exists()}
    changes = {
        setting: type(value)(place(str(value), gone))
        for setting in _NAMING
        if (value := getattr(config, setting)) is not None
    }
    return config.model_copy(update=changes)


def place(given: str, located: Mapping[str, str]) -> str:
    """Return ``given`` (a path, or a benchmark such as ``jsonl:FILE``) with its path replaced by the known one."""
    family, colon, rest = given.partition(":")
    if given in located:
        return located[given]
    return f"{family}:{located[rest]}" if colon and rest in located else given


def is_same(setting: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two configurations name the same thing, if from two folders in two ways."""
    old, new = before.get(setting, now[setting]), now[setting]
    return bool(
        old == new or place(str(old), before.get("located", {})) == place(str(new), now.get("located", {}))
    )


def _named(config: CompareConfig) -> Iterator[str]:
    """Yield every text of ``config`` that may be a path."""
    for setting in _NAMING:
        text = str(getattr(config, setting) or "")
        family, _, rest = text.partition(":")
        if setting == "benchmark":
            text = rest if family in _OF_FILES else ""
        if text and family != "scratch":
            yield text
