"""`ties`: two runs of one recipe, merged into one model (arXiv:2503.21088; TIES-merging, arXiv:2306.01708)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from eval.artifacts import fingerprint, read_json, write_json
from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.processes import is_main, wait
from eval.report import Section
from eval.types import Progress, UnlearningData
from finetune_baselines.artifact import MANIFEST
from finetune_baselines.configuration import Configuration
from finetune_baselines.parametrization import Full, Lora, Parametrization
from finetune_baselines.parametrization.base import TunedModel, clone, wrapped
from finetune_baselines.parametrization.lora import ADAPTER, adapted_layers
from finetune_baselines.recipes import LoraSettings, Recipe
from finetune_baselines.recipes.merged import TiesOptions

__all__ = ["merge_changes", "merge_models", "train_and_merge"]

OWNER = "run.json"
"""In a finished half's folder: what it was trained from."""


class _Run(Protocol):
    def __call__(
        self,
        lm: LanguageModel,
        configuration: Configuration,
        data: UnlearningData,
        output_dir: Path | None,
        *,
        seed: int,
        progress: Progress | None,
    ) -> LanguageModel: ...


def train_and_merge(
    run: _Run,
    lm: LanguageModel,
    configuration: Configuration,
    data: UnlearningData,
    output_dir: Path | None,
    *,
    seed: int,
    progress: Progress | None,
) -> tuple[LanguageModel, Parametrization, Section]:
    """Train both halves and merge them; a half that is finished already is not trained again.

    Args:
        run: Trains one half.
        lm: The model to start from.
        configuration: Of the whole.
        data: The rows.
        output_dir: Where ``over/`` and ``under/`` go.
        seed: Of both runs.
        progress: Told both runs.

    Returns:
        The merged model, what its artifact is, and what a report says about it.

    Raises:
        ConfigError: If factors or a rank are asked for where there are no adapters.
    """
    options = configuration.recipe.get(TiesOptions)
    has_adapter = isinstance(configuration.parametrization, Lora)
    if not has_adapter and (options.ties_space == "factors" or options.merge_rank is not None):
        raise ConfigError(
            f"ties_space=factors and merge_rank are about adapters; parametrization "
            f"{configuration.parametrization.name!r} has none."
        )
    halves: list[LanguageModel] = []
    for name, half in (("over", _half(configuration)), ("under", _half(configuration, under=options))):
        folder = None if output_dir is None else output_dir / name
        key = fingerprint([half.as_json(), lm.identity, seed, data])
        if folder is not None and (folder / MANIFEST).is_file() and _owner(folder) == key:
            halves.append(half.parametrization.load(lm, folder / half.parametrization.artifact))
            continue
        halves.append(run(lm, half, data, folder, seed=seed, progress=_named(name, progress)))
        if folder is not None and is_main():
            write_json(folder / OWNER, {"run": key})
        wait()
    return merge_models(lm, halves, options, configuration.recipe.name)


