"""Diagonal Fisher information of weight matrices: which weights a set of answers depends on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eval.artifacts import atomic_dir, fingerprint, read_json, writable_dir, write_json
from eval.data.collate import Encoded
from eval.errors import ConfigError, DataError
from eval.models.language_model import LanguageModel
from eval.models.prepare import cache_directory
from eval.types import Progress
from finetune_baselines.parametrization.base import clone, is_quantized, wrapped

__all__ = ["Fisher", "fisher_information"]

VERSION = 1
SUMS, STATE = "fisher.safetensors", "fisher.json"


class Fisher:
    """A finished pass on disk, read matrix by matrix.

    Args:
        folder: What `fisher_information` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Tensor:
        """Return the information of one weight matrix, >= 0, fp32, in the matrix's own shape."""
        with safe_open(self.folder / SUMS, framework="pt") as file:
            sums: Tensor = file.get_tensor(name)
        return sums / int(read_json(self.folder / STATE)["tokens"])


def fisher_information(
    lm: LanguageModel,
    rows: Sequence[Encoded],
    layers: Sequence[str],
    *,
    batch_size: int = 2,
    cache_dir: Path | None = None,
    save_seconds: float = 60.0,
    what: str = "Fisher information",
    progress: Progress | None = None,
) -> Fisher:
    """Measure the empirical Fisher information of weight matrices on answers (arXiv:2408.06621, section 3.3).

    ``F = sum_b n_b (d CE_b / d W)^2 / sum_b n_b`` over batches ``b``, where ``CE_b`` is the mean cross-entropy (nats)
    over the ``n_b`` answer tokens of a batch, in evaluation mode. One pass streams over the rows; beside the model
    there is one fp32 accumulator for each matrix and one gradient at a time. The result is cached by model and data,
    and a pass that was interrupted goes on from its last save.

    Args:
        lm: The model; it stays unchanged.
        rows: What to measure on.
        layers: Full names of linear layers.
        batch_size: Rows of a batch; it is part of the definition, since means are squared.
        cache_dir: In place of the user's cache folder.
        save_seconds: Time between two saves of an unfinished pass.
        what: How progress names the pass.
        progress: Told the number of rows done.

    Raises:
        DataError: If there are no rows.
        ConfigError: If a matrix is quantized: it has no gradient.
    """
    from filelock import FileLock

    if not rows:
        raise DataError("Fisher information needs at least one row with an answer.")
    _refuse_quantized(lm, layers)
    key = fingerprint(
        [VERSION, lm.identity, [[r.prompt_ids, r.answer_ids] for r in rows], list(layers), batch_size]
    )
    root = writable_dir((cache_dir or cache_directory()) / "fisher")
    folder = root / key[:24]
    with FileLock(f"{folder}.lock"):
        if not _is_complete(folder):
            _measure(lm, rows, layers, batch_size, folder, save_seconds, what, progress)
    return Fisher(folder)


def _refuse_quantized(lm: LanguageModel, layers: Sequence[str]) -> None:
    for name in layers:
        if is_quantized(lm.model.get_submodule(name).weight):
            raise ConfigError(
                f"{name} is quantized, so it has no gradient to measure Fisher information with; load the model "
                "without --quantization, or use parametrization lora or qlora."
            )


def _measure(
    lm: LanguageModel,
    rows: Sequence[Encoded],
    layers: Sequence[str],
    batch_size: int,
    folder: Path,
    save_seconds: float,
    what: str,
    progress: Progress | None,
) -> None:
    model = clone(lm.model, lambda name: False)
    reader = wrapped(lm, model)
    weights = {name: model.get_submodule(name).weight for name in layers}
    done, tokens, sums = _resumed(folder, weights)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    saved = time.monotonic()
    with ExitStack() as stack:
        size = 0

        def collect(name: str, weight: nn.Parameter) -> None:
            assert weight.grad is not None
            sums[name].add_(weight.grad.float().square_(), alpha=size)
            weight.grad = None

        for name, weight in weights.items():
            weight.requires_grad_(True)
            hook = weight.register_post_accumulate_grad_hook(lambda w, name=name: collect(name, w))
            stack.callback(hook.remove)
        for number in range(done, len(batches)):
            batch = reader.collate(batches[number]).to(reader.device)
            size = batch.targets.numel()
            with torch.enable_grad():
                loss = nn.functional.cross_entropy(reader.answer_logits(batch).float(), batch.targets)
                loss.backward()  # type: ignore[no-untyped-call]
            tokens += size
            if progress is not None:
                progress(what, min((number + 1) * batch_size, len(rows)), len(rows))
            is_last = number + 1 == len(batches)
            if is_last or time.monotonic() - saved >= save_seconds:
                _save(folder, sums, tokens=tokens, batches=number + 1, complete=is_last)
                saved = time.monotonic()


def _save(folder: Path, sums: dict[str, Tensor], *, tokens: int, batches: int, complete: bool) -> None:
    with atomic_dir(folder) as new:
        save_file({name: tensor.cpu().contiguous() for name, tensor in sums.items()}, new / SUMS)
        write_json(new / STATE, {"tokens": tokens, "batches": batches, "complete": complete})


def _resumed(folder: Path, weights: dict[str, nn.Parameter]) -> tuple[int, int, dict[str, Tensor]]:
    """Return batches done, tokens seen and the sums so far."""
    if not (folder / STATE).is_file():
        zeros = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        return 0, 0, zeros
    state = read_json(folder / STATE)
    stored = load_file(folder / SUMS)
    return state["batches"], state["tokens"], {name: stored[name].to(w.device) for name, w in weights.items()}


def _is_complete(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / STATE).read_text(encoding="utf-8"))["complete"])
    except (OSError, ValueError, KeyError):
        return False
