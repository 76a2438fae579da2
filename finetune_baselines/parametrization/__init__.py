"""Which parameters train: all, the last blocks, or a low-rank adapter; the caller's model is never touched."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from eval.errors import ConfigError, UnknownNameError
from finetune_baselines.parametrization.adalora import AdaLora
from finetune_baselines.parametrization.base import Parametrization
from finetune_baselines.parametrization.fila import Fila
from finetune_baselines.parametrization.lora import Lora, QLora
from finetune_baselines.parametrization.whole import Full, LastBlocks
from finetune_baselines.recipes.base import LoraSettings

__all__ = [
    "PARAMETRIZATIONS",
    "AdaLora",
    "Fila",
    "Full",
    "LastBlocks",
    "Lora",
    "Parametrization",
    "QLora",
    "parametrization",
]

PARAMETRIZATIONS: Mapping[str, type[Parametrization]] = MappingProxyType(
    {part.name: part for part in (Full, LastBlocks, Lora, AdaLora, Fila, QLora)}
)
"""Every parametrization by name."""


def parametrization(name: str, *, lora: LoraSettings | None = None, **options: Any) -> Parametrization:
    """Build a parametrization by name.

    Args:
        name: A key of `PARAMETRIZATIONS`.
        lora: Shape of the adapter, for those that have one.
        options: Its own settings (`Parametrization.options`).

    Raises:
        UnknownNameError: If there is none of that name.
        ConfigError: If it has no such setting, or a value is out of range.
    """
    if name not in PARAMETRIZATIONS:
        raise UnknownNameError("parametrization", name, PARAMETRIZATIONS)
    kind = PARAMETRIZATIONS[name]
    unknown = [key for key in options if key not in kind.options()]
    if unknown:
        raise ConfigError(
            f"Parametrization {name} has no setting {unknown[0]!r}; its own are: {', '.join(kind.options()) or 'none'}."
        )
    if lora is not None and issubclass(kind, Lora):
        options = {"settings": lora, **options}
    return kind(**options)
