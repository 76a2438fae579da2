"""Make a language model stop revealing something, and prove it: the command line, `compare` and `attack`.

A filter (``guard``) suppresses, an adapter (``grun``) edits, training (``finetune_baselines``) changes weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn.attacking import attack
    from unlearn.comparison import compare

__all__ = ["attack", "compare"]


def __getattr__(name: str) -> Any:
    if name == "compare":
        from unlearn.comparison import compare

        return compare
    if name == "attack":
        from unlearn.attacking import attack

        return attack
    raise AttributeError(f"module 'unlearn' has no attribute {name!r}")
