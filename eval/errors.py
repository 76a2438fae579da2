"""Errors a user can act on: one sentence each (what happened, what was given, what to do)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ArtifactError", "ConfigError", "DataError", "UnknownNameError", "UnlearnError"]


class UnlearnError(Exception):
    """Base of every error that is the user's to mend; the command line prints it as one line and exits 2."""


class ConfigError(UnlearnError, ValueError):
    """A setting, a flag or an argument is not allowed."""


class DataError(UnlearnError, ValueError):
    """A data file or a set of examples cannot be used."""


class ArtifactError(UnlearnError, ValueError):
    """A saved model, adapter, store or run folder is missing, half-written or does not fit."""


class UnknownNameError(UnlearnError, KeyError):
    """A name is in no registry; the message suggests the nearest one.

    Args:
        kind: What the name should have been, in the singular ("method").
        name: What was given.
        available: Every name that would have been accepted.
    """

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        names = sorted(available)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        super().__init__(f"Unknown {kind} {name!r}. {hint}Available: {', '.join(names) or 'none'}.")

    def __str__(self) -> str:
        return str(self.args[0])
