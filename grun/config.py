"""What a GRUN edit is: which blocks, which rank, which gate, which positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from eval.errors import ArtifactError, ConfigError
from grun.gate import GateInput, GateKind

__all__ = ["PAPER_LAYERS", "GateKind", "GrunConfig", "Positions", "resolve_layers"]

Positions = Literal["last_prompt", "prompt", "answer", "all"]
"""Where an edit may apply; see `GrunConfig.positions`."""

PAPER_LAYERS = (20 / 31, 25 / 31, 1.0)
"""The paper's blocks 20, 25 and 31 of 32 (arXiv:2502.17823) as fractions of the depth."""


@dataclass(frozen=True, kw_only=True)
class GrunConfig:
    """The shape of one edit; saved beside its tensors.

    Raises:
        ConfigError: If a value is out of range.
    """

    layers: tuple[int, ...]
    """Edited decoder blocks, 0-based, ascending, without repetition."""
    hidden_size: int
    """Width ``D`` of the hidden states."""
    blocks_path: str
    """Module path of the decoder blocks in the base model, such as ``model.layers``."""
    rank: int = 4
    """Columns ``r`` of the orthonormal ``R``."""
    gate: GateKind = "linear"
    """``linear``: one linear map; ``mlp``: three, with 256 and 64 units between them (the paper's larger gate);
    ``phrase``: one decision for all blocks, from detectors of short phrases in the whole prompt."""
    gate_input: GateInput = "rms"
    """What the gate reads: ``rms``, the RMS-normed hidden state; ``raw`` only in edits imported from elsewhere."""
    positions: Positions = "last_prompt"
    """Where the edit applies: ``last_prompt`` (the paper), ``prompt`` (every prompt token), ``answer`` (the last
    prompt token and every token after it, by one decision of the gate that is held), or ``all`` tokens."""

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ConfigError(f"layers is {self.layers}; give ascending block indices without repetition.")
        if not 1 <= self.rank <= self.hidden_size:
            raise ConfigError(
                f"rank is {self.rank}; it must lie between 1 and the hidden size {self.hidden_size}."
            )
        for name, kind in (("gate", GateKind), ("gate_input", GateInput), ("positions", Positions)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"Unknown {name} {getattr(self, name)!r}; use {', '.join(get_args(kind))}.")
        if self.gate == "phrase" and self.positions != "answer":
            raise ConfigError(
                f"A gate of kind 'phrase' decides once for the whole answer, not with positions={self.positions}; "
                "use positions=answer, or gate=linear."
            )

    def as_json(self) -> dict[str, Any]:
        """Return the plain form written to `grun_config.json`."""
        return asdict(self) | {"layers": list(self.layers)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> GrunConfig:
        """Read what `as_json` wrote.

        Raises:
            ArtifactError: If a key is missing, unknown or out of range; the sentence names ``source``.
        """
        try:
            return cls(**{**value, "layers": tuple(int(layer) for layer in value["layers"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{source} does not describe a GRUN edit ({error}); save the edit anew."
            ) from None


def resolve_layers(layers: Sequence[int | float], num_blocks: int) -> tuple[tuple[int, ...], int]:
    """Turn block indices and depth fractions into ascending block indices.

    An ``int`` is an index (negative: from the end); a ``float`` in [0, 1] is a fraction of the depth, 0.0
    being the first and 1.0 the last block.

    Args:
        layers: At least one index or fraction.
        num_blocks: Decoder blocks of the model.

    Returns:
        The indices, and how many entries fell on a block that another one names already.

    Raises:
        ConfigError: If an entry names no block.
    """
    if not layers:
        raise ConfigError("layers is empty; name at least one decoder block, by index or by depth fraction.")
    found: list[int] = []
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, (int, float)):
            raise ConfigError(f"layers holds {layer!r}; use block indices (int) or depth fractions (float).")
        if isinstance(layer, float):
            if not 0.0 <= layer <= 1.0:
                raise ConfigError(
                    f"layers holds the depth fraction {layer}; it must lie between 0.0 and 1.0."
                )
            found.append(round(layer * (num_blocks - 1)))
        else:
            if not -num_blocks <= layer < num_blocks:
                raise ConfigError(
                    f"layers holds block {layer}, but the model has blocks 0 to {num_blocks - 1}."
                )
            found.append(layer % num_blocks)
    distinct = tuple(sorted(set(found)))
    return distinct, len(found) - len(distinct)
