"""Edits trained by other people's code: checkpoints of pyreft and of the published GRUN, read into our format.

Both leave one ``intkey_*.bin`` for each edited block (a pickled state dict, read here with weights-only loading) beside
a ``config.json``; the block's number stands in the file's name. The state dict holds ``rotate_layer`` (``D x r``,
orthonormal columns), ``weight`` (``r x D``) and ``bias`` (``r``), and, in GRUN's, the gate: ``gate_func.weight``
and ``gate_func.bias`` (linear), or ``gate_func.{0,2,4}.{weight,bias}`` (256 and 64 units).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eval.errors import ArtifactError
from eval.models.blocks import decoder_blocks, hidden_size
from eval.models.language_model import LanguageModel
from grun.config import GrunConfig, Positions
from grun.gate import GateKind, LinearGate, MLPGate
from grun.intervention import GatedLoReFT
from grun.model import EditedModel, fresh_edits

__all__ = ["import_checkpoint"]

_BLOCK = re.compile(r"layer[._](\d+)[._]|(?:layers|h|blocks)[._\[](\d+)[\]._]")
_LINEAR = {"gate_func.weight", "gate_func.bias"}
_MLP = [f"gate_func.{i}" for i in (0, 2, 4)]
_ALWAYS_OPEN = 30.0
"""Gate logit of an edit without a gate: its sigmoid is 1 in fp32."""


def import_checkpoint(
    lm: LanguageModel, directory: Path | str, *, positions: Positions = "last_prompt"
) -> EditedModel:
    """Put a checkpoint of pyreft (LoReFT) or of the published GRUN on ``lm``; ``save`` then keeps it in our format.

    The edit is computed in fp32 (the checkpoints' code used bf16 for W, b and the gate), and the gate reads the
    hidden state unnormed, as it was trained. A LoReFT without a gate is an edit whose gates are always open.
    No file says which base model or positions it was trained with: give the right ones.

    Args:
        lm: The model the checkpoint was trained on.
        directory: Holds the ``intkey_*.bin`` files, or a folder ``intervenable_model`` that does.
        positions: Where the edit applies. GRUN on TOFU: ``last_prompt``.

    Raises:
        ArtifactError: If there is no such checkpoint, a file is damaged or of an unknown kind, or it does not fit
            ``lm``.
    """
    directory = Path(directory)
    folder = directory / "intervenable_model"
    states = _read(folder if folder.is_dir() else directory)
    path, blocks = decoder_blocks(lm.model)
    width = hidden_size(lm.model)
    kinds = {block: _gate_kind(state, directory) for block, state in states.items()}
    ranks = {state["weight"].shape[0] for state in states.values()}
    if len(set(kinds.values())) > 1 or len(ranks) > 1:
        raise ArtifactError(f"{directory} mixes ranks or kinds of gates; import blocks of one kind.")
    for block, state in states.items():
        if tuple(state["rotate_layer"].shape) != (width, *ranks) or block >= len(blocks):
            raise ArtifactError(
                f"{directory} edits block {block} of hidden size {state['rotate_layer'].shape[0]}, but {lm.name!r} "
                f"has blocks 0 to {len(blocks) - 1} of hidden size {width}; name the model it was trained on."
            )
    config = GrunConfig(
        layers=tuple(sorted(states)),
        hidden_size=width,
        blocks_path=path,
        rank=ranks.pop(),
        gate="mlp" if "mlp" in kinds.values() else "linear",
        gate_input="raw",
        positions=positions,
    )
    edits = fresh_edits(config, torch.Generator().manual_seed(0))
    for block, state in states.items():
        _fill(edits[block], state, directory)
    return EditedModel(lm, config, edits, training={"imported_from": directory.name})


def _read(directory: Path) -> dict[int, dict[str, Tensor]]:
    files = sorted(directory.glob("intkey_*.bin"))
    if not files:
        raise ArtifactError(
            f"{directory} holds no intkey_*.bin, so it is no checkpoint of pyreft or GRUN; check the path."
        )
    states: dict[int, dict[str, Tensor]] = {}
    for file in files:
        found = _BLOCK.search(file.name)
        if found is None:
            raise ArtifactError(f"{file} names no block, so it is no edit of a decoder block's output.")
        block = int(found[1] or found[2])
        if block in states:
            raise ArtifactError(
                f"{directory} holds two edits of block {block}; only one a block can be imported."
            )
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ArtifactError(
                f"{file} cannot be read as plain tensors ({first}); it may be half-written."
            ) from None
        if not isinstance(state, Mapping) or not {"rotate_layer", "weight", "bias"} <= set(state):
            raise ArtifactError(f"{file} lacks rotate_layer, weight or bias, so it is no LoReFT edit.")
        states[block] = {str(name): value.float() for name, value in state.items()}
    return states


def _gate_kind(state: Mapping[str, Tensor], directory: Path) -> GateKind | None:
    names = {name for name in state if name.startswith("gate_func.")}
    if not names:
        return None
    if names == _LINEAR:
        return "linear"
    shapes = [tuple(state[f"{name}.bias"].shape) for name in _MLP if f"{name}.bias" in state]
    if len(names) == 6 and shapes == [(256,), (64,), (1,)]:
        return "mlp"
    raise ArtifactError(
        f"{directory} has a gate of {len(names) // 2} maps; linear gates and those of 256 and 64 units can be imported."
    )


def _fill(edit: GatedLoReFT, state: Mapping[str, Tensor], directory: Path) -> None:
    rotate = state["rotate_layer"]
    if (rotate.T @ rotate - torch.eye(rotate.shape[1])).abs().max() > 1e-2:
        raise ArtifactError(f"{directory} holds a rotate_layer whose columns are not orthonormal.")
    # our R is the Q of basis = Q T: the same subspace, other coordinates, so W and b turn by T = Q' rotate
    basis = torch.linalg.qr(rotate).Q
    with torch.no_grad():
        edit.basis.copy_(basis)
        turn = edit.rotation().T @ rotate
        edit.weight.copy_(turn @ state["weight"])
        edit.bias.copy_(turn @ state["bias"])
        gate = edit.gate
        if isinstance(gate, MLPGate):
            for i, name in enumerate(_MLP):
                gate.weights[i].copy_(state[f"{name}.weight"])
                gate.biases[i].copy_(state[f"{name}.bias"])
        elif isinstance(gate, LinearGate):
            if "gate_func.weight" in state:
                gate.weight.copy_(state["gate_func.weight"])
                gate.bias.copy_(state["gate_func.bias"])
            else:
                gate.bias.fill_(_ALWAYS_OPEN)
