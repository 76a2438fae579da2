"""A stack of edits on disk: one folder an edit, and a manifest that is the last thing written.

Every change is one atomic replacement of ``grun_stack.json``: an edit's folder is written before the manifest names
it, and removed after the manifest has forgotten it. A process killed in between leaves the old stack or the new.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from eval.artifacts import read_json, write_json
from eval.errors import ArtifactError

__all__ = [
    "MANIFEST_FILE",
    "Composition",
    "Manifest",
    "drop_unnamed",
    "folder_of",
    "read_manifest",
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
