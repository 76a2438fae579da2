"""`EditedModel`: a language model with a GRUN edit that can be switched off, saved and attached again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.data.collate import encode_prompts, pad_left, pad_token_id
from eval.errors import ArtifactError
from eval.models.forward import evaluating, selecting
from eval.models.language_model import LanguageModel
from eval.types import Batch, Message, Prompt, conversation
from grun.artifact import Artifact, read_artifact, write_artifact
from grun.blocks import decoder_blocks, hidden_size
from grun.config import GateKind, GrunConfig, Positions, resolve_layers
from grun.hooks import Activation, activated, install_hooks, silenced
from grun.intervenable import Intervenable, intervening
from grun.intervention import GatedLoReFT

__all__ = ["EditedModel", "attach", "new_edit"]

_DISABLED: ContextVar[frozenset[int]] = ContextVar("grun_disabled", default=frozenset())


class EditedModel(LanguageModel):
    """A base `LanguageModel` whose hidden states are edited at the prompt's end, when its gates say so.

    It shares the base's `nn.Module`: the base stays plain, and both may be used from different threads.

    Args:
        base: What the edit is put on.
        config: The shape of the edit.
        edits: Block index to intervention, one for each of ``config.layers``.
        training: Settings and results of the training, saved with the edit.
    """

    def __init__(
        self,
        base: LanguageModel,
        config: GrunConfig,
        edits: Mapping[int, GatedLoReFT],
        *,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            base.model,
            base.tokenizer,
            template=base.template,
            name=f"{base.name} + GRUN",
            kind="edit",
            ou_compat=base.ou_compat,
        )
        self.base = base
        self.config = config
        self.training = dict(training or {})
        self._owner, blocks = install_hooks(base.model)
        self.edits = nn.ModuleDict({str(layer): edits[layer] for layer in config.layers})
        """The trainable part: block index to intervention."""
        self._by_block: dict[nn.Module, nn.Module] = {}
        for layer in config.layers:
            block = blocks[layer]
            edits[layer].to(next(block.parameters()).device)
            self._by_block[block] = edits[layer]
        self._session: Intervenable | None = None

    # --- the seam ---------------------------------------------------------------------------------

    def forward_context(self, prompt_end: Tensor) -> AbstractContextManager[Any]:
        """Edit every forward inside the context at the positions that belong to ``prompt_end`` ``(B,)``."""
        return self._forward_context(prompt_end)

    @contextmanager
    def _forward_context(
        self, prompt_end: Tensor, rows: Tensor | None = None, keeps_gates: bool = False
    ) -> Iterator[Activation | None]:
        with ExitStack() as stack:
            stack.enter_context(self.base.forward_context(prompt_end))
            if id(self) in _DISABLED.get():
                yield None
            else:
                yield stack.enter_context(self.activate(prompt_end, rows=rows, keeps_gates=keeps_gates))

    def activate(
        self, prompt_end: Tensor, *, rows: Tensor | None = None, keeps_gates: bool = False
    ) -> AbstractContextManager[Activation]:
        """Edit forwards of the shared module by hand, some rows only if wished.

        Args:
            prompt_end: Column one past the last prompt token of each row, cached ones included, ``(B,)``.
            rows: True at rows to edit, shape ``(B,)``; the others stay bit for bit the base's. ``None``: all.
            keeps_gates: Record gate logits in the yielded activation's ``gates``.
        """
        install_hooks(self.model)  # other libraries may have removed every hook of the model
        return activated(
            Activation(
                self._owner,
                self._by_block,
                prompt_end,
                self.config.positions,
                rows=rows,
                keeps_gates=keeps_gates,
            )
        )

    def block(self, layer: int) -> nn.Module:
        """Return an edited decoder block by its index."""
        return list(self._by_block)[self.config.layers.index(layer)]

    def processors(self, prompts: Sequence[tuple[Message, ...]], prompt_length: int) -> list[Any]:
        """Return the base's logits processors: the edit needs none."""
        return self.base.processors(prompts, prompt_length)

    @contextmanager
    def edit_disabled(self) -> Iterator[None]:
        """Give the base back inside the block, bit for bit, in this thread."""
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            with silenced():
                yield
        finally:
            _DISABLED.reset(token)

    def trainable_base(self) -> Any:
        """Return the base model's weights, which the edit never touched."""
        return self.base.trainable_base()

    @property
    def identity(self) -> str:
        """The base's: an edit changes no weight."""
        return self.base.identity

    # --- training ---------------------------------------------------------------------------------

    @contextmanager
    def training_session(self, *, through_pyvene: bool = True) -> Iterator[nn.ModuleDict]:
        """Own the shared module for training: only the edit's parameters take gradients inside the block.

        Args:
            through_pyvene: Run forwards through `grun.intervenable`; only for ``last_prompt`` positions, the
                others always use the hooks (pyvene has no ragged positions).

        Yields:
            The trainable part.
        """
        parameters = dict(self.model.named_parameters())
        required = {name: parameter.requires_grad for name, parameter in parameters.items()}
        try:
            with ExitStack() as stack:
                if through_pyvene and self.config.positions == "last_prompt":
                    edits = {int(layer): cast(GatedLoReFT, edit) for layer, edit in self.edits.items()}
                    self._session = stack.enter_context(
                        intervening(self.model, self.config.blocks_path, edits)
                    )
                self.model.requires_grad_(False)
                self.edits.requires_grad_(True)
                yield self.edits
        finally:
            self._session = None
            self.edits.requires_grad_(False)
            self.edits.zero_grad(set_to_none=True)
            for name, parameter in parameters.items():
                parameter.requires_grad_(required[name])

    def answer_and_gate_logits(
        self, batch: Batch, *, module: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return answer logits and gate logits of one batch, with gradients where they are enabled.

        Args:
            batch: On any device.
            module: What to call instead of ``self.model``; a data-parallel wrapper always runs the hooks.

        Returns:
            Answer logits in the order of ``batch.targets``, shape ``(N, V)``, and gate logits pooled
            over each row's edited prompt tokens, shape ``(L, B)``, fp32.
        """
        batch = batch.to(self.device)
        mask = batch.predicting
        with selecting(lambda hidden: hidden[mask.to(hidden.device)]):
            if self._session is not None and not isinstance(module, nn.parallel.DistributedDataParallel):
                with self.base.forward_context(batch.prompt_end):
                    out, gates = self._session.run(
                        batch.input_ids, batch.attention_mask, batch.prompt_end - 1
                    )
                return out.logits, gates
            with self._forward_context(batch.prompt_end, keeps_gates=True) as activation:
                out = (module or self.model)(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                )
        if activation is None:
            raise RuntimeError(
                "The edit is switched off, so there are no gate logits; leave edit_disabled() first."
            )
        return out.logits, self._stacked(activation)

    def _stacked(self, activation: Activation) -> Tensor:
        logits = [activation.gates[block] for block in self._by_block]
        return torch.stack([logit.to(logits[0].device) for logit in logits])

    # --- reading, saving --------------------------------------------------------------------------

    def gate(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.float32]:
        """Return how far each gate opens at the end of each prompt, in [0, 1], shape ``(prompts, L)``."""
        encoded = encode_prompts(self.tokenizer, self.template, [conversation(prompt) for prompt in prompts])
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        values = np.zeros((len(encoded), len(self.config.layers)), dtype=np.float32)
        with evaluating(self.model):
            for start in range(0, len(order), 128):
                chunk = order[start : start + 128]
                ids, mask = pad_left(
                    [encoded[i] for i in chunk], pad_token_id(self.tokenizer), ou_compat=self.ou_compat
                )
                ends = torch.full((len(chunk),), ids.shape[1], device=self.device)
                mask = mask.to(self.device)
                positions = (mask.cumsum(1) - 1).clamp(min=0)
                with (
                    self._forward_context(ends, keeps_gates=True) as activation,
                    selecting(lambda hidden: hidden[:0, 0]),
                ):
                    self.model(
                        input_ids=ids.to(self.device),
                        attention_mask=mask,
                        position_ids=positions,
                        use_cache=False,
                    )
                if activation is not None:
                    values[chunk] = torch.sigmoid(self._stacked(activation)).T.cpu().numpy()
        return values

    @property
    def trainable_parameters(self) -> int:
        """Parameters the edit adds."""
        return sum(parameter.numel() for parameter in self.edits.parameters())

    @property
    def parameter_share(self) -> float:
        """Parameters the edit adds, as a share of the base's."""
        base_size: int = sum(parameter.numel() for parameter in self.trainable_base().parameters())
        return self.trainable_parameters / base_size

    def save(self, directory: Path | str) -> None:
        """Write ``grun_config.json`` and ``grun.safetensors``; `attach` reads them.

        Raises:
            ConfigError: If the folder cannot be written to.
        """
        tensors = {
            f"{layer}.{name}": tensor
            for layer, edit in self.edits.items()
            for name, tensor in edit.tensors().items()  # type: ignore[operator]
        }
        artifact = Artifact(
            config=self.config,
            base_identity=self.identity,
            base_name=self.base.name,
            template=self.template.name,
            tensors=tensors,
            training=self.training,
        )
        write_artifact(Path(directory), artifact)


def new_edit(
    lm: LanguageModel,
    *,
    layers: Sequence[int | float],
    rank: int = 4,
    gate: GateKind = "linear",
    positions: Positions = "last_prompt",
    seed: int = 0,
) -> tuple[EditedModel, int]:
    """Put a fresh edit (the identity, until it is trained) on ``lm``.

    Args:
        lm: The base; stays plain.
        layers: Block indices (int) or depth fractions (float).
        rank: Columns of ``R``.
        gate: Kind of the gate.
        positions: Where the edit applies.
        seed: Of the initial bases; the global generator is not used.

    Returns:
        The edited model, and how many of ``layers`` fell on a block already named.

    Raises:
        ConfigError: If a value is out of range for this model.
    """
    path, blocks = decoder_blocks(lm.model)
    indices, num_merged = resolve_layers(layers, len(blocks))
    config = GrunConfig(
        layers=indices,
        hidden_size=hidden_size(lm.model),
        blocks_path=path,
        rank=rank,
        gate=gate,
        positions=positions,
    )
    generator = torch.Generator().manual_seed(seed)
    edits = _fresh(config, generator)
    return EditedModel(lm, config, edits), num_merged


def _fresh(config: GrunConfig, generator: torch.Generator) -> dict[int, GatedLoReFT]:
    edits = {
        layer: GatedLoReFT(embed_dim=config.hidden_size, rank=config.rank, generator=generator)
        for layer in config.layers
    }
    for edit in edits.values():
        edit.requires_grad_(False)
    return edits


def attach(lm: LanguageModel, path: Path | str, *, any_base: bool = False) -> EditedModel:
    """Put a saved edit on ``lm``, which stays plain itself.

    Args:
        lm: The model the edit was trained on.
        path: Folder that `EditedModel.save` wrote.
        any_base: Skip the check that ``lm`` is that model (same weights in another precision, for example).

    Raises:
        ArtifactError: If the folder is missing, half-written, or was trained on another base model.
    """
    directory = Path(path)
    artifact = read_artifact(directory)
    base_path, blocks = decoder_blocks(lm.model)
    config = artifact.config
    fits = config.hidden_size == hidden_size(lm.model) and config.layers[-1] < len(blocks)
    if not fits or (lm.identity != artifact.base_identity and not any_base):
        raise ArtifactError(
            f"The edit in {directory} was trained on another base model ({artifact.base_name!r}, identity "
            f"{artifact.base_identity[:12]}), not on {lm.name!r} ({lm.identity[:12]}); attach it to that "
            "model or train one for this model."
        )
    edits = _fresh(config, torch.Generator().manual_seed(0))
    expected = {f"{layer}.{name}" for layer, edit in edits.items() for name in edit.tensors()}
    if set(artifact.tensors) != expected:
        raise ArtifactError(f"The tensors in {directory} do not fit its configuration; train the edit anew.")
    for layer, edit in edits.items():
        for name, parameter in edit.named_parameters():
            value = artifact.tensors[f"{layer}.{name}"]
            if value.shape != parameter.shape:
                raise ArtifactError(
                    f"Tensor {layer}.{name} in {directory} has shape {tuple(value.shape)}, not "
                    f"{tuple(parameter.shape)}; train the edit anew."
                )
            parameter.data.copy_(value)
    if base_path != config.blocks_path:  # the same model inside or outside a PEFT wrapper
        config = GrunConfig.from_json(config.as_json() | {"blocks_path": base_path}, str(directory))
    return EditedModel(lm, config, edits, training=artifact.training)
