"""Teach a model a benchmark: the target knows everything, the oracle everything but the forget set."""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from eval.artifacts import atomic_dir, fingerprint, writable_dir, write_json
from eval.data.benchmark import Benchmark
from eval.errors import ConfigError, DataError
from eval.models.finetune import FinetuneSettings, finetune
from eval.models.language_model import LanguageModel
from eval.types import Example, Progress

__all__ = ["PrepareSettings", "Prepared", "cache_directory", "default_settings", "prepare"]

RECIPE = 1
"""Part of the cache key: raise it when this code would train other weights from the same input."""

COMPLETE = "prepared.json"

MIN_BASE_STEPS, MIN_FINAL_STEPS = 400, 150
"""A scratch model takes at least so many steps, however few rows it is taught."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """The two stages of `prepare`."""

    base: FinetuneSettings | None
    """From nothing to general knowledge and the retain set: shared by target and oracle; ``None`` skips it."""
    final: FinetuneSettings
    """From there to the target (with the forget set) and to the oracle (without), equally many steps each."""
    forget_repeats: int = 1
    """Copies of each forget row in the target's last stage; a shared base has seen the others before."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` returns."""

    target: LanguageModel
    """Was taught everything."""
    oracle: LanguageModel
    """Was never shown the forget set."""
    target_dir: Path
    oracle_dir: Path
    seconds: float
    """Wall time of this call."""
    from_cache: bool


@dataclass(frozen=True)
class _Start:
    """What training starts from."""

    name: str
    identity: str
    fresh: Callable[[], LanguageModel]