def merge_models(
    lm: LanguageModel, tuned: list[LanguageModel], options: TiesOptions, method: str
) -> tuple[LanguageModel, Parametrization, Section]:
    """Merge what two runs changed about one base; see `train_and_merge`.

    Args:
        lm: The base.
        tuned: The same base with an adapter each, or with weights of its own.
        options: How.
        method: Names the report's section.
    """
    shares = torch.tensor([options.over_share, options.under_share])
    rank = options.merge_rank
    base = clone(lm.model, lambda name: False)
    rows: list[dict[str, Any]] = []
    changes: dict[str, Tensor] = {}
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        first, second = (_changes(base, one.model) for one in tuned)
        for name in first:
            both = [first[name], second[name]]
            if options.ties_space == "factors":
                layers = [adapted_layers(one.model)[name.removesuffix(".weight")] for one in tuned]
                changes[name] = _merged_factors(layers, shares, options.density)
            else:
                changes[name] = merge_changes(both, shares, options.density)
            row = _row(name, both, changes[name])
            if rank is not None:
                factors[name] = _factorized(changes[name], rank)
                left_out = float((changes[name] - factors[name][1] @ factors[name][0]).norm())
                row["error"] = left_out / row["merged"] if row["merged"] else 0.0
            rows.append(row)
    section = Section(
        id=f"{method}-merge",
        title=f"{method}: merge",
        type="table",
        caption=f"Norms of both changes and of the merged one, by matrix; {100 * options.density:.0f} % of each change "
        "were kept. Opposed: share of the entries that the two would move in opposite directions."
        + (
            ""
            if rank is None
            else f" Error: what rank {rank} leaves out of the merged change, relative to it."
        ),
        data={"columns": _columns(rank is not None), "rows": rows},
    )
    trained = sum(one.trainable_parameters for one in tuned)
    if rank is not None:
        part, merged = _as_adapter(lm, tuned[0], factors, rank)
        return TunedModel.of(merged, num_trained=trained), part, section
    model = clone(lm.model, lambda name: name in changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in changes:
                parameter.add_(changes[name].to(parameter.dtype))
    return TunedModel.of(wrapped(lm, model), num_trained=trained), Full(), section


def _changes(base: Any, tuned: Any) -> dict[str, Tensor]:
    """Return what a run changed, fp32, by the parameter's name in the base."""
    if hasattr(tuned, "peft_config"):
        layers = adapted_layers(tuned)
        return {f"{name}.weight": layer.get_delta_weight(ADAPTER).float() for name, layer in layers.items()}
    start = dict(base.named_parameters())
    own = dict(tuned.named_parameters())
    return {name: p.float() - start[name].float() for name, p in own.items() if p.requires_grad}


def merge_changes(changes: list[Tensor], shares: Tensor, density: float) -> Tensor:
    """Trim each change to its largest entries, elect a sign for each entry, average what agrees with it.

    Args:
        changes: Changes of one weight matrix, equal shapes.
        shares: What each is multiplied by after the sign is elected, shape ``(len(changes),)``.
        density: Share of the entries of each that is kept.

    Returns:
        The merged change, of the same shape; where the signs balance exactly, the positive entries win.
    """
    from peft.utils.merge_utils import ties

    with warnings.catch_warnings():  # density 1 is meant
        warnings.filterwarnings("ignore", message="The density")
        merged: Tensor = ties(changes, shares.to(changes[0].device), density)
    return merged


def _merged_factors(layers: list[Any], shares: Tensor, density: float) -> Tensor:
    """Merge A and B each on its own, as PEFT does."""
    ones = torch.ones(len(layers))
    scales = [
        (float(share) * layer.scaling[ADAPTER]) ** 0.5 for layer, share in zip(layers, shares, strict=True)
    ]
    down, up = (
        merge_changes(
            [
                scale * getattr(layer, side)[ADAPTER].weight.float()
                for layer, scale in zip(layers, scales, strict=True)
            ],
            ones,
            density,
        )
        for side in ("lora_A", "lora_B")
    )
    product = up @ down
    return product.T if layers[0].fan_in_fan_out else product


def _factorized(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rank x in) and B (out x rank) whose product is nearest to a change."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _as_adapter(
    lm: LanguageModel, like: LanguageModel, factors: Mapping[str, tuple[Tensor, Tensor]], rank: int
) -> tuple[Parametrization, LanguageModel]:
    """Put factors on the base as an adapter."""
    targets = like.model.peft_config[ADAPTER].target_modules
    named = targets if isinstance(targets, str) else ",".join(sorted(targets))
    part = Lora(settings=LoraSettings(rank=rank, alpha=float(rank), targets=named))
    adapter = part.prepare(lm, seed=0)
    with torch.no_grad():
        for name, layer in adapted_layers(adapter.model).items():
            down, up = factors[f"{name}.weight"]
            if layer.fan_in_fan_out:
                down, up = up.T, down.T
            found = len(down)
            layer.lora_A[ADAPTER].weight.zero_()[:found] = down
            layer.lora_B[ADAPTER].weight.zero_()[:, :found] = up
    return part, adapter


def _half(configuration: Configuration, *, under: TiesOptions | None = None) -> Configuration:
    """Return the configuration of one adapter's run."""
    recipe: Recipe = configuration.recipe
    own = set(TiesOptions.__dataclass_fields__)
    train = configuration.train
    if under is not None:
        recipe = recipe.changed(
            {
                "forget_weight": under.under_forget_weight,
                "kl_weight": under.under_kl_weight,
                "rt_weight": under.under_rt_weight,
            }
        )
        train = replace(train, batch_size=train.batch_size * under.under_batch_factor)
    options = {key: value for key, value in recipe.options.items() if key not in own}
    return replace(configuration, recipe=replace(recipe, options=options, extras=()), train=train)


def _owner(folder: Path) -> str | None:
    path = folder / OWNER
    return str(read_json(path)["run"]) if path.is_file() else None


def _named(name: str, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{name}-unlearned half: {what}", done, total)


def _row(name: str, both: list[Tensor], change: Tensor) -> dict[str, Any]:
    return {
        "matrix": name,
        "over": float(both[0].norm()),
        "under": float(both[1].norm()),
        "merged": float(change.norm()),
        "opposed": float((both[0] * both[1] < 0).float().mean()),
    }


def _columns(with_error: bool) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [
        {"key": "matrix", "label": "Matrix", "style": "code"},
        {"key": "over", "label": "Over", "digits": 3},
        {"key": "under", "label": "Under", "digits": 3},
        {"key": "merged", "label": "Merged", "digits": 3},
        {"key": "opposed", "label": "Opposed", "digits": 2},
        {"key": "error", "label": "Error", "digits": 3},
    ]
    return columns if with_error else columns[:-1]
