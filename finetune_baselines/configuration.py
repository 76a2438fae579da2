"""From a method's name and a user's overrides to everything a run is defined by."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from eval.errors import ConfigError
from finetune_baselines.parametrization import LastBlocks, Lora, Parametrization, parametrization
from finetune_baselines.presets import PRESETS, auto_preset, preset
from finetune_baselines.recipes import TUNABLE, LoraSettings, Recipe, recipe
from finetune_baselines.training import TrainSettings

__all__ = ["Configuration", "check_overrides", "configure"]

_TRAIN = tuple(field.name for field in fields(TrainSettings))
_LORA = tuple(field.name for field in fields(LoraSettings))
_OWN = ("preset", "parametrization", "blocks")
_NULLABLE: dict[str, type] = {"max_forget_loss": float, "save_steps": int}
_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
ALLOWED = (*_OWN, *TUNABLE, *_TRAIN, *_LORA)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A resolved run."""

    preset: str
    recipe: Recipe
    train: TrainSettings
    parametrization: Parametrization

    def as_json(self) -> dict[str, Any]:
        """Return the flat settings that reports and artifacts show."""
        part = self.parametrization
        shape: dict[str, Any] = {}
        if isinstance(part, Lora):
            shape = asdict(part.settings)
        elif isinstance(part, LastBlocks):
            shape = {"blocks": part.blocks}
        return {
            "preset": self.preset,
            "parametrization": part.name,
            **{name: getattr(self.recipe, name) for name in TUNABLE},
            **asdict(self.train),
            **shape,
        }


def check_overrides(method: str, overrides: Mapping[str, Any]) -> None:
    """Refuse unknown methods, unknown keys, and values that no model could make valid.

    Raises:
        UnknownNameError: If the method, preset or parametrization is unknown.
        ConfigError: If a key is unknown or a value of the wrong kind or out of range; names what is allowed.
    """
    for name in PRESETS if overrides.get("preset", "auto") == "auto" else (overrides["preset"],):
        configure(method, {**overrides, "preset": name}, num_parameters=0)


def configure(method: str, overrides: Mapping[str, Any], *, num_parameters: int) -> Configuration:
    """Resolve preset, then overrides.

    Args:
        method: A name in `RECIPES`.
        overrides: Any of a recipe's tunable fields, a `TrainSettings` or `LoraSettings` field, ``preset``,
            ``parametrization`` and ``blocks``.
        num_parameters: Of the model: ``preset`` ``auto`` (the default) goes by its size.

    Raises:
        UnknownNameError: If the method, preset or parametrization is unknown.
        ConfigError: If a key is unknown or a value of the wrong kind or out of range.
    """
    recipe(method)
    for key in overrides:
        if key not in ALLOWED:
            close = difflib.get_close_matches(key, ALLOWED, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"Unknown setting {key!r} of {method}. {hint}Allowed: {', '.join(sorted(ALLOWED))}."
            )
    kind = str(overrides.get("parametrization", "full"))
    name = str(overrides.get("preset", "auto"))
    start = preset(auto_preset(num_parameters) if name == "auto" else name, method, kind)
    blocks = _checked("blocks", overrides["blocks"], 1) if "blocks" in overrides else None
    part = parametrization(kind, lora=_changed(start.lora, _LORA, overrides), blocks=blocks)
    _refuse_idle(part, overrides)
    return Configuration(
        preset=start.name,
        recipe=_changed(start.recipe, TUNABLE, overrides),
        train=_changed(start.train, _TRAIN, overrides),
        parametrization=part,
    )


def _refuse_idle(part: Parametrization, overrides: Mapping[str, Any]) -> None:
    idle = [] if isinstance(part, Lora) else [key for key in _LORA if key in overrides]
    if "blocks" in overrides and not isinstance(part, LastBlocks):
        idle.append("blocks")
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} has no effect with parametrization {part.name!r}; "
            "set parametrization to lora (rank, alpha, dropout, targets) or last-k (blocks)."
        )


def _changed(start: Any, names: tuple[str, ...], overrides: Mapping[str, Any]) -> Any:
    return replace(
        start, **{k: _checked(k, overrides[k], getattr(start, k)) for k in names if k in overrides}
    )


def _checked(key: str, value: Any, like: Any) -> Any:
    """Return ``value`` as the kind of ``like``; "1e-4", which YAML reads as text, is a number."""
    if value is None and key in _NULLABLE:
        return None
    kind = _NULLABLE.get(key, type(like))
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key} is {value!r}; it must be {_KINDS[kind]}, such as {like!r}.")
    return value
