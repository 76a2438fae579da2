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
from eval.report import Section
from eval.types import Progress, UnlearningData
from finetune_baselines.artifact import MANIFEST
from finetune_baselines.configuration import Configuration
from finetune_baselines.parametrization import Full, Lora, Parametrization
from finetune_baselines.parametrization.base import TunedModel, clone, wrapped
from finetune_baselines.parametrization.lora import ADAPTER, adapted_layers
from finetune_baselines.processes import is_main, wait
from finetune_baselines.recipes import LoraSettings, Recipe
from finetune_baselines.recipes.merged import TiesOptions

__all__ = ["merge_adapters", "merge_changes", "train_and_merge"]

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
    """Train both adapters and merge them; a half that is finished already is not trained again.

    Args:
        run: Trains one adapter.
        lm: The model to start from.
        configuration: Of the whole.
        data: The rows.
        output_dir: Where ``over/`` and ``under/`` go.
        seed: Of both runs.
        progress: Told both runs.

    Returns:
        The merged model, what its artifact is, and what a report says about it.

    Raises:
        ConfigError: If the parametrization is no plain adapter.
    """
    if type(configuration.parametrization) is not Lora:
        raise ConfigError(
            f"{configuration.recipe.name} merges two LoRA adapters; parametrization "
            f"{configuration.parametrization.name!r} has none to merge."
        )
    options = configuration.recipe.get(TiesOptions)
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
    return merge_adapters(lm, halves, options, configuration.recipe.name)


def merge_adapters(
    lm: LanguageModel, tuned: list[LanguageModel], options: TiesOptions, method: str
) -> tuple[LanguageModel, Parametrization, Section]:
    """Merge two adapters on one base; see `train_and_merge`.

    Args:
        lm: The base.
        tuned: The same base with one adapter each.
        options: How.
        method: Names the report's section.
    """
    shares = torch.tensor([options.over_share, options.under_share])
    pairs = list(zip(*(adapted_layers(one.model).items() for one in tuned), strict=True))
    rank = options.merge_rank
    model = clone(lm.model, lambda name: name in {f"{layer}.weight" for (layer, _), _ in pairs})
    rows: list[dict[str, Any]] = []
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for (name, first), (_, second) in pairs:
            both = [layer.get_delta_weight(ADAPTER).float() for layer in (first, second)]
            if options.ties_space == "factors":
                change = _merged_factors([first, second], shares, options.density)
            else:
                change = merge_changes(both, shares, options.density)
            row = _row(name, both, change)
            if rank is not None:
                factors[name] = _factorized(change.T if first.fan_in_fan_out else change, rank)
                product = factors[name][1] @ factors[name][0]
                left_out = float((change - (product.T if first.fan_in_fan_out else product)).norm())
                row["error"] = left_out / row["merged"] if row["merged"] else 0.0
            weight = model.get_submodule(name).weight
            weight.add_(change.to(weight.dtype))
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
    part, merged = (Full(), wrapped(lm, model)) if rank is None else _as_adapter(lm, tuned[0], factors, rank)
    trained = sum(one.trainable_parameters for one in tuned)
    return TunedModel.of(merged, num_trained=trained), part, section


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
            (down, up), found = factors[name], len(factors[name][0])
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
    return lambda what, done, total: progress(f"{name}-unlearned adapter: {what}", done, total)


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
