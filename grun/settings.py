"""How a GRUN edit is trained: named presets, a frozen record, overrides by key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_type_hints

from eval.errors import ConfigError, UnknownNameError
from grun.config import PAPER_LAYERS, Positions
from grun.gate import GateKind

__all__ = ["PRESETS", "SHALLOW_BLOCKS", "GrunSettings", "check_overrides", "settings_for"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {
            "layers": PAPER_LAYERS,
            "learning_rate": 4e-3,
            "warmup_epochs": 0.0,
            "epochs": 40,
            "min_steps": 1,
            "batch_size": 16,
            "gate_weight": 10.0,
            "gate_fit_steps": 0,
        },
        "scratch": {
            "layers": (0, 1),
            "rank": 16,
            "positions": "answer",
            "learning_rate": 2e-2,
            "epochs": 12,
            "min_steps": 45,
            "batch_size": 32,
        },
    }
)
"""Layer choice and schedule by name.

``paper``: as published for TOFU (arXiv:2502.17823 and its code): blocks 20, 25 and 31 of 32, scaled to the depth, one
edited token, the gate trained along. ``scratch``: the first two blocks, every token of the answer by one decision of
a gate fitted beforehand, found on seed 1 of the embedded benchmark. In a model of a few blocks an edit of the
prompt's last token hardly reaches later tokens, which read the name past it.
"""

SHALLOW_BLOCKS = 8
"""Models with at most so many blocks get ``scratch`` where no preset is named."""

_HELD: Mapping[str, Any] = MappingProxyType(
    {
        "gate": "phrase",
        "gate_weight": 0.0,
        "gate_fit_steps": 1000,
        "gate_variants": 96,
        "gate_rounds": 1,
    }
)
"""What ``scratch`` uses beside ``answer`` positions, where a gate decides once."""
_HELD_OTHERWISE: Mapping[str, Any] = MappingProxyType({"gate_variants": 24})
"""The same for gates of another kind."""

_BY_LOSS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "paper": {
            "gd": {"forget_weight": 1.0, "retain_weight": 2.0, "margin": None},
            "idk": {"forget_weight": 1.0},
            "npo": {"forget_weight": 100.0, "beta": 0.1},
            # WMDP: 4 epochs of 125 steps; the vector of length 300 at the last edited block
            "rmu": {
                "forget_weight": 1.0,
                "gate_weight": 100.0,
                "epochs": 4,
                "loss_options": {"coefficient": 300.0, "rmu_mask": "answer"},
            },
        },
        "scratch": {
            "gd": {"forget_weight": 0.8, "margin": 3.5, "open_retain": 0.5, "retain_weight": 0.3},
            "idk": {"forget_weight": 1.0, "rank": 32, "refusal_lines": 2, "epochs": 24},
            "npo": {"forget_weight": 0.3, "beta": 0.1, "open_retain": 0.6, "retain_weight": 1.0},
            "rmu": {
                "forget_weight": 0.1,
                "loss_options": {"coefficient": 10.0, "rmu_mask": "answer"},
            },
        },
    }
)
"""What a loss needs beside its preset; ``scratch`` was tuned on seeds 1 and 2 of the embedded benchmark."""


@dataclass(frozen=True, kw_only=True)
class GrunSettings:
    """Settings of one training; all losses share everything but the forget term.

    Raises:
        ConfigError: If a value is out of range.
    """

    preset: str
    """Name in `PRESETS` the defaults came from."""
    loss: str
    """Forget term: ``gd`` bounded gradient ascent, ``idk`` "I don't know" answers, ``npo`` preference, ``rmu``
    steered states, or the name of a fine-tuning method, whose terms are then used."""
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
    """lambda_r: weight of the retain term (cross-entropy on the answers; with ``rmu`` distance of the states)."""
    open_retain: float = 0.0
    """Share of a batch's retain rows whose gate is held open: what an open gate lets through then stays fluent. Only
    with ``answer`` positions."""
    gate_weight: float = 1.0
    """lambda_g: weight of the gate's cross-entropy; 0: the gates stay as they were fitted."""
    gate_fit_steps: int = 600
    """Steps in which the gates are fitted on the base's hidden states before the edit is trained; 0: none."""
    gate_variants: int = 0
    """Prompts drawn for each forget row in a round of the gate fit, in other wordings; innocent ones twice as many."""
    gate_rounds: int = 4
    """Rounds of the gate fit: its steps are shared out among them, and in each the prompts are drawn anew. One that
    would not fit into memory is split."""
    gate_warmup_steps: int = 0
    """Steps in which forget and retain terms ramp up from 0 (omega(t)); rarely needed after the gate fit."""
    margin: float | None = 4.0
    """``gd`` only: nats at which the ascent leaves an answer token alone; null: never, as published."""
    beta: float = 0.5
    """``npo`` only: inverse temperature."""
    refusal_lines: int = 0
    """``idk`` only: how many of the given lines are taught; 0: all."""
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the forget term, by the names that fine-tuning methods give them."""
    through_pyvene: bool = True
    """Train through pyvene; False uses the serving hooks, which compute the same."""

    def passes(self, num_forget: int) -> int:
        """Return the passes over ``num_forget`` rows: `epochs`, or more to reach `min_steps`."""
        return max(self.epochs, math.ceil(self.min_steps * min(self.batch_size, num_forget) / num_forget))

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "min_steps", "batch_size", "retain_per_forget", "gate_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("learning_rate", "beta"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.margin is not None and not self.margin > 0:
            raise ConfigError(f"margin is {self.margin}; it must be above 0, or null for no limit.")
        weights = ("forget_weight", "retain_weight", "gate_weight")
        for name in (
            *weights,
            "refusal_lines",
            "gate_variants",
            "gate_fit_steps",
            "gate_warmup_steps",
            "warmup_epochs",
        ):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0.")
        if not 0 <= self.open_retain <= 1:
            raise ConfigError(f"open_retain is {self.open_retain}; it must lie between 0 and 1.")
        if self.open_retain and self.positions != "answer":
            raise ConfigError(
                f"open_retain holds gates open for a whole answer, not with positions={self.positions}; "
                "use positions=answer, or open_retain=0."
            )
        if not self.gate_weight and not self.gate_fit_steps:
            raise ConfigError("gate_weight and gate_fit_steps are both 0, so the gates would never learn.")


def check_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides with text converted to each field's type.

    Raises:
        ConfigError: If a key is unknown, or a value is of the wrong type or out of range.
        UnknownNameError: If the preset is unknown.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(GrunSettings)
    allowed = [one.name for one in dataclasses.fields(GrunSettings) if one.name != "loss"]
    values: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in allowed:
            raise ConfigError(f"GRUN has no setting {key!r}; allowed: {', '.join(allowed)}.")
        if key == "layers" and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if key == "layers" and isinstance(value, (int, float)):
            value = [value]
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{key} is {value!r}: {error.errors()[0]['msg']}.") from None
    if values.get("preset", "paper") not in PRESETS:
        raise UnknownNameError("GRUN preset", values["preset"], PRESETS)
    _resolved("npo", values, str(values.get("preset", "scratch")))
    return values


def settings_for(loss: str, overrides: Mapping[str, Any] | None = None, *, num_blocks: int) -> GrunSettings:
    """Return what a training on a model of ``num_blocks`` decoder blocks uses.

    Args:
        loss: ``gd``, ``idk``, ``npo``, ``rmu`` or the name of a fine-tuning method.
        overrides: Field name to value; they win over the preset.
        num_blocks: Chooses the preset where none is named.

    Raises:
        ConfigError: If a key is unknown or a value is not allowed.
        UnknownNameError: If the preset is unknown.
    """
    values = check_overrides(overrides or {})
    preset = str(values.get("preset", "scratch" if num_blocks <= SHALLOW_BLOCKS else "paper"))
    settings = _resolved(loss, values, preset)
    if preset == "scratch" and "layers" not in values:
        layers = tuple(layer for layer in settings.layers if layer < num_blocks)
        settings = dataclasses.replace(settings, layers=layers)
    return settings


def _resolved(loss: str, values: Mapping[str, Any], preset: str) -> GrunSettings:
    defaults = dict(PRESETS[preset])
    by_loss = dict(_BY_LOSS[preset].get(loss, {}))
    if values.get("positions", defaults.get("positions")) != "answer":
        by_loss.pop("open_retain", None)
    elif preset == "scratch":
        held = dict(_HELD)
        if values.get("gate", "phrase") != "phrase":
            held = dict(_HELD_OTHERWISE)
        defaults |= held
    return GrunSettings(**(defaults | by_loss | dict(values) | {"preset": preset, "loss": loss}))
