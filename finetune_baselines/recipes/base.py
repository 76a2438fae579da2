"""What a recipe is: named terms on named rows, their weights and settings, and what its paper set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_type_hints

from eval.errors import ConfigError
from finetune_baselines.sampling import SAMPLINGS
from finetune_baselines.terms import TERMS
from finetune_baselines.training import TrainSettings

__all__ = ["AnswerKind", "LoraSettings", "Recipe", "Rows", "TermUse", "forget", "retain"]

AnswerKind = Literal["gold", "refusal", "random", "alternate", "negative"]
"""What may stand after a forget question; see `finetune_baselines.forget_answers`."""
Rows = Literal["gold", "refusal", "random", "alternate", "negative", "retain"]
"""The rows a term looks at: forget questions with one kind of answer, or retain rows."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Shape of a low-rank adapter.

    Raises:
        ConfigError: If a value is out of range.
    """

    rank: int = 16
    alpha: float = 32.0
    """The update is scaled by ``alpha / rank``."""
    dropout: float = 0.0
    targets: str = "all-linear"
    """``all-linear`` (every linear layer but the output embedding), ``mlp`` (those of the feed-forward parts), or
    module names joined by commas."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"LoRA needs rank >= 1, alpha > 0 and 0 <= dropout < 1; got rank {self.rank}, alpha {self.alpha}, "
                f"dropout {self.dropout}."
            )


@dataclass(frozen=True, kw_only=True)
class TermUse:
    """One term of a recipe."""

    loss: str
    """A name in `finetune_baselines.terms.TERMS`."""
    on: Rows
    """The rows it looks at."""
    other: AnswerKind | None = None
    """For a loss on two answers to the same questions: the kind of the second (the winner, the template)."""
    weight: float = 1.0
    """0: the term, and the rows that only it looks at, are left out."""
    name: str | None = None
    """Where a recipe has several terms on one side: its own name, in logs and for ``NAME_weight``."""

    @property
    def side(self) -> Literal["forget", "retain"]:
        """Whose rows it looks at."""
        return "retain" if self.on == "retain" else "forget"

    @property
    def label(self) -> str:
        """Its name in logs."""
        return self.name or f"{self.side}_{self.loss}"

    @property
    def weight_key(self) -> str:
        """The setting that changes its weight."""
        return f"{self.name or self.side}_weight"


def forget(
    loss: str,
    *,
    on: AnswerKind = "gold",
    other: AnswerKind | None = None,
    weight: float = 1.0,
    name: str | None = None,
) -> TermUse:
    """Return a term on forget questions."""
    return TermUse(loss=loss, on=on, other=other, weight=weight, name=name)


def retain(loss: str, *, weight: float = 1.0, name: str | None = None) -> TermUse:
    """Return a term on retain rows."""
    return TermUse(loss=loss, on="retain", weight=weight, name=name)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One unlearning method as data: ``L = sum_k weight_k * L_k`` over its terms.

    Raises:
        ConfigError: If a weight or an option is unknown or out of range.
    """

    name: str
    summary: str
    """One line: what it does."""
    paper: str
    """Where it comes from."""
    terms: tuple[TermUse, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its losses and `extras` that differ from their defaults."""
    extras: tuple[type[Any], ...] = ()
    """Further option classes (frozen dataclasses): of its objective, its way to write answers."""
    objective: str = "sum"
    """How the terms become a gradient: a name in `finetune_baselines.objective.OBJECTIVES`."""
    sampling: str = "pairs"
    """How rows are dealt to steps: a name in `finetune_baselines.sampling.SAMPLINGS`."""
    parametrization: str = "full"
    """What trains where the user does not say."""
    paper_settings: TrainSettings = TrainSettings()  # noqa: RUF009
    """As published for TOFU with a 7 B model; effective batch 32."""
    paper_lora: LoraSettings = LoraSettings()
    paper_lora_learning_rate: float = 1e-4
    scratch: Mapping[str, Any] = field(default_factory=dict)
    """What a small model's preset changes: any setting of the run (see `finetune_baselines.presets`)."""
    scratch_lora: Mapping[str, Any] = field(default_factory=dict)
    """What it changes further with an adapter."""

    def __post_init__(self) -> None:
        for use in self.terms:
            if use.loss not in TERMS:
                raise ConfigError(f"{self.name} names an unknown term {use.loss!r}; use {', '.join(TERMS)}.")
            if not use.weight >= 0:
                raise ConfigError(f"{use.weight_key} is {use.weight}; it must be 0 or above.")
        for name in self.options:
            if name not in self._option_sources:
                raise ConfigError(
                    f"{name!r} is no option of {self.name}; options: {', '.join(self._option_sources) or 'none'}."
                )
        for cls in self._option_classes:
            self.get(cls)

    @property
    def active(self) -> tuple[TermUse, ...]:
        """The terms whose weight is not 0."""
        return tuple(use for use in self.terms if use.weight)

    @property
    def answer_kinds(self) -> tuple[AnswerKind, ...]:
        """What stands after the forget questions, in the order of its first use."""
        kinds = [kind for use in self.active for kind in (use.on, use.other)]
        return tuple(dict.fromkeys(kind for kind in kinds if kind is not None and kind != "retain"))

    @property
    def uses_retain(self) -> bool:
        """Whether a term looks at retain rows."""
        return any(use.on == "retain" for use in self.active)

    @property
    def tunables(self) -> dict[str, Any]:
        """Every setting of the method itself with its value: weights, then options."""
        values = {use.weight_key: use.weight for use in self.terms}
        return values | {name: getattr(self.get(cls), name) for name, cls in self._option_sources.items()}

    def hint(self, name: str) -> Any:
        """Return the declared type of one of the `tunables`."""
        source = self._option_sources.get(name)
        return float if source is None else get_type_hints(source)[name]

    def get(self, cls: type[T]) -> T:
        """Return the options of one class with this recipe's values.

        Raises:
            ConfigError: If a value is out of range.
        """
        own = {
            option.name: self.options[option.name]
            for option in fields(cls)  # type: ignore[arg-type]
            if option.name in self.options
        }
        return cls(**own)

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some of its `tunables` changed.

        Raises:
            ConfigError: If one is unknown or out of range.
        """
        terms = tuple(replace(use, weight=settings.get(use.weight_key, use.weight)) for use in self.terms)
        weights = {use.weight_key for use in self.terms}
        options = {key: value for key, value in settings.items() if key not in weights}
        return replace(self, terms=terms, options={**self.options, **options})

    @cached_property
    def _option_classes(self) -> tuple[type[Any], ...]:
        terms = (TERMS[use.loss].options for use in self.terms)
        return tuple(dict.fromkeys((*terms, *self.extras, SAMPLINGS[self.sampling])))

    @cached_property
    def _option_sources(self) -> dict[str, type[Any]]:
        """Option name to the first class that declares it; terms that share an option share its value."""
        found: dict[str, type[Any]] = {}
        for cls in self._option_classes:
            for option in fields(cls):
                found.setdefault(option.name, cls)
        return found
