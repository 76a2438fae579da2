"""What each command can be told: defaults < ``--config file.yaml`` < flags; unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.errors import ConfigError

__all__ = [
    "BenchmarkConfig",
    "CompareConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "ModelConfig",
    "NegativesConfig",
    "PrepareConfig",
    "TrainConfig",
    "build",
]

DEFAULT_BENCHMARK = "world:forget05"
DEFAULT_MODEL = "scratch"


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class BenchmarkConfig(_Config):
    """Which questions, from where."""

    benchmark: str = DEFAULT_BENCHMARK
    data_dir: Path | None = None
    holdout: Path | None = None
    retain_file: Path | None = None
    max_retain: int | None = Field(default=None, ge=1)
    benchmark_seed: int = 0


class ModelConfig(_Config):
    """Which model, and how it is loaded."""

    model: str = DEFAULT_MODEL
    revision: str | None = None
    template: str = "auto"
    device: str = "auto"
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    dtype: str = "auto"
    quantization: Literal["int8", "nf4"] | None = None
    attn_implementation: str | None = None
    ou_compat: bool = False

    @property
    def is_scratch(self) -> bool:
        """Whether the model is trained from nothing rather than loaded."""
        return self.model.partition(":")[0] == "scratch"


class CompareConfig(BenchmarkConfig, ModelConfig):
    """`unlearn compare`."""

    methods: str | list[str] | None = None
    oracle: str | None = None
    reference: Path | None = None
    seed: int = 0
    seeds: int = Field(default=1, ge=1)
    eval_every: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    output_dir: Path | None = None
    set: list[str] = Field(default_factory=list)
    located: dict[str, str] = Field(default_factory=dict)
    """Written into a run's config.yaml: where the relative paths above led (`unlearn.located`)."""


class PrepareConfig(BenchmarkConfig, ModelConfig):
    """`unlearn prepare`."""

    seed: int = 0
    parametrization: Literal["full", "lora"] = "full"
    output_dir: Path | None = None
    set: list[str] = Field(default_factory=list)


class TrainConfig(BenchmarkConfig, ModelConfig):
    """`unlearn train`."""

    parametrization: str | None = None
    eval_every: int | None = Field(default=None, ge=1)
    best_by: str | None = None
    patience: int | None = Field(default=None, ge=1)
    seed: int = 0
    output_dir: Path | None = None
    set: list[str] = Field(default_factory=list)


class NegativesConfig(BenchmarkConfig, ModelConfig):
    """`unlearn negatives`."""

    kind: Literal["negatives", "alternates"] = "negatives"
    generator: str = "auto"
    output: Path | None = None
    prompt: Path | None = None
    seed: int = 0
    set: list[str] = Field(default_factory=list)


class EvaluateConfig(BenchmarkConfig, ModelConfig):
    """`unlearn evaluate`."""

    adapter: Path | None = None
    grun: Path | None = None
    any_base: bool = False
    guard: Path | None = None
    policy: Literal["restrict", "refuse", "monitor"] = "restrict"
    reference: Path | None = None
    seed: int = 0
    max_new_tokens: int | None = Field(default=None, ge=1)
    lm_eval: str | None = None
    lm_eval_limit: int | None = Field(default=None, ge=1)
    output_dir: Path | None = None


class GenerateConfig(ModelConfig):
    """`unlearn generate`."""

    adapter: Path | None = None
    grun: Path | None = None
    any_base: bool = False
    guard: Path | None = None
    policy: Literal["restrict", "refuse", "monitor"] = "restrict"
    audit: Path | None = None
    max_new_tokens: int = Field(default=128, ge=1)
    sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0


T = TypeVar("T", bound=_Config)


def build(kind: type[T], path: Path | None, flags: dict[str, Any]) -> T:
    """Merge a configuration file and flags into a validated configuration.

    Args:
        kind: Which command's.
        path: A YAML file, or ``None``.
        flags: What stood on the command line; it wins over the file.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is not allowed.
    """
    values = {**(_read(path) if path is not None else {}), **flags}
    unknown = sorted(set(values) - set(kind.model_fields))
    if unknown:
        raise ConfigError(
            f"Unknown setting {unknown[0]!r} in {path}; allowed: {', '.join(sorted(kind.model_fields))}."
        )
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"Setting {name!r} is {first['input']!r}: {first['msg'].lower()}.") from None


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read ({error.strerror}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The configuration file {path} is not valid YAML ({' '.join(str(error).split())})."
        ) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"The configuration file {path} must hold settings (key: value), not a {type(value).__name__}."
        )
    return {str(key).replace("-", "_"): item for key, item in value.items()}
