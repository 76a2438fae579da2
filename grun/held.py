"""Gates that a row keeps for its whole answer: they live in the row's key-value cache.

``positions="answer"`` reads a gate once, from the prompt, and applies it to every later token. Whatever
happens to the cache's rows in between (beams reordered, finished rows dropped, prompts shared by several answers,
copies) happens to the gates as well, because they are one more layer of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from eval.errors import ConfigError

__all__ = ["held_states", "hold"]


class HeldGates(CacheLayerMixin):  # type: ignore[misc]
    """What the gates know about each row of a cache, by a number that names the edit; holds no keys and no values."""

    is_croppable = True

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, Tensor] = {}
        self.idle: frozenset[int] = frozenset()

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        self.states = {name: change(state) for name, state in self.states.items()}

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._map(lambda state: state[indices.to(state.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._map(lambda state: state.repeat_interleave(repeats, dim=0))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows."""
        self.batch_select_indices(beam_idx)

    def crop(self, tokens: int) -> None:
        """Nothing to do: gates belong to rows, not to columns."""

    def reset(self) -> None:
        """Forget everything."""
        self.states, self.idle = {}, frozenset()

    def offload(self) -> None:
        """Nothing to do: a few numbers a row stay where they are."""

    def prefetch(self) -> None:
        """Nothing to do."""

    def get_seq_length(self) -> int:
        """Return 0: no columns."""
        return 0

    def get_max_length(self) -> int:
        """Return -1: no limit."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Refuse: nothing attends to gates."""
        raise NotImplementedError

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Refuse: there are no keys."""
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Refuse: there are no keys."""
        raise NotImplementedError


def held_states(cache: Any) -> tuple[dict[int, Tensor], set[int]]:
    """Return what a cache holds about its rows, by the number of the edit, and the edits that no row needs."""
    layers = getattr(cache, "layers", None)
    if not layers or not isinstance(layers[-1], HeldGates):
        return {}, set()
    return dict(layers[-1].states), set(layers[-1].idle)


def hold(cache: Any, states: Mapping[int, Tensor], idle: Iterable[int] = ()) -> None:
    """Put gate states, each of shape ``(B, S)``, into a cache.

    Args:
        cache: Of the forward that ends.
        states: By the number of the edit.
        idle: Edits whose gates are shut in every row, for the whole answer; still so when rows are dropped or moved.

    Raises:
        ConfigError: If the cache has no layers to stand beside.
    """
    if not hasattr(cache, "layers"):
        raise ConfigError(
            f"positions=answer holds its gates in the key-value cache, but {type(cache).__name__} has no layers; "
            "generate with the default cache, or train with positions=last_prompt."
        )
    if not isinstance(cache.layers[-1], HeldGates):
        cache.layers.append(HeldGates())
    cache.layers[-1].states.update(states)
    cache.layers[-1].idle = frozenset(idle)
