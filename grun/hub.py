"""To the Hugging Face hub and back: ``push_to_hub`` and ``from_pretrained`` of edits and stacks of edits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download

from eval.artifacts import write_text
from eval.errors import ArtifactError

if TYPE_CHECKING:
    from eval.models.language_model import LanguageModel

__all__ = ["HubMixin"]

_FILES = ["*.json", "*.safetensors"]
"""What a download takes: never a pickle."""


class HubMixin(ModelHubMixin, library_name="unlearn-toolkit", tags=["unlearning", "grun"]):
    """Hub methods for a class with ``save(directory)`` that `grun.attach` reads back."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the object plainly: the mixin would keep the constructor's arguments for a ``config.json``."""
        return object.__new__(cls)

    def save(self, directory: Path | str) -> None:
        """Write the edit as JSON and safetensors."""
        raise NotImplementedError

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)
        write_text(Path(save_directory) / "README.md", str(self.model_card()))

    def model_card(self) -> ModelCard:
        """Return the page that the hub shows."""
        base = self.base_name
        on_hub = base.count("/") == 1 and not Path(base).exists()
        data = ModelCardData(
            library_name="unlearn-toolkit", tags=["unlearning", "grun"], base_model=base if on_hub else None
        )
        text = (
            f"---\n{data.to_yaml()}\n---\n\n# GRUN edit of {base}\n\n"
            "A gated edit of hidden states (arXiv:2502.17823). It holds no weights of the base model and changes "
            "none: where its gates open, the model stops revealing what it was asked to forget; without this "
            "edit the model knows it still.\n\n"
            "```python\nimport grun\nfrom eval.models import load\n\n"
            f'lm = load("{base}")\nedited = grun.{type(self).__name__}.from_pretrained("REPOSITORY", lm=lm)\n'
            'print(edited.generate(["..."])[0].text)\n```\n'
        )
        return ModelCard(text)

    @property
    def base_name(self) -> str:
        """Name of the base model, for the card."""
        base: LanguageModel = self.base  # type: ignore[attr-defined]
        return base.name

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        lm: LanguageModel,
        any_base: bool = False,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> Self:
        """Put an edit from the hub, or from a folder, on ``lm``.

        Args:
            pretrained_model_name_or_path: A folder, or a hub name such as ``org/edit``.
            lm: The model the edit was trained on; stays plain itself.
            any_base: Skip the check that ``lm`` is that model.
            force_download: As in Hugging Face; so are the following.
            token: For a private repository.
            cache_dir: Where downloads go.
            local_files_only: Use no network.
            revision: Branch, tag or commit.

        Raises:
            ArtifactError: If there is no such edit, it is damaged or of another kind, or ``lm`` is another model.
        """
        from grun.loading import attach

        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            name = os.fspath(pretrained_model_name_or_path)
            try:
                folder = Path(
                    snapshot_download(
                        name,
                        revision=revision,
                        cache_dir=cache_dir,
                        force_download=force_download,
                        token=token,
                        local_files_only=local_files_only,
                        allow_patterns=_FILES,
                    )
                )
            except (OSError, ValueError) as error:
                first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ArtifactError(
                    f"{name!r} is neither a folder here nor an edit that the hub gave us ({first}); "
                    "check the name."
                ) from error
        edited = attach(lm, folder, any_base=any_base)
        if not isinstance(edited, cls):
            raise ArtifactError(
                f"{folder} was saved by {type(edited).__name__}, not by {cls.__name__}; load it with grun.attach."
            )
        return edited
