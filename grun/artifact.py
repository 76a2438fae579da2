"""One edit on disk: ``grun_config.json`` and ``grun.safetensors``, bound to its base model."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from eval.artifacts import read_json, writable_dir, write_json
from eval.errors import ArtifactError
from grun.config import GrunConfig

__all__ = ["CONFIG_FILE", "TENSORS_FILE", "Artifact", "read_artifact", "write_artifact"]

CONFIG_FILE = "grun_config.json"
"""Shape, base model and training of an edit."""
TENSORS_FILE = "grun.safetensors"
"""The edit's parameters."""
_FORMAT = "grun"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a GRUN folder holds."""

    config: GrunConfig
    base_identity: str
    """`LanguageModel.identity` of the model the edit was trained on."""
    base_name: str
    """For people."""
    template: str
    """Name of the prompt template the positions were trained with."""
    tensors: Mapping[str, Tensor]
    """``"<block>.<parameter>"`` to tensor."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings and results of the training, for people and reports."""


def write_artifact(directory: Path, artifact: Artifact) -> None:
    """Write both files, the configuration last: it holds the tensors' hash, so a torn write is noticed.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    from safetensors.torch import save

    directory = writable_dir(Path(directory))
    payload = save(dict(artifact.tensors), metadata={"format": "pt"})
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{TENSORS_FILE}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
        os.chmod(temporary, 0o644)
        os.replace(temporary, directory / TENSORS_FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    write_json(
        directory / CONFIG_FILE,
        {
            "format": _FORMAT,
            "schema_version": _SCHEMA_VERSION,
            "base_name": artifact.base_name,
            "base_identity": artifact.base_identity,
            "template": artifact.template,
            "edit": artifact.config.as_json(),
            "num_parameters": sum(tensor.numel() for tensor in artifact.tensors.values()),
            "tensors_sha256": hashlib.sha256(payload).hexdigest(),
            "training": dict(artifact.training),
        },
    )


def read_artifact(directory: Path) -> Artifact:
    """Read a GRUN folder.

    Raises:
        ArtifactError: If a file is missing, half-written, foreign or of a newer version.
    """
    directory = Path(directory)
    if not (directory / CONFIG_FILE).is_file():
        raise ArtifactError(
            f"{directory} holds no {CONFIG_FILE}, so it is not a whole GRUN edit; check the path or train it."
        )
    value = read_json(directory / CONFIG_FILE)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise ArtifactError(f"{directory / CONFIG_FILE} is not a GRUN configuration; check the path.")
    if value.get("schema_version") != _SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {value.get('schema_version')}, and this version reads "
            f"{_SCHEMA_VERSION}; update the package or train the edit anew."
        )
    try:
        expected = str(value["tensors_sha256"])
        config = GrunConfig.from_json(value["edit"], str(directory / CONFIG_FILE))
        identity, name, template = (
            str(value["base_identity"]),
            str(value["base_name"]),
            str(value["template"]),
        )
    except KeyError as error:
        raise ArtifactError(
            f"{directory / CONFIG_FILE} lacks {error}; it may be half-written: train anew."
        ) from None
    return Artifact(
        config=config,
        base_identity=identity,
        base_name=name,
        template=template,
        tensors=_read_tensors(directory, expected),
        training=value.get("training", {}),
    )


def _read_tensors(directory: Path, expected: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    path = directory / TENSORS_FILE
    if not path.is_file():
        raise ArtifactError(f"{directory} holds no {TENSORS_FILE}; the edit is half-written: train it anew.")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != expected:
        raise ArtifactError(
            f"{path} does not match its {CONFIG_FILE}; the edit is half-written or changed: train it anew."
        )
    tensors: dict[str, Tensor] = load(payload)
    return tensors