def cache_directory() -> Path:
    """Return ``$UNLEARN_CACHE``, else ``unlearn-toolkit`` in the user's cache folder."""
    given = os.environ.get("UNLEARN_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unlearn-toolkit"


def default_settings(
    model: str | LanguageModel,
    benchmark: Benchmark,
    *,
    seed: int = 0,
    parametrization: Literal["full", "lora"] = "full",
) -> PrepareSettings:
    """Return the settings `prepare` uses when none are given.

    Raises:
        ConfigError: If a scratch model is asked to learn by LoRA: it has nothing an adapter could build on.
    """
    if not _is_scratch(model):
        lr = 1e-5 if parametrization == "full" else 2e-4
        final = FinetuneSettings(
            epochs=5, lr=lr, parametrization=parametrization, checkpoint_steps=200, seed=seed
        )
        return PrepareSettings(base=None, final=final)
    if parametrization != "full":
        raise ConfigError("A scratch model is trained from nothing, so LoRA has nothing to adapt; use full.")
    recipe = FinetuneSettings(
        epochs=9,
        batch_tokens=1024,
        optimizer="muon",
        lr=1e-2,
        matrix_lr=0.02,
        checkpoint_steps=400,
        seed=seed,
    )
    if not benchmark.name.startswith("world:"):
        batches = max(1, _characters(benchmark) // (4 * recipe.batch_tokens))
        return PrepareSettings(
            base=replace(recipe, epochs=max(24, MIN_BASE_STEPS // batches)),
            final=replace(recipe, epochs=max(8, MIN_FINAL_STEPS // batches), matrix_lr=0.01),
            forget_repeats=2,
        )
    return PrepareSettings(
        base=recipe, final=replace(recipe, epochs=2, lr=5e-3, matrix_lr=0.01, seed=seed + 1), forget_repeats=6
    )


def prepare(
    model: str | LanguageModel,
    benchmark: Benchmark,
    *,
    cache_dir: Path | str | None = None,
    settings: PrepareSettings | None = None,
    seed: int = 0,
    parametrization: Literal["full", "lora"] = "full",
    progress: Progress | None = None,
) -> Prepared:
    """Return the target and the retain-only oracle of a benchmark, trained once and then read from the cache.

    The cache key covers the benchmark's rows, the model, the settings and this code's version. Two processes
    that ask for the same pair train it once: the second waits. A killed run goes on where it was.

    Args:
        model: ``scratch:SIZE`` (trained from nothing), a model name or folder, or a loaded model (left as it is).
        benchmark: What to teach.
        cache_dir: In place of `cache_directory`.
        settings: In place of `default_settings`.
        seed: Of initial weights and of the order of the rows.
        parametrization: Train all weights, or a LoRA adapter that is merged afterwards.
        progress: Told stage and step.

    Raises:
        ConfigError: If the cache directory cannot be written, or a scratch model is asked to learn by LoRA.
        DataError: If there is nothing to keep, which is all that an oracle learns.
    """
    started = time.perf_counter()
    if not (benchmark.retain or benchmark.taught):
        raise DataError(
            f"{benchmark.name} has no retain rows, and they are all that an oracle learns; give some "
            "(--retain-file), or a model that knows the forget rows already (--model)."
        )
    settings = settings or default_settings(model, benchmark, seed=seed, parametrization=parametrization)
    start = _start(model, benchmark, seed)
    root = writable_dir(Path(cache_dir) if cache_dir is not None else cache_directory()) / "prepared"
    final = root / _entry(start, benchmark, settings)
    from_cache = (final / COMPLETE).is_file()
    if not from_cache:
        with _locked(final, progress):
            from_cache = (final / COMPLETE).is_file()
            if not from_cache:
                _train(start, benchmark, settings, final, progress)
    return Prepared(
        target=_load(final / "target", start.name),
        oracle=_load(final / "oracle", start.name),
        target_dir=final / "target",
        oracle_dir=final / "oracle",
        seconds=time.perf_counter() - started,
        from_cache=from_cache,
    )


def _characters(benchmark: Benchmark) -> int:
    """Length of all that is taught; about four characters make a token."""
    rows = [*benchmark.forget, *benchmark.forget_wordings, *benchmark.retain, *benchmark.taught]
    prompts = (message.content for row in rows if row.answer is not None for message in row.conversation)
    return sum(map(len, prompts)) + sum(len(row.answer or "") for row in rows)


def _is_scratch(model: str | LanguageModel) -> bool:
    return isinstance(model, str) and (model == "scratch" or model.startswith("scratch:"))


def _start(model: str | LanguageModel, benchmark: Benchmark, seed: int) -> _Start:
    if isinstance(model, str) and _is_scratch(model):
        from eval.errors import UnknownNameError
        from eval.models.scratch import SIZES, benchmark_texts, build

        size = model.partition(":")[2] or "small"
        if size not in SIZES:
            raise UnknownNameError("size of scratch model", size, SIZES)
        identity = f"scratch {SIZES[size]} seed {seed}"
        return _Start(f"scratch:{size}", identity, lambda: build(size, benchmark_texts(benchmark), seed=seed))
    if isinstance(model, str):
        from eval.models.loading import load

        name = model
        return _Start(name, _identity(load(name)), lambda: load(name))
    lm = model

    def fresh() -> LanguageModel:
        return LanguageModel(
            copy.deepcopy(lm.model), lm.tokenizer, template=lm.template, name=lm.name, ou_compat=lm.ou_compat
        )

    return _Start(lm.name, _identity(lm), fresh)


def _identity(lm: LanguageModel) -> str:
    return f"{lm.identity} {lm.template.name}"


def _entry(start: _Start, benchmark: Benchmark, settings: PrepareSettings) -> str:
    """Name of the cache entry: readable, and different for everything that would train other weights."""
    key = fingerprint(
        {"recipe": RECIPE, "model": start.identity, "settings": settings, "rows": _rows(benchmark)}
    )
    safe_name = "".join(c if c.isalnum() else "-" for c in benchmark.name)[:40]
    return f"{safe_name}-{key[:20]}"


def _rows(benchmark: Benchmark) -> dict[str, list[tuple[object, ...]]]:
    """Everything about the rows that training can see, for the cache key."""
    parts = {
        "forget": benchmark.forget,
        "forget_wordings": benchmark.forget_wordings,
        "retain": benchmark.retain,
        "taught": benchmark.taught,
        **{f"split {name}": rows for name, rows in benchmark.splits.items()},
    }
    return {
        name: [(row.conversation, row.answer) for row in rows if row.answer is not None]
        for name, rows in parts.items()
    }


@contextmanager
def _locked(final: Path, progress: Progress | None) -> Iterator[None]:
    """Hold the lock of a cache entry; while another process holds it, say so and wait."""
    from filelock import FileLock, Timeout

    final.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(final) + ".lock")
    while True:
        try:
            lock.acquire(timeout=2)
            break
        except Timeout:
            if progress is not None:
                progress("waiting for another process that prepares the same models", 0, 1)
    try:
        yield
    finally:
        lock.release()


def _train(
    start: _Start, benchmark: Benchmark, settings: PrepareSettings, final: Path, progress: Progress | None
) -> None:
    """Train what is missing in ``final``'s work folder, then move the whole into place."""
    work = final.with_name(final.name + ".work")
    shared: tuple[Example, ...] = (*benchmark.retain, *benchmark.taught)
    secret: tuple[Example, ...] = (*benchmark.forget, *benchmark.forget_wordings)
    seconds: dict[str, float] = {}

    def stage(name: str, origin: Path | None, rows: tuple[Example, ...], how: FinetuneSettings) -> None:
        if (work / name).is_dir():
            return
        began = time.perf_counter()
        lm = _load(origin, start.name) if origin is not None else start.fresh()
        finetune(
            lm,
            rows,
            how,
            output_dir=work / f"{name}-training",
            progress=progress,
            label=f"teaching the {name}",
        )
        with atomic_dir(work / name) as directory:
            lm.save(directory)
        seconds[name] = round(time.perf_counter() - began, 2)

    origin = None
    if settings.base is not None:
        stage("base", None, shared, settings.base)
        origin = work / "base"
    steps_ratio = 1 + settings.forget_repeats * len(secret) / max(1, len(shared))
    stage("target", origin, shared + secret * settings.forget_repeats, settings.final)
    oracle_settings = replace(settings.final, epochs=settings.final.epochs * steps_ratio)
    stage("oracle", origin, shared, oracle_settings)
    write_json(
        work / COMPLETE,
        {"model": start.name, "benchmark": benchmark.name, "settings": asdict(settings), "seconds": seconds},
    )
    for leftover in work.glob("*-training"):
        shutil.rmtree(leftover, ignore_errors=True)
    os.replace(work, final)


def _load(directory: Path, name: str) -> LanguageModel:
    from eval.models.loading import load

    lm = load(str(directory))
    lm.name = name
    return lm
