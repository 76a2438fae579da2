"""Every method of every package, under the name a user types."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from eval.errors import ConfigError, UnknownNameError
from eval.registry import Registry
from eval.types import UnlearningMethod

__all__ = ["DEFAULT_METHODS", "Factory", "make_method", "method_names", "parse_overrides", "preload"]

Factory: TypeAlias = Callable[[Mapping[str, Any]], UnlearningMethod]
"""Builds a method from a user's overrides of its settings."""

DEFAULT_METHODS = ("graddiff", "npo", "npo-rt", "grun-gd", "grun-idk", "grun-npo", "guard", "guard-refuse")
"""What `unlearn compare` runs when no methods are named."""

_PACKAGES: Registry[Mapping[str, Factory]] = Registry(
    "method",
    {
        "finetune_baselines": "finetune_baselines.method:METHODS",
        "grun": "grun.method:METHODS",
        "guard": "guard.method:METHODS",
    },
)

_WHEN_RUN = {
    "finetune_baselines": ("finetune_baselines.run", "peft"),
    "grun": ("finetune_baselines.run", "grun.training", "grun.intervention"),
    "guard": ("faiss", "sentence_transformers"),
}
"""Large modules that each package imports when a method of it runs."""

_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
"""Numbers such as 1e-4, which YAML 1.1 reads as text."""


def _factories() -> dict[str, Factory]:
    """Map every method's name to its factory; a plug-in package may not replace a built-in name."""
    found: dict[str, Factory] = {}
    for package in _PACKAGES:
        for name, factory in _PACKAGES[package].items():
            found.setdefault(name, factory)
    return found


def method_names() -> list[str]:
    """Return every method's name, package by package."""
    return list(_factories())


def make_method(name: str, overrides: Mapping[str, Any] | None = None) -> UnlearningMethod:
    """Build a method with some of its settings changed.

    Raises:
        UnknownNameError: If there is no such method.
        ConfigError: If a setting is unknown or out of range.
    """
    factories = _factories()
    if name not in factories:
        raise UnknownNameError("method", name, factories)
    return factories[name](dict(overrides or {}))


def preload(method: UnlearningMethod) -> None:
    """Import what the methods of a package import when the first of them runs.

    Neither seconds nor memory of it are the method's own: they depend on which one comes first.
    """
    for module in _WHEN_RUN.get(type(method).__module__.partition(".")[0], ()):
        with contextlib.suppress(ImportError):  # whoever needs it says what is missing
            importlib.import_module(module)


def parse_overrides(pairs: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Turn ``--set`` values into settings for each method.

    ``key=value`` goes to every method, ``method.key=value`` to one; values are read as YAML.

    Raises:
        ConfigError: If a pair has no ``=`` or names a method that does not run.
    """
    import yaml

    overrides: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair!r} is not key=value; write for example --set npo.beta=0.2.")
        try:
            value = float(text) if _EXPONENT.fullmatch(text.strip()) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {pair!r}: {text!r} cannot be read as a YAML value; quote it.") from None
        method, dot, name = key.partition(".")
        if not dot:
            for settings in overrides.values():
                settings[key] = value
        elif method in overrides:
            overrides[method][name] = value
        else:
            raise ConfigError(
                f"--set {pair!r} is for {method!r}, which does not run here; methods: {', '.join(methods)}."
            )
    return overrides
