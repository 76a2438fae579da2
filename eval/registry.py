"""A lazy registry: names to ``"module:attribute"`` targets, imported when first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from eval.errors import UnknownNameError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind of thing, each resolved to its object on first use.

    Third parties add to a registry through the entry-point group ``unlearn.<kind>s``
    (for example ``unlearn.methods``); a built-in name wins over an entry point of the same name.

    Args:
        kind: What is registered, in the singular; used in error messages.
        targets: Name to ``"package.module:attribute"``.
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)
        self._plugins_read = False

    def _read_plugins(self) -> None:
        if not self._plugins_read:
            self._plugins_read = True
            for point in entry_points(group=f"unlearn.{self.kind}s"):
                self._targets.setdefault(point.name, point.value)

    def __getitem__(self, name: str) -> T:
        """Return the object registered as ``name``.

        Raises:
            UnknownNameError: If no such name is registered; the message names the nearest.
        """
        self._read_plugins()
        if name not in self._targets:
            raise UnknownNameError(self.kind, name, self._targets)
        module, _, attribute = self._targets[name].partition(":")
        return cast(T, getattr(importlib.import_module(module), attribute))

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        self._read_plugins()
        return iter(self._targets)

    def __len__(self) -> int:
        self._read_plugins()
        return len(self._targets)
