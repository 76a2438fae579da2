"""Weights that an attacker trained, kept on disk: trained once for all they depend on, whoever asks again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from eval.artifacts import atomic_dir
from eval.models.language_model import LanguageModel

__all__ = ["WEIGHTS", "trained_or_kept"]

WEIGHTS = "weights.safetensors"
"""File of a folder that holds relearned weights."""


def trained_or_kept(
    base: LanguageModel, train: Callable[[LanguageModel], object], *, folder: Path | None, key: str
) -> None:
    """Train ``base`` in place, or give it the weights that an earlier training of the same ``key`` left.

    Args:
        base: Plain and trainable; what is kept are the parameters that take gradients.
        train: Trains it.
        folder: Where they are kept, those of one key at a time; ``None``: nowhere.
        key: Fingerprint of everything the trained weights depend on.
    """
    if folder is not None and _read(base, folder / WEIGHTS, key):
        return
    train(base)
    if folder is not None:
        _write(base, folder, key)


def _write(base: LanguageModel, folder: Path, key: str) -> None:
    from safetensors.torch import save_file

    tensors = {
        name: parameter.detach().contiguous()
        for name, parameter in base.model.named_parameters()
        if parameter.requires_grad
    }
    with atomic_dir(folder) as new:
        save_file(tensors, new / WEIGHTS, metadata={"key": key})


def _read(base: LanguageModel, path: Path, key: str) -> bool:
    """Give ``base`` the weights in a file; return whether it held those of ``key``."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as stored:
            if (stored.metadata() or {}).get("key") != key:
                return False
            with torch.no_grad():
                for name, parameter in base.model.named_parameters():
                    if parameter.requires_grad:
                        parameter.copy_(stored.get_tensor(name))
    except SafetensorError:  # damaged: trained anew
        return False
    base.model.eval()
    base.forget_identity()
    return True
