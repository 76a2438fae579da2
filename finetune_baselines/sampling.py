"""Which rows meet in which step: random pairs, sequential chunks, alternating sides, annealing phases.

A run is a `Schedule`: phases, each with a fresh optimizer and a learning-rate schedule of its own, made of optimizer
steps, made of items. Every step is a function of seed and index alone, so one process and several, an uninterrupted
run and a resumed one see the same rows.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, Protocol, overload

from eval.data.pairing import RandomPairs, deal, draw
from eval.errors import ConfigError

__all__ = ["SAMPLINGS", "Annealing", "Chunks", "Item", "Pairs", "Phase", "RunSize", "Sampling", "Schedule"]


@dataclass(frozen=True)
class Item:
    """Rows that stay together: a forget row with its partners, or a row alone."""

    epoch: int
    forget: tuple[int, ...] = ()
    """Indices into the forget rows."""
    retain: tuple[int, ...] = ()
    """Indices into the retain rows."""


Step = Sequence[Item]
"""The items of one optimizer step, in order."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run with an optimizer and a learning-rate schedule of its own."""

    name: str
    steps: Sequence[Step]
    epochs: int
    """Passes over the phase's rows."""


class Schedule(Sequence[Step]):
    """A whole run, step by step.

    Args:
        phases: At least one; those without a step are left out.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phase for phase in phases if len(phase.steps))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First step of each phase."""
        return tuple(accumulate((len(phase.steps) for phase in self.phases[:-1]), initial=0))

    def __len__(self) -> int:
        return sum(len(phase.steps) for phase in self.phases)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        """Return the items of a step."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        phase, local = self.locate(index)
        return phase.steps[local]

    def locate(self, step: int) -> tuple[Phase, int]:
        """Return the phase of a step and the step's number within it (the end of the run: one past the last)."""
        at = bisect.bisect_right(self.starts, step) - 1
        return self.phases[at], step - self.starts[at]

    def learning_rate_factor(
        self, step: int, *, kind: Literal["linear", "cosine", "constant"], warmup_epochs: float
    ) -> float:
        """Return what the peak learning rate is multiplied by in a step: each phase warms up and decays anew."""
        phase, local = self.locate(step)
        total = len(phase.steps)
        warmup = min(round(warmup_epochs / phase.epochs * total), total)
        if local < warmup:
            return local / warmup
        left = (total - local) / max(1, total - warmup)
        if kind == "linear":
            return max(0.0, left)
        return 0.5 * (1 + math.cos(math.pi * (1 - left))) if kind == "cosine" else 1.0


_Rows = tuple[tuple[int, ...], tuple[int, ...]]
"""Forget and retain indices of one item."""


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """What a sampling lays out."""

    num_forget: int
    """At least one."""
    num_retain: int
    """0: nothing is retained."""
    epochs: int
    """Passes over the rows of each phase."""
    batch_size: int
    """Items of one step."""
    retain_per_forget: int = 1
    """Retain partners of each forget row."""
    seed: int = 0
    """Of everything random."""


