"""A stack of edits on disk: one folder an edit, and a manifest that is the last thing written.

Every change is one atomic replacement of ``grun_stack.json``: an edit's folder is written before the manifest names
it, and removed after the manifest has forgotten it. A process killed in between leaves the old stack or the new.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from eval.artifacts import atomic_dir, read_json, writable_dir, write_json
from eval.errors import ArtifactError, ConfigError, UnknownNameError
from grun.artifact import CONFIG_FILE, read_artifact, write_artifact

__all__ = [
    "MANIFEST_FILE",
    "Composition",
    "Manifest",
    "add_saved",
    "check_name",
    "describe",
    "drop_unnamed",
    "folder_of",
    "read_manifest",
    "remove_saved",
    "write_manifest",
]

MANIFEST_FILE = "grun_stack.json"
"""Names, order and composition of a stack."""
Composition = Literal["sequential", "paper"]
"""How edits of one block combine; see `grun.stack.EditStack`."""
_FORMAT = "grun-stack"
_SCHEMA_VERSION = 1
_EDITS = "edits"


@dataclass(frozen=True)
class Manifest:
    """What `grun_stack.json` says."""

    edits: Mapping[str, str]
    """Name of a request to the folder of its edit, oldest first."""
    composition: Composition
    base_name: str
    """For people."""


def folder_of(name: str, content: str) -> str:
    """Return the folder for an edit: readable, safe as a path, and different for different names or content."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40]
    digest = hashlib.sha256(f"{name}\0{content}".encode()).hexdigest()[:10]
    return f"{_EDITS}/{readable}-{digest}".replace("/-", "/")


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest atomically."""
    write_json(
        directory / MANIFEST_FILE,
        {
            "format": _FORMAT,
            "schema_version": _SCHEMA_VERSION,
            "base_name": manifest.base_name,
            "composition": manifest.composition,
            "edits": [{"name": name, "folder": folder} for name, folder in manifest.edits.items()],
        },
    )


def read_manifest(directory: Path) -> Manifest:
    """Read a stack's manifest.

    Raises:
        ArtifactError: If it is missing, foreign, newer, half-written, or names an edit twice or outside its folder.
    """
    path = Path(directory) / MANIFEST_FILE
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise ArtifactError(f"{path} is not a stack of GRUN edits; check the path.")
    if value.get("schema_version") != _SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {value.get('schema_version')}, and this version reads {_SCHEMA_VERSION}; "
            "update the package."
        )
    try:
        pairs = [(str(entry["name"]), str(entry["folder"])) for entry in value["edits"]]
        composition, base_name = value["composition"], str(value["base_name"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path} lacks {error}; save the stack anew.") from None
    if composition not in get_args(Composition):
        raise ArtifactError(
            f"{path} combines its edits by {composition!r}, which this version does not know."
        )
    names = [name for name, _ in pairs]
    for name, folder in pairs:
        if names.count(name) > 1:
            raise ArtifactError(f"{path} names the request {name!r} twice; give each edit a name of its own.")
        if not re.fullmatch(rf"{_EDITS}/[A-Za-z0-9_-]+", folder):
            raise ArtifactError(
                f"{path} keeps request {name!r} in {folder!r}, which is no folder of a stack."
            )
    return Manifest(dict(pairs), composition, base_name)


def drop_unnamed(directory: Path, manifest: Manifest) -> None:
    """Remove the folders of edits that the manifest no longer names."""
    kept = {directory / folder for folder in manifest.edits.values()}
    for folder in sorted((directory / _EDITS).glob("*")):
        if folder not in kept:
            shutil.rmtree(folder)


def check_name(name: str, taken: Container[str]) -> None:
    """Refuse a name that a new request cannot have.

    Raises:
        ConfigError: If it is empty or taken.
    """
    if not name.strip():
        raise ConfigError("A request needs a name; give one such as 'request-17'.")
    if name in taken:
        raise ConfigError(
            f"The stack holds a request {name!r} already; remove it first or choose another name."
        )


def describe(directory: Path) -> list[dict[str, Any]]:
    """Return a row for each request of a saved stack, oldest first; no model is needed.

    Raises:
        ArtifactError: If the stack or one of its edits is missing or damaged.
    """
    rows = []
    for name, folder in read_manifest(directory).edits.items():
        artifact = read_artifact(directory / folder)
        rows.append(
            {
                "name": name,
                "layers": [*artifact.config.layers],
                "rank": artifact.config.rank,
                "gate": artifact.config.gate,
                "positions": artifact.config.positions,
                "parameters": sum(tensor.numel() for tensor in artifact.tensors.values()),
                "base_name": artifact.base_name,
            }
        )
    return rows


def add_saved(directory: Path, name: str, edit: Path) -> None:
    """Add a saved edit to a saved stack (made where there is none), without a model.

    Raises:
        ArtifactError: If the edit or the stack is damaged, or the edit was trained on another base model.
        ConfigError: If the name is taken or empty, the folder cannot be written to, or the stack combines its edits
            in a way that needs a model to check.
    """
    artifact = read_artifact(edit)
    manifest = Manifest({}, "sequential", artifact.base_name)
    if (directory / MANIFEST_FILE).is_file():
        manifest = read_manifest(directory)
    check_name(name, manifest.edits)
    if manifest.composition != "sequential":
        raise ConfigError(
            f"{directory} combines its edits by {manifest.composition!r}; add to it from Python."
        )
    for other, folder in manifest.edits.items():
        if read_artifact(directory / folder).base_identity != artifact.base_identity:
            raise ArtifactError(
                f"{edit} was trained on another base model ({artifact.base_name!r}) than request {other!r} of "
                f"{directory}; keep a stack for each model."
            )
    folder = folder_of(name, hashlib.sha256((edit / CONFIG_FILE).read_bytes()).hexdigest())
    with atomic_dir(writable_dir(directory) / folder) as new:
        write_artifact(new, artifact)
    write_manifest(directory, replace(manifest, edits={**manifest.edits, name: folder}))


def remove_saved(directory: Path, name: str) -> None:
    """Take a request out of a saved stack, without a model.

    Raises:
        ArtifactError: If the stack is missing or damaged.
        UnknownNameError: If there is no such request.
    """
    manifest = read_manifest(directory)
    if name not in manifest.edits:
        raise UnknownNameError("request", name, manifest.edits)
    rest = replace(
        manifest, edits={other: folder for other, folder in manifest.edits.items() if other != name}
    )
    write_manifest(directory, rest)
    drop_unnamed(directory, rest)
