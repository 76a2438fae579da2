"""`attach`: put what was saved back on its base model, after checking that it is that model."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from eval.errors import ArtifactError
from eval.models.blocks import decoder_blocks, hidden_size
from eval.models.language_model import LanguageModel
from grun.artifact import Artifact, read_artifact
from grun.config import GrunConfig
from grun.model import EditedModel, fresh_edits
from grun.stack import EditStack
from grun.stack_files import MANIFEST_FILE, read_manifest

__all__ = ["attach", "attach_edit"]

_LOG = logging.getLogger(__name__)


def attach(lm: LanguageModel, path: Path | str, *, any_base: bool = False) -> EditedModel | EditStack:
    """Put a saved edit, or a saved stack of edits, on ``lm``, which stays plain itself.

    Args:
        lm: The model it was trained on.
        path: Folder that `EditedModel.save` or `EditStack.save` wrote.
        any_base: Attach with a warning where ``lm`` is not that model (same weights in another precision, for
            example): what the edit then forgets, and what it harms, nobody has measured.

    Raises:
        ArtifactError: If the folder is missing, half-written, or was trained on another base model.
    """
    directory = Path(path)
    if not (directory / MANIFEST_FILE).is_file():
        return attach_edit(lm, directory, any_base=any_base)
    manifest = read_manifest(directory)
    stack = EditStack(lm, composition=manifest.composition)
    for name, folder in manifest.edits.items():
        stack.add(name, attach_edit(lm, directory / folder, any_base=any_base))
    return stack


def attach_edit(lm: LanguageModel, path: Path | str, *, any_base: bool = False) -> EditedModel:
    """Like `attach`, for a folder that `EditedModel.save` wrote."""
    directory = Path(path)
    artifact = read_artifact(directory)
    _check_base(lm, artifact, directory, any_base)
    base_path, _ = decoder_blocks(lm.model)
    config = artifact.config
    edits = fresh_edits(config, torch.Generator().manual_seed(0))
    expected = {f"{layer}.{name}" for layer, edit in edits.items() for name in edit.tensors()}
    if set(artifact.tensors) != expected:
        raise ArtifactError(f"The tensors in {directory} do not fit its configuration; train the edit anew.")
    for layer, edit in edits.items():
        for name, parameter in edit.named_parameters():
            value = artifact.tensors[f"{layer}.{name}"]
            if value.shape != parameter.shape:
                raise ArtifactError(
                    f"Tensor {layer}.{name} in {directory} has shape {tuple(value.shape)}, not "
                    f"{tuple(parameter.shape)}; train the edit anew."
                )
            with torch.no_grad():
                parameter.copy_(value)
    if base_path != config.blocks_path:  # the same model inside or outside a PEFT wrapper
        config = GrunConfig.from_json(config.as_json() | {"blocks_path": base_path}, str(directory))
    return EditedModel(lm, config, edits, training=artifact.training)


def _check_base(lm: LanguageModel, artifact: Artifact, directory: Path, any_base: bool) -> None:
    width, depth = hidden_size(lm.model), len(decoder_blocks(lm.model)[1])
    config = artifact.config
    trained_on = f"The edit in {directory} was trained on another base model, {artifact.base_name!r}"
    if config.hidden_size != width:
        raise ArtifactError(
            f"{trained_on} of hidden size {config.hidden_size}, but {lm.name!r} has {width}; "
            "attach it to that model or train one for this model."
        )
    if config.layers[-1] >= depth:
        raise ArtifactError(
            f"{trained_on}, where it edits block {config.layers[-1]}, but {lm.name!r} has blocks 0 to "
            f"{depth - 1}; attach it to that model or train one for this model."
        )
    if lm.identity == artifact.base_identity:
        return
    what = f"{trained_on} (identity {artifact.base_identity[:12]}), not on {lm.name!r} ({lm.identity[:12]})"
    if not any_base:
        raise ArtifactError(
            f"{what}; attach it to that model, or pass any_base=True (--any-base) if this is that model in another "
            "precision."
        )
    _LOG.warning(
        "WARNING: %s. It is attached all the same: measure again what is forgotten and what is kept.", what
    )
