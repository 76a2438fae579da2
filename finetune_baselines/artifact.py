"""What a fine-tuned model leaves on disk: PEFT's or transformers' own folder, and a manifest written last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import atomic_dir, read_json, write_json
from eval.errors import ArtifactError
from finetune_baselines.parametrization import parametrization

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel
    from finetune_baselines.configuration import Configuration

__all__ = ["MANIFEST", "read_artifact", "write_artifact"]

MANIFEST = "finetune.json"
"""File that says which method, base model and settings an artifact belongs to."""
VERSION = 1


def write_artifact(
    tuned: LanguageModel,
    configuration: Configuration,
    output_dir: Path,
    *,
    base: str,
    training: dict[str, Any],
) -> None:
    """Write the trained part, then the manifest: a folder without a manifest is half-written.

    Args:
        tuned: The trained model.
        configuration: How it was trained.
        output_dir: The run's folder.
        base: `LanguageModel.identity` of the model it was trained from.
        training: What to record about the run.
    """
    part = configuration.parametrization
    with atomic_dir(output_dir / part.artifact) as folder:
        part.save(tuned, folder)
    files = {
        path.relative_to(output_dir).as_posix(): path.stat().st_size
        for path in sorted((output_dir / part.artifact).rglob("*"))
        if path.is_file()
    }
    manifest = {
        "version": VERSION,
        "method": configuration.recipe.name,
        "parametrization": part.name,
        "folder": part.artifact,
        "base": base,
        "settings": configuration.as_json(),
        "training": training,
        "files": files,
    }
    write_json(output_dir / MANIFEST, manifest)


def read_artifact(target: LanguageModel, output_dir: Path, method: str) -> LanguageModel:
    """Load what `write_artifact` left.

    Raises:
        ArtifactError: If it is missing, half-written, of another method or of another base model.
    """
    if not (output_dir / MANIFEST).is_file():
        raise ArtifactError(
            f"{output_dir} holds no {MANIFEST}: it is no fine-tuned model, or was never finished; train it anew."
        )
    manifest = read_json(output_dir / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise ArtifactError(f"{output_dir / MANIFEST} is not of version {VERSION}; train the model anew.")
    if manifest["method"] != method:
        raise ArtifactError(f"{output_dir} was written by {manifest['method']!r}, not by {method!r}.")
    for name, size in manifest["files"].items():
        path = output_dir / name
        if not path.is_file() or path.stat().st_size != size:
            raise ArtifactError(f"{path} is missing or half-written; train the model anew.")
    if manifest["base"] != target.identity:
        raise ArtifactError(
            f"{output_dir} was trained from another base model ({manifest['base'][:12]}) than this one "
            f"({target.identity[:12]}); load that base, or train anew."
        )
    return parametrization(manifest["parametrization"]).load(target, output_dir / manifest["folder"])
