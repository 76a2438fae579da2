"""Benchmark names: ``family:split``, each family one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from eval.data.benchmark import Benchmark
from eval.errors import ConfigError
from eval.registry import Registry

__all__ = ["BENCHMARKS", "BenchmarkOptions", "Loader", "load_benchmark"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What a user may say about a benchmark beside its name."""

    data_dir: Path | None = None
    """A local folder with the benchmark's files, instead of the hub."""
    holdout: Path | None = None
    """Rows that no model was taught, for membership inference."""
    max_retain: int | None = None
    """Keep at most this many retain rows for teaching and unlearning."""
    retain_file: Path | None = None
    """``jsonl``, ``text`` and ``tdec`` only: the retain rows."""
    seed: int = 0
    """Of a generated benchmark."""


Loader: TypeAlias = Callable[[str, BenchmarkOptions], Benchmark]
"""``loader(split, options)``; ``split`` is what stands behind the colon, possibly empty."""

BENCHMARKS: Registry[Loader] = Registry(
    "benchmark",
    {
        "world": "eval.data.world:load",
        "tofu": "eval.data.tofu:load",
        "muse": "eval.data.muse:load",
        "wmdp": "eval.data.wmdp:load",
        "mmlu": "eval.data.mmlu:load",
        "lume": "eval.data.lume:load",
        "tdec": "eval.data.tdec:load",
        "rwku": "eval.data.rwku:load",
        "text": "eval.data.text:load",
        "jsonl": "eval.data.jsonl:load",
    },
)
"""Family name to loader."""


_OWN_ROWS = ("jsonl", "text", "tdec")
"""Families whose retain rows a user gives."""


def load_benchmark(
    name: str,
    *,
    data_dir: Path | str | None = None,
    holdout: Path | str | None = None,
    max_retain: int | None = None,
    retain_file: Path | str | None = None,
    seed: int = 0,
) -> Benchmark:
    """Load a benchmark by name, such as ``world:forget05``, ``tofu:forget10`` or ``jsonl:forget.jsonl``.

    Raises:
        UnknownNameError: If there is no such family or split.
        DataError: If a file is missing or broken.
        ConfigError: If an option is out of range, or the benchmark has no use for it.
    """
    if max_retain is not None and max_retain < 1:
        raise ConfigError(f"max_retain is {max_retain}; it must be at least 1.")
    family, _, split = name.partition(":")
    loader = BENCHMARKS[family]
    if retain_file is not None and family not in _OWN_ROWS:
        raise ConfigError(
            f"{family} has retain rows of its own; a retain file ({retain_file}) goes with {', '.join(_OWN_ROWS)} only."
        )
    options = BenchmarkOptions(
        data_dir=Path(data_dir) if data_dir is not None else None,
        holdout=Path(holdout) if holdout is not None else None,
        max_retain=max_retain,
        retain_file=Path(retain_file) if retain_file is not None else None,
        seed=seed,
    )
    return loader(split, options)
