"""GUARD: a generation-time filter that suppresses what a model should not say; the model itself is unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.config import GuardSettings
    from guard.core import Guard
    from guard.decoding import generate
    from guard.gate import Decision
    from guard.method import METHODS, GuardMethod
    from guard.model import GuardedModel
    from guard.processor import GuardLogitsProcessor

__all__ = [
    "METHODS",
    "Decision",
    "Guard",
    "GuardLogitsProcessor",
    "GuardMethod",
    "GuardSettings",
    "GuardedModel",
    "generate",
]

_HOMES = {
    "METHODS": "method",
    "Decision": "gate",
    "Guard": "core",
    "GuardLogitsProcessor": "processor",
    "GuardMethod": "method",
    "GuardSettings": "config",
    "GuardedModel": "model",
    "generate": "decoding",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: transformers and FAISS load late."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
