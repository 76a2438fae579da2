"""GRUN: a gated edit of hidden states that makes a model stop revealing something (arXiv:2502.17823)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grun.config import GrunConfig
    from grun.importer import import_checkpoint
    from grun.loading import attach
    from grun.method import METHODS
    from grun.model import EditedModel
    from grun.settings import GrunSettings
    from grun.stack import EditStack
    from grun.training import train

__all__ = [
    "METHODS",
    "EditStack",
    "EditedModel",
    "GrunConfig",
    "GrunSettings",
    "attach",
    "import_checkpoint",
    "train",
]

_WHERE = {
    "METHODS": "grun.method",
    "EditStack": "grun.stack",
    "EditedModel": "grun.model",
    "GrunConfig": "grun.config",
    "GrunSettings": "grun.settings",
    "attach": "grun.loading",
    "import_checkpoint": "grun.importer",
    "train": "grun.training",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: pyvene and transformers are heavy."""
    if name not in _WHERE:
        raise AttributeError(f"module 'grun' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
