"""GUARD: a generation-time filter that suppresses what a model should not say; the model itself is unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.audit import AuditLog
    from guard.config import GuardSettings
    from guard.core import Guard
    from guard.deadline import CheckError, Deadline
    from guard.decoding import agenerate, generate
    from guard.gate import Decision
    from guard.method import METHODS, GuardMethod
    from guard.model import GuardedModel
    from guard.processor import GuardLogitsProcessor
    from guard.soft import SoftMatch
    from guard.streaming import astream, stream
    from guard.wrapping import wrap

__all__ = [
    "METHODS",
    "AuditLog",
    "CheckError",
    "Deadline",
    "Decision",
    "Guard",
    "GuardLogitsProcessor",
    "GuardMethod",
    "GuardSettings",
    "GuardedModel",
    "SoftMatch",
    "agenerate",
    "astream",
    "generate",
    "stream",
    "wrap",
]

_HOMES = {
    "METHODS": "method",
    "AuditLog": "audit",
    "CheckError": "deadline",
    "Deadline": "deadline",
    "Decision": "gate",
    "Guard": "core",
    "GuardLogitsProcessor": "processor",
    "GuardMethod": "method",
    "GuardSettings": "config",
    "GuardedModel": "model",
    "SoftMatch": "soft",
    "agenerate": "decoding",
    "astream": "streaming",
    "generate": "decoding",
    "stream": "streaming",
    "wrap": "wrapping",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: transformers and FAISS load late."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
