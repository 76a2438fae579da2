"""From a method's name and a user's overrides to everything a run is defined by."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from eval.errors import ConfigError
from finetune_baselines.parametrization import PARAMETRIZATIONS, Lora, Parametrization, parametrization
from finetune_baselines.presets import PRESETS, auto_preset, preset
from finetune_baselines.recipes import RECIPES, LoraSettings, Recipe, recipe
from finetune_baselines.training import TrainSettings

__all__ = ["Configuration", "check_overrides", "configure"]

_TRAIN = tuple(field.name for field in fields(TrainSettings))
_LORA = tuple(field.name for field in fields(LoraSettings))
_PART = tuple(dict.fromkeys(key for kind in PARAMETRIZATIONS.values() for key in kind.options()))
_OWN = ("preset", "parametrization", *_PART)
_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A resolved run."""

    preset: str
    recipe: Recipe
    train: TrainSettings
    parametrization: Parametrization

    def as_json(self) -> dict[str, Any]:
        """Return the flat settings that reports and artifacts show."""
        return {
            "preset": self.preset,
            "parametrization": self.parametrization.name,
            **self.recipe.tunables,
            **asdict(self.train),
            **self.parametrization.as_json(),
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
        overrides: Any of the recipe's `Recipe.tunables`, a `TrainSettings` or `LoraSettings` field, ``preset``,
            ``parametrization`` and the parametrization's own (`Parametrization.options`).
        num_parameters: Of the model: ``preset`` ``auto`` (the default) goes by its size.

    Raises:
        UnknownNameError: If the method, preset or parametrization is unknown.
        ConfigError: If a key is unknown or a value of the wrong kind or out of range.
    """
    own = tuple(recipe(method).tunables)
    _refuse_unknown(method, overrides, (*_OWN, *own, *_TRAIN, *_LORA))
    kind = str(overrides.get("parametrization", recipe(method).parametrization))
    name = str(overrides.get("preset", "auto"))
    start = preset(auto_preset(num_parameters) if name == "auto" else name, method, kind)
    part = parametrization(kind, lora=_changed(start.lora, _LORA, overrides))
    _refuse_idle(part, overrides)
    part = _changed(part, tuple(part.options()), overrides)
    changed = start.recipe.changed(
        {
            key: _checked(key, overrides[key], like, start.recipe.hint(key))
            for key, like in start.recipe.tunables.items()
            if key in overrides
        }
    )
    _refuse_nothing_to_forget(changed)
    return Configuration(
        preset=start.name,
        recipe=changed,
        train=_changed(start.train, _TRAIN, overrides),
        parametrization=part,
    )


def _refuse_unknown(method: str, overrides: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in overrides:
        if key in allowed:
            continue
        owners = [name for name, one in RECIPES.items() if key in one.tunables]
        close = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        if owners:
            hint = f"It is a setting of {', '.join(owners)}. "
        raise ConfigError(
            f"Unknown setting {key!r} of {method}. {hint}Allowed: {', '.join(sorted(allowed))}."
        )


def _refuse_nothing_to_forget(recipe: Recipe) -> None:
    if not recipe.answer_kinds:
        *others, last = (use.weight_key for use in recipe.terms if use.side == "forget")
        said = f"{', '.join(others)} and {last} are 0" if others else f"{last} is 0"
        raise ConfigError(
            f"{recipe.name} has no forget term left: {said}, so nothing would be forgotten; use weights above 0."
        )


def _refuse_idle(part: Parametrization, overrides: Mapping[str, Any]) -> None:
    has_adapter = isinstance(part, Lora)
    idle = [key for key in _LORA if key in overrides and not has_adapter]
    idle += [key for key in _PART if key in overrides and key not in part.options()]
    if idle:
        owners = [name for name, kind in PARAMETRIZATIONS.items() if idle[0] in kind.options()]
        owners = owners or [name for name, kind in PARAMETRIZATIONS.items() if issubclass(kind, Lora)]
        raise ConfigError(
            f"{', '.join(idle)} has no effect with parametrization {part.name!r}; "
            f"{idle[0]} belongs to {', '.join(owners)}."
        )


def _changed(start: Any, names: tuple[str, ...], overrides: Mapping[str, Any]) -> Any:
    hints = get_type_hints(type(start))
    return replace(
        start,
        **{k: _checked(k, overrides[k], getattr(start, k), hints[k]) for k in names if k in overrides},
    )


def _checked(key: str, value: Any, like: Any, hint: Any) -> Any:
    """Return ``value`` as the kind that ``hint`` declares; "1e-4", which YAML reads as text, is a number."""
    is_nullable = type(None) in get_args(hint)
    if value is None and is_nullable:
        return None
    kind = next((arg for arg in get_args(hint) if arg in _KINDS), None) or (hint if hint in _KINDS else str)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) is not kind:
        example = "" if like is None else f", such as {like!r}"
        raise ConfigError(
            f"{key} is {value!r}; it must be {_KINDS[kind]}{' or null' * is_nullable}{example}."
        )
    return value
