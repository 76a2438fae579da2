"""How a GRUN edit is trained: named presets, a frozen record, overrides by key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args, get_type_hints

from eval.errors import ConfigError, UnknownNameError
from grun.config import PAPER_LAYERS, GateKind, Positions

__all__ = ["PRESETS", "SHALLOW_BLOCKS", "ForgetLoss", "GrunSettings", "check_overrides", "settings_for"]

ForgetLoss = Literal["gd", "idk", "npo"]
"""Names of the forget terms."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {
            "layers": PAPER_LAYERS,
            "learning_rate": 4e-3,
            "epochs": 40,
            "min_steps": 1,
            "batch_size": 16,
        },
        "scratch": {"layers": (0, 1), "learning_rate": 3e-2, "epochs": 12, "min_steps": 45, "batch_size": 32},
    }
)
"""Layer choice and schedule by name.

``paper``: blocks 20, 25 and 31 of 32, scaled to the depth. ``scratch``: the first two blocks. The output of the last
block at the prompt's end reaches the first answer token only, so a model of a few blocks must be edited early enough
that later answer tokens can still attend to the edit.
"""

SHALLOW_BLOCKS = 8
"""Models with at most so many blocks get ``scratch`` where no preset is named."""

_BY_LOSS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gd": {"forget_weight": 0.3, "margin": 1.2},
        "idk": {"forget_weight": 0.5},
        "npo": {"forget_weight": 0.1, "beta": 0.5},
    }
)
"""What a loss needs beside its preset; tuned on seed 1 of the embedded benchmark."""


@dataclass(frozen=True, kw_only=True)
class GrunSettings:
    """Settings of one training; the three losses share everything but the forget term.

    Raises:
        ConfigError: If a value is out of range.
    """

    preset: str
    """Name in `PRESETS` the defaults came from."""
    loss: ForgetLoss
    """Forget term: ``gd`` bounded gradient ascent, ``idk`` "I don't know" answers, ``npo`` preference."""
    layers: tuple[int | float, ...]
    """Edited blocks by index (int) or depth fraction (float)."""
    rank: int = 4
    """Rank of the edit."""
    gate: GateKind = "linear"
    """Kind of the gate."""
    positions: Positions = "last_prompt"
    """Edited positions."""
    epochs: int = 12
    """Passes over the forget rows; retain partners are drawn anew in each."""
    min_steps: int = 45
    """A small forget set gets more passes, until there are at least so many optimizer steps."""
    batch_size: int = 32
    """Forget rows of a step."""
    retain_per_forget: int = 1
    """Retain partners of each forget row."""
    learning_rate: float = 3e-2
    """Peak of AdamW (no weight decay), then linear to 0."""
    warmup_epochs: float = 2.0
    """Linear warm-up of the learning rate."""
    forget_weight: float = 0.3
    """Weight of the forget term."""
    retain_weight: float = 1.0
    """lambda_r: weight of cross-entropy on retain answers."""
    gate_weight: float = 1.0
    """lambda_g: weight of the gate's cross-entropy."""
    gate_fit_steps: int = 600
    """Steps in which the gates are fitted on the base's hidden states before the edit is trained; 0: none."""
    gate_warmup_steps: int = 0
    """Steps in which forget and retain terms ramp up from 0 (omega(t)); rarely needed after the gate fit."""
    margin: float = 4.0
    """``gd`` only: nats per answer token at which the ascent stops."""
    beta: float = 0.5
    """``npo`` only: inverse temperature."""
    through_pyvene: bool = True
    """Train through pyvene; False uses the serving hooks, which compute the same."""

    def passes(self, num_forget: int) -> int:
        """Return the passes over ``num_forget`` rows: `epochs`, or more to reach `min_steps`."""
        return max(self.epochs, math.ceil(self.min_steps * min(self.batch_size, num_forget) / num_forget))

    def __post_init__(self) -> None:
        if self.loss not in get_args(ForgetLoss):
            raise ConfigError(f"Unknown GRUN loss {self.loss!r}; use {', '.join(get_args(ForgetLoss))}.")
        for name in ("rank", "epochs", "min_steps", "batch_size", "retain_per_forget"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("learning_rate", "margin", "beta"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0.")
        weights = ("forget_weight", "retain_weight", "gate_weight")
        for name in (*weights, "gate_fit_steps", "gate_warmup_steps", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0.")


def check_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides with text converted to each field's type.

    Raises:
        ConfigError: If a key is unknown, or a value is of the wrong type or out of range.
        UnknownNameError: If the preset is unknown.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(GrunSettings)
    allowed = [field.name for field in dataclasses.fields(GrunSettings) if field.name != "loss"]
    values: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in allowed:
            raise ConfigError(f"GRUN has no setting {key!r}; allowed: {', '.join(allowed)}.")
        if key == "layers" and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{key} is {value!r}: {error.errors()[0]['msg']}.") from None
    if values.get("preset", "paper") not in PRESETS:
        raise UnknownNameError("GRUN preset", values["preset"], PRESETS)
    GrunSettings(**({"preset": "paper", "loss": "npo", "layers": (0,)} | values))
    return values


def settings_for(loss: str, overrides: Mapping[str, Any] | None = None, *, num_blocks: int) -> GrunSettings:
    """Return what a training on a model of ``num_blocks`` decoder blocks uses.

    Args:
        loss: ``gd``, ``idk`` or ``npo``.
        overrides: Field name to value; they win over the preset.
        num_blocks: Chooses the preset where none is named.

    Raises:
        ConfigError: If a key is unknown or a value is not allowed.
        UnknownNameError: If the preset is unknown.
    """
    values = check_overrides(overrides or {})
    preset = values.pop("preset", "scratch" if num_blocks <= SHALLOW_BLOCKS else "paper")
    shape = dict(PRESETS[preset])
    if preset == "scratch":
        shape["layers"] = tuple(layer for layer in shape["layers"] if layer < num_blocks)
    return GrunSettings(**({"preset": preset, "loss": loss} | shape | dict(_BY_LOSS.get(loss, {})) | values))
