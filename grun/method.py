"""GRUN as `UnlearningMethod`s: ``grun-gd``, ``grun-idk``, ``grun-npo`` and ``grun-rmu``."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eval.artifacts import writable_dir, write_json
from eval.errors import ArtifactError
from eval.models.language_model import LanguageModel
from eval.types import Example, Kind, Progress, UnlearningData, UnlearningMethod
from grun.artifact import CONFIG_FILE
from grun.settings import check_overrides, settings_for

__all__ = ["METHODS", "Grun"]

FOLDER = "grun"
"""Folder of the edit inside a method's output folder."""

SECTIONS = "sections.json"
"""What a report takes over: how the gate behaves on wordings it was not fitted on."""

METRICS_FILE = "metrics.jsonl"
"""What the trainer writes, one line a step."""

_SUMMARIES = {
    "gd": "Edits hidden states where a gate opens; trained by bounded gradient ascent on the forget answers",
    "idk": 'Edits hidden states where a gate opens; trained towards "I don\'t know" lines',
    "npo": "Edits hidden states where a gate opens; trained by negative preference optimization",
    "rmu": "Edits hidden states where a gate opens; trained to steer a block's states to a random direction",
}


@dataclass
class Grun:
    """One GRUN variant as an `UnlearningMethod`.

    Args:
        loss: ``gd``, ``idk``, ``npo`` or ``rmu``.
        overrides: Settings that differ from the preset (see `grun.settings.GrunSettings`).

    Raises:
        ConfigError: If a setting is not allowed.
        UnknownNameError: If the preset is unknown.
    """

    loss: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "edit"
    name: str = field(init=False)
    summary: str = field(init=False)
    paper: str = "arXiv:2502.17823"

    def __post_init__(self) -> None:
        self.name = f"grun-{self.loss}"
        self.summary = _SUMMARIES[self.loss]
        check_overrides(self.overrides)

    def settings(self, target: LanguageModel) -> dict[str, Any]:
        """Return the settings a run on ``target`` would use, preset included."""
        from eval.models.blocks import decoder_blocks

        num_blocks = len(decoder_blocks(target.model)[1])
        return asdict(settings_for(self.loss, self.overrides, num_blocks=num_blocks))

    def unlearn(
        self,
        target: LanguageModel,
        data: UnlearningData,
        output_dir: Path,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LanguageModel:
        """Train the edit and write it to ``output_dir/grun``; see `grun.training.train` and `UnlearningMethod`.

        `examine` reads its gates; commands call it afterwards, so that it does not count as unlearning.
        """
        from grun.training import train

        output_dir = writable_dir(Path(output_dir))
        (output_dir / FOLDER / CONFIG_FILE).unlink(missing_ok=True)  # an interrupted run leaves no old edit
        (output_dir / METRICS_FILE).unlink(missing_ok=True)
        edited = train(
            target,
            forget=data.forget,
            retain=data.retain,
            background=data.background,
            refusals=data.refusals,
            loss=self.loss,
            overrides=self.overrides,
            output_dir=output_dir,
            seed=seed,
            progress=progress,
        )
        edited.save(output_dir / FOLDER)
        shutil.rmtree(output_dir / "checkpoints", ignore_errors=True)  # the trainer's private states
        return edited

    def examine(
        self,
        lm: LanguageModel,
        data: UnlearningData,
        splits: Mapping[str, Sequence[Example]],
        output_dir: Path,
    ) -> None:
        """Read the gates on tested prompts and on unseen wordings, and leave the sections for the report.

        Args:
            lm: What `unlearn` or `load` returned.
            data: What it was given.
            splits: Tested rows by split.
            output_dir: As `unlearn` was given.
        """
        from grun.gate_report import benchmark_prompts, gate_report, held_out_prompts
        from grun.model import EditedModel

        if not isinstance(lm, EditedModel):
            raise TypeError(f"The gates of an EditedModel can be read, not those of a {type(lm).__name__}.")
        prompts = {**held_out_prompts(data), **benchmark_prompts(splits)}
        sections = gate_report(lm, prompts, method=self.name)
        write_json(Path(output_dir) / SECTIONS, [asdict(section) for section in sections])

    def load(self, target: LanguageModel, output_dir: Path) -> LanguageModel:
        """Attach what `unlearn` wrote.

        Raises:
            ArtifactError: If it is missing, half-written, of another variant or of another base model.
        """
        from grun.loading import attach_edit

        edited = attach_edit(target, Path(output_dir) / FOLDER)
        trained_with = edited.training.get("settings", {}).get("loss", self.loss)
        if trained_with != self.loss:
            raise ArtifactError(
                f"{output_dir} holds an edit of grun-{trained_with}, not of {self.name}; load it with that method."
            )
        return edited


def _method(loss: str, overrides: Mapping[str, Any]) -> UnlearningMethod:
    return Grun(loss, dict(overrides))


METHODS: Mapping[str, Callable[[Mapping[str, Any]], UnlearningMethod]] = MappingProxyType(
    {f"grun-{loss}": functools.partial(_method, loss) for loss in _SUMMARIES}
)
"""Method name to a factory that takes a user's overrides."""
