"""Make a language model stop revealing something, and prove it: the command line and `compare`.

A filter (``guard``) suppresses, an adapter (``grun``) edits, training (``finetune_baselines``) changes weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn.comparison import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    if name == "compare":
        from unlearn.comparison import compare

        return compare
    raise AttributeError(f"module 'unlearn' has no attribute {name!r}")