class Sampling(Protocol):
    """An order of rows: a frozen dataclass whose fields are a recipe's settings."""

    def schedule(self, size: RunSize) -> Schedule:
        """Lay out a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Shuffled forget rows, each with its retain partners; an item is a forget row with them.

    Raises:
        ConfigError: If a value is unknown.
    """

    alternate: bool = False
    """Every batch becomes two steps: its forget rows, then its retain rows (GNM's alternating mode)."""
    partner: Literal["dealt", "fixed_by_index", "modulo"] = "dealt"
    """Retain rows dealt so that each gets its turn; the same partner every epoch (the NPO repository's); the forget
    row's index modulo the number of retain rows (ZJUKLAB's)."""

    def __post_init__(self) -> None:
        _one_of("partner", self.partner, ("dealt", "fixed_by_index", "modulo"))

    def schedule(self, size: RunSize) -> Schedule:
        """Lay out a run: one phase."""
        steps: Sequence[Step] = _RandomSteps(size, self.partner)
        if self.alternate and size.num_retain:
            steps = _Alternating(steps)
        return Schedule([Phase(name="training", steps=steps, epochs=size.epochs)])


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """Consecutive forget chunks, nothing shuffled, a fresh optimizer and schedule for each (arXiv:2503.02443).

    Every forget row is followed by its retain rows, taken cyclically with one pointer over all chunks.

    Raises:
        ConfigError: If a value is out of range.
    """

    chunk_size: int = 32
    """Forget rows of a chunk; the last chunk may be smaller."""
    split_retain: bool = True
    """The retain pointer goes on from chunk to chunk; false: each chunk takes all retain rows, shuffled."""
    batch_of: Literal["pairs", "rows"] = "pairs"
    """What ``batch_size`` counts: forget rows with their partners on top, or single rows of the same order."""

    def __post_init__(self) -> None:
        _one_of("batch_of", self.batch_of, ("pairs", "rows"))
        _at_least_one("chunk_size", self.chunk_size)

    def schedule(self, size: RunSize) -> Schedule:
        """Lay out a run: a phase for each chunk."""
        chunks, phases = _cut(size.num_forget, self.chunk_size), []
        for number, chunk in enumerate(chunks):
            rows = self._rows(chunk, size)
            if self.batch_of == "rows":
                rows = [row for item in rows for row in _singles(*item)]
            name = f"chunk {number + 1} of {len(chunks)}"
            phases.append(_phase(name, [rows] * size.epochs, size.batch_size))
        return Schedule(phases)

    def _rows(self, chunk: range, size: RunSize) -> list[_Rows]:
        total, ratio = size.num_retain, size.retain_per_forget
        if not total:
            return [((i,), ()) for i in chunk]
        if self.split_retain:  # every forget row before took as many, so the pointer is a product
            return [((i,), tuple((i * ratio + k) % total for k in range(ratio))) for i in chunk]
        order, ratio = deal(total, size.seed, "chunk retain", chunk.start), total // len(chunk)
        rows: list[_Rows] = [((i,), tuple(order[n * ratio : (n + 1) * ratio])) for n, i in enumerate(chunk)]
        return [*rows, *(((), (i,)) for i in order[len(chunk) * ratio :])]


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """Phases of forget rows alone, one a chunk, phases of retain rows between them and at the end (arXiv:2503.02443).

    An item is one row; every phase has a fresh optimizer and schedule.

    Raises:
        ConfigError: If a value is out of range.
    """

    chunk_size: int = 64
    """Forget rows of a chunk; the last chunk may be smaller."""
    annealing_fraction: float = 0.25
    """Share of the retain rows in a phase between chunks."""
    interleaving_factor: float = 1.0
    """Annealing phases for each forget chunk; 0.5: one after every second chunk."""
    agad_remainder: Literal["annealed", "final_only"] = "annealed"
    """Whether a last chunk of fewer rows has its own annealing phase, or only the final one (the published code)."""

    def __post_init__(self) -> None:
        _one_of("agad_remainder", self.agad_remainder, ("annealed", "final_only"))
        _at_least_one("chunk_size", self.chunk_size)
        for name in ("annealing_fraction", "interleaving_factor"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1.")

    def schedule(self, size: RunSize) -> Schedule:
        """Lay out a run: forget, anneal, forget, anneal, ..., a last annealing on all retain rows."""
        chunks, phases = _cut(size.num_forget, self.chunk_size), []
        every = max(1, round(1 / self.interleaving_factor))
        share = max(1, round(self.annealing_fraction * size.num_retain))
        for number, chunk in enumerate(chunks):
            ascent: list[_Rows] = [((i,), ()) for i in chunk]
            name = f"forget chunk {number + 1} of {len(chunks)}"
            phases.append(_phase(name, [ascent] * size.epochs, size.batch_size))
            is_left_out = len(chunk) < self.chunk_size and self.agad_remainder == "final_only"
            if size.num_retain and (number + 1) % every == 0 and not is_left_out:
                drawn = deal(size.num_retain, size.seed, "annealing", number)[:share]
                passes = _shuffled(drawn, size, number)
                phases.append(_phase(f"annealing after chunk {number + 1}", passes, size.batch_size))
        if size.num_retain:
            passes = _shuffled(range(size.num_retain), size, len(chunks))
            phases.append(_phase("final annealing", passes, size.batch_size))
        return Schedule(phases)


SAMPLINGS: Mapping[str, type[Sampling]] = MappingProxyType(
    {"pairs": Pairs, "chunks": Chunks, "annealing": Annealing}
)
"""Every order by the name a recipe gives it."""


def _phase(name: str, passes: Sequence[Sequence[_Rows]], batch_size: int) -> Phase:
    items = [Item(epoch, *rows) for epoch, once in enumerate(passes) for rows in once]
    steps = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    return Phase(name=name, steps=steps, epochs=len(passes))


def _singles(forget: tuple[int, ...], retain: tuple[int, ...]) -> list[_Rows]:
    return [*(((i,), ()) for i in forget), *(((), (i,)) for i in retain)]


def _cut(total: int, size: int) -> list[range]:
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"Unknown {name} {value!r}; use one of: {', '.join(allowed)}.")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}; it must be above 0.")


def _shuffled(rows: Sequence[int], size: RunSize, phase: int) -> list[list[_Rows]]:
    orders = (deal(len(rows), size.seed, "annealing order", phase, epoch) for epoch in range(size.epochs))
    return [[((), (rows[i],)) for i in order] for order in orders]


class _RandomSteps(Sequence[Step]):
    """`RandomPairs` cut into steps; a batch may reach over the end of an epoch."""

    def __init__(self, size: RunSize, partner: str) -> None:
        self.pairs = RandomPairs(
            num_forget=size.num_forget,
            num_retain=size.num_retain,
            epochs=size.epochs,
            seed=size.seed,
            retain_per_forget=size.retain_per_forget,
        )
        self.partner, self.batch_size = partner, size.batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.pairs) / self.batch_size)

    def __getitem__(self, index: int) -> Step:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.batch_size
        return [self._item(i) for i in range(start, min(start + self.batch_size, len(self.pairs)))]

    def _item(self, index: int) -> Item:
        pair, total = self.pairs[index], self.pairs.num_retain
        retain = pair.retain
        if self.partner == "fixed_by_index":
            retain = tuple(
                draw(total, self.pairs.seed, "partner", pair.forget, k) for k in range(len(retain))
            )
        elif self.partner == "modulo":
            retain = tuple((pair.forget + k) % total for k in range(len(retain)))
        return Item(pair.epoch, (pair.forget,), retain)


class _Alternating(Sequence[Step]):
    """Each step of another sequence as two: its forget rows, then its retain rows."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return 2 * len(self.steps)

    def __getitem__(self, index: int) -> Step:  # type: ignore[override]
        items = self.steps[index // 2]
        if index % 2:
            return [Item(item.epoch, (), item.retain) for item in items]
        return [Item(item.epoch, item.forget, ()) for item in items]
