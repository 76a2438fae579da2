"""Requests one after another: a stack of named edits, each with gates of its own, each removable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.artifacts import atomic_dir, fingerprint, writable_dir
from eval.errors import ConfigError, UnknownNameError
from eval.models.language_model import LanguageModel
from eval.types import Example, Prompt
from grun.base import OnBase
from grun.hooks import Activation
from grun.intervention import pv
from grun.model import EditedModel, read_gates
from grun.stack_files import Composition, Manifest, check_name, drop_unnamed, folder_of, write_manifest

__all__ = ["EditStack"]


class EditStack(OnBase):
    """Named edits on one base, all at work at once; the base stays plain.

    How the edits of one block combine (``composition``):

    - ``sequential``: each reads what the earlier ones left, in the order they were added, and is trained so: a new
      request learns with the earlier ones at work and frozen (`train`).
    - ``paper``: h' = h + (0.6 n + 0.6) * sum_i sigmoid(g_i(h)) R_i^T (W_i h + b_i - R_i h), n the number of edits;
      each is trained alone, on the base (published code of arXiv:2502.17823). All edits must have one kind of
      positions, and not ``answer``.

    Args:
        base: What the edits are put on.
        composition: ``sequential`` or ``paper``.

    Raises:
        ConfigError: If the composition is unknown.
    """

    def __init__(self, base: LanguageModel, *, composition: Composition = "sequential") -> None:
        super().__init__(base, "GRUN stack")
        if composition not in get_args(Composition):
            raise ConfigError(
                f"Unknown composition {composition!r}; use {' or '.join(get_args(Composition))}."
            )
        self.composition: Composition = composition
        self._edits: Mapping[str, EditedModel] = {}

    # --- the requests -----------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the requests, oldest first."""
        return list(self._edits)

    def __len__(self) -> int:
        return len(self._edits)

    def __contains__(self, name: object) -> bool:
        return name in self._edits

    def __getitem__(self, name: str) -> EditedModel:
        if name not in self._edits:
            raise UnknownNameError("request", name, self._edits)
        return self._edits[name]

    def list(self) -> list[dict[str, Any]]:
        """Return a row for each request, oldest first: name, blocks, rank, gate, positions, parameters."""
        return [
            {
                "name": name,
                "layers": [*edit.config.layers],
                "rank": edit.config.rank,
                "gate": edit.config.gate,
                "positions": edit.config.positions,
                "parameters": edit.trainable_parameters,
            }
            for name, edit in self._edits.items()
        ]

    def check_new(self, name: str) -> None:
        """Refuse a name that a new request cannot have.

        Raises:
            ConfigError: If it is empty or taken.
        """
        check_name(name, self._edits)

    def add(self, name: str, edit: EditedModel) -> None:
        """Put an edit on top; forwards that run already are not touched.

        Args:
            name: Of the request; new in this stack.
            edit: Trained on this stack, or on its base.

        Raises:
            ConfigError: If the name is taken or empty, the edit is on another model, or its positions cannot be
                combined with those that are there.
        """
        self.check_new(name)
        if edit.model is not self.model:
            raise ConfigError(
                f"The edit for {name!r} is on another model ({edit.base.name!r}); train it on this stack, or "
                "attach it to this stack's base."
            )
        self._check_positions(name, edit)
        mine = EditedModel(self.base, edit.config, edit.interventions, training=edit.training)
        self._edits = {**self._edits, name: mine}  # replaced, never changed: other threads may be reading

    def edit_digest(self) -> str:
        """Return a SHA-256 over every edit, in order, and how they are composed."""
        edits = [[name, edit.edit_digest()] for name, edit in self._edits.items()]
        return fingerprint([self.composition, edits])

    def with_base(self, base: LanguageModel) -> EditStack:
        """Return the same requests on other weights of the same shape."""
        stack = EditStack(self.base.with_base(base), composition=self.composition)
        for name, edit in self._edits.items():
            stack.add(name, EditedModel(stack.base, edit.config, edit.interventions, training=edit.training))
        return stack

    def _check_positions(self, name: str, edit: EditedModel) -> None:
        if self.composition != "paper":
            return
        positions = {other.config.positions for other in (*self._edits.values(), edit)}
        if len(positions) > 1 or "answer" in positions:
            raise ConfigError(
                f"composition 'paper' sums edits at the same positions, but with {name!r} there would be "
                f"{', '.join(sorted(positions))}; use composition 'sequential'."
            )

    def remove(self, name: str) -> EditedModel:
        """Take a request out: the model says again what it made it forget; the others stay.

        Returns:
            Its edit, on the base alone.

        Raises:
            UnknownNameError: If there is no such request.
        """
        removed = self[name]
        self._edits = {other: edit for other, edit in self._edits.items() if other != name}
        return removed

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Switch some requests off inside the block, in this thread."""
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self[name].switched_off())
            yield

    def train(
        self,
        name: str,
        *,
        forget: Sequence[Example],
        retain: Sequence[Example],
        background: Sequence[Example] = (),
        **arguments: Any,
    ) -> EditedModel:
        """Train an edit for a new request and add it; see `grun.train` for the arguments.

        With ``sequential``, the earlier requests are at work and frozen while it learns. Where their questions
        may still be kept, pass them (without answers) in ``background``: the new gates then learn to stay shut on
        them, so that removing an earlier request gives its knowledge back.

        Raises:
            ConfigError: If the name is taken, before anything is trained; or as `grun.train`.
        """
        self.check_new(name)
        from grun.training import train

        target = self if self.composition == "sequential" else self.base
        edit = train(target, forget=forget, retain=retain, background=background, **arguments)
        self.add(name, edit)
        return self[name]

    # --- the seam ---------------------------------------------------------------------------------

    def forward_context(self, prompt_end: Tensor) -> AbstractContextManager[Any]:
        """Let every request edit the forwards inside the context, at its positions for ``prompt_end`` ``(B,)``."""
        return self._forward_context(prompt_end)

    @contextmanager
    def _forward_context(self, prompt_end: Tensor) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self.base.forward_context(prompt_end))
            if not self.is_disabled:
                stack.enter_context(self.activate(prompt_end))
            yield

    @contextmanager
    def activate(self, prompt_end: Tensor, *, rows: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Edit forwards of the shared module by hand.

        Args:
            prompt_end: Column one past the last prompt token of each row, cached ones included, ``(B,)``.
            rows: Request to the rows it edits, True at those, shape ``(B,)``; a request that is not named edits
                no row. ``None``: every request edits every row.

        Raises:
            UnknownNameError: If ``rows`` names no request of this stack.
            ConfigError: If ``rows`` is given with composition ``paper``.
        """
        for name in rows or ():
            self[name]
        active = [
            (name, edit)
            for name, edit in self._edits.items()
            if not edit.is_disabled and (rows is None or name in rows)
        ]
        with ExitStack() as stack:
            if self.composition == "paper":
                if rows is not None:
                    raise ConfigError("composition 'paper' has no row masks; use composition 'sequential'.")
                if active:
                    stack.enter_context(_summed([edit for _, edit in active], prompt_end))
            else:
                for name, edit in active:
                    mask = None if rows is None else rows[name]
                    stack.enter_context(edit.activate(prompt_end, rows=mask))
            yield

    def gate(self, prompts: Sequence[Prompt]) -> dict[str, npt.NDArray[np.float32]]:
        """Return how far the gates of each request open, in [0, 1], shape ``(prompts, L)`` each.

        With ``sequential``, as they are read when all are at work; with ``paper``, each on the base alone.
        """
        edits = self._edits
        if self.composition == "paper":
            return {name: edit.gate(prompts) for name, edit in edits.items()}

        def activate(ends: Tensor, stack: ExitStack) -> list[Activation | None]:
            stack.enter_context(self.base.forward_context(ends))
            return [
                None
                if self.is_disabled or edit.is_disabled
                else stack.enter_context(edit.activate(ends, keeps_gates=True))
                for edit in edits.values()
            ]

        widths = [len(edit.config.layers) for edit in edits.values()]
        return dict(zip(edits, read_gates(self, prompts, activate, widths), strict=True))

    @property
    def trainable_parameters(self) -> int:
        """Parameters all edits add."""
        return sum(edit.trainable_parameters for edit in self._edits.values())

    # --- saving -----------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Write the stack; `grun.attach` reads it. An edit that is there already is not written again.

        Whatever interrupts it, the folder holds the old stack or the new one, whole.

        Raises:
            ConfigError: If the folder cannot be written to.
        """
        directory = writable_dir(Path(directory))
        folders: dict[str, str] = {}
        for name, edit in self._edits.items():
            folders[name] = folder_of(name, edit.edit_digest())
            if not (directory / folders[name]).is_dir():
                with atomic_dir(directory / folders[name]) as folder:
                    edit.save(folder)
        manifest = Manifest(folders, self.composition, self.base.name)
        write_manifest(directory, manifest)
        drop_unnamed(directory, manifest)


class _Summed(nn.Module):
    """h + (0.6 n + 0.6) * the sum of what some edits add to the same h."""

    def __init__(self, edits: Sequence[nn.Module], num_edits: int) -> None:
        super().__init__()
        self.edits = nn.ModuleList(edits)
        self.scale = 0.6 * num_edits + 0.6

    def forward(self, hidden: Tensor) -> Any:
        full = hidden.float()
        parts = [edit(full) for edit in self.edits]
        added = torch.stack([part.output - full for part in parts]).sum(0)
        return pv.InterventionOutput(
            output=(full + self.scale * added).to(hidden.dtype), latent=parts[-1].latent
        )


def _summed(edits: Sequence[EditedModel], prompt_end: Tensor) -> AbstractContextManager[Activation]:
    """Activate the sum of several edits as one."""
    by_layer: dict[int, list[nn.Module]] = {}
    for edit in edits:
        for layer, intervention in edit.interventions.items():
            by_layer.setdefault(layer, []).append(intervention)
    sums = {layer: _Summed(found, len(edits)) for layer, found in by_layer.items()}
    return edits[0].activate_as(sums, prompt_end)
