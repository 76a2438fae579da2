"""The guard as an unlearning method: ``guard`` restricts answers, ``guard-refuse`` refuses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from eval.types import Kind, Progress, UnlearningData
from guard.config import GuardSettings, Policy
from guard.core import Guard
from guard.model import GuardedModel

__all__ = ["METHODS", "GuardMethod"]

FOLDER = "guard"


@dataclass(frozen=True, kw_only=True)
class GuardMethod:
    """Builds a guard from the data and puts it before the target; the target's weights are untouched."""

    name: str
    policy: Policy
    summary: str
    guard_settings: GuardSettings = field(default_factory=GuardSettings)
    kind: Kind = "suppression"
    paper: str = "arXiv:2505.13312"

    def settings(self, target: LanguageModel) -> dict[str, Any]:
        """Return the settings of the guard, policy included; they are the same for every ``target``."""
        return {"policy": self.policy, **asdict(self.guard_settings)}

    def unlearn(
        self,
        target: LanguageModel,
        data: UnlearningData,
        output_dir: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Return the guarded target; the store goes to ``output_dir/guard``.

        Raises:
            DataError: If there is nothing to forget.
        """
        if progress is not None:
            progress("building the guard", 0, 1)
        guard = Guard.build(
            forget=data.forget,
            retain=data.retain,
            background=data.background,
            refusals=data.refusals,
            request=self.name,
            settings=replace(self.guard_settings, seed=seed),
            model=target,
        )
        guard.save(Path(output_dir) / FOLDER)
        if progress is not None:
            progress("building the guard", 1, 1)
        return GuardedModel(target, guard, policy=self.policy, name=self.name)

    def load(self, target: LanguageModel, output_dir: Path) -> LanguageModel:
        """Return ``target`` behind the guard that an earlier `unlearn` saved; a store fits any model,
        unless its features are one's hidden states.

        Raises:
            ArtifactError: If the store is missing, half-written or of another encoder.
        """
        guard = Guard.load(Path(output_dir) / FOLDER, model=target)
        return GuardedModel(target, guard, policy=self.policy, name=self.name)


def _settings(overrides: Mapping[str, Any]) -> GuardSettings:
    allowed = sorted(f.name for f in fields(GuardSettings))
    unknown = sorted(set(overrides) - set(allowed))
    if unknown:
        raise ConfigError(f"Unknown guard setting {unknown[0]!r}; allowed: {', '.join(allowed)}.")
    return GuardSettings(**overrides)


def _restrict(overrides: Mapping[str, Any]) -> GuardMethod:
    return GuardMethod(
        name="guard",
        policy="restrict",
        summary="Filter: recognises prompts about forgotten things and answers without the telling phrases.",
        guard_settings=_settings(overrides),
    )


def _refuse(overrides: Mapping[str, Any]) -> GuardMethod:
    return GuardMethod(
        name="guard-refuse",
        policy="refuse",
        summary="Filter: recognises prompts about forgotten things and refuses to answer them.",
        guard_settings=_settings(overrides),
    )


METHODS: dict[str, Callable[[Mapping[str, Any]], GuardMethod]] = {"guard": _restrict, "guard-refuse": _refuse}
"""Method name to what makes it from overrides of `GuardSettings`."""
