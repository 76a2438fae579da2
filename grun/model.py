"""`EditedModel`: a language model with a GRUN edit that can be switched off, saved and attached again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.data.collate import encode_prompts, pad_token_id
from eval.models.blocks import decoder_blocks, hidden_size
from eval.models.forward import evaluating, selecting
from eval.models.language_model import LanguageModel
from eval.types import Batch, Prompt, conversation
from grun.artifact import Artifact, write_artifact
from grun.base import OnBase
from grun.config import GrunConfig, Positions, resolve_layers
from grun.gate import FollowingGate, GateKind
from grun.hooks import Activation, activated, install_hooks
from grun.intervenable import Intervenable, intervening
from grun.intervention import GatedLoReFT

__all__ = ["EditedModel", "fresh_edits", "new_edit", "read_gates"]


class EditedModel(OnBase):
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
        super().__init__(base, "GRUN")
        self.config = config
        self.training = dict(training or {})
        self._owner, blocks = install_hooks(base.model)
        self.edits = nn.ModuleDict({str(layer): edits[layer] for layer in config.layers})
        """The trainable part: block index to intervention."""
        self._by_block: dict[nn.Module, nn.Module] = {}
        for layer in config.layers:
            block = blocks[layer]
            device = next(block.parameters()).device
            if (
                device.type != "meta"
            ):  # weights that are elsewhere until they run: the edit follows at its first call
                edits[layer].to(device)
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
            if self.is_disabled:
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

    def activate_as(
        self, edits: Mapping[int, nn.Module], prompt_end: Tensor
    ) -> AbstractContextManager[Activation]:
        """Edit forwards at this edit's positions, but with other modules (block index to module)."""
        _, blocks = install_hooks(self.model)
        by_block = {blocks[layer]: module for layer, module in edits.items()}
        return activated(Activation(self._owner, by_block, prompt_end, self.config.positions))

    @property
    def interventions(self) -> dict[int, GatedLoReFT]:
        """Block index to intervention."""
        return {int(layer): cast(GatedLoReFT, edit) for layer, edit in self.edits.items()}

    def block(self, layer: int) -> nn.Module:
        """Return an edited decoder block by its index."""
        return list(self._by_block)[self.config.layers.index(layer)]

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
                    self._session = stack.enter_context(
                        intervening(self.model, self.config.blocks_path, self.interventions)
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
        self, batch: Batch, *, module: nn.Module | None = None, open_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return answer logits and gate logits of one batch, with gradients where they are enabled.

        Args:
            batch: On any device.
            module: What to call instead of ``self.model``; a data-parallel wrapper always runs the hooks.
            open_rows: Rows edited as if their gate were wide open, bool, shape ``(B,)``; only for ``answer``
                positions.

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
                if activation is not None:
                    activation.open_rows = open_rows
                out = (module or self.model)(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                )
        if activation is None:
            raise RuntimeError(
                "The edit is switched off, so there are no gate logits; leave edit_disabled() first."
            )
        return out.logits, activation.stacked()

    # --- reading, saving --------------------------------------------------------------------------

    def gate(self, prompts: Sequence[Prompt]) -> npt.NDArray[np.float32]:
        """Return how far each gate opens at the end of each prompt, in [0, 1], shape ``(prompts, L)``."""

        def activate(ends: Tensor, stack: ExitStack) -> list[Activation | None]:
            return [stack.enter_context(self._forward_context(ends, keeps_gates=True))]

        return read_gates(self, prompts, activate, [len(self.config.layers)])[0]

    @property
    def trainable_parameters(self) -> int:
        """Parameters the edit adds."""
        return sum(parameter.numel() for parameter in self.edits.parameters())

    @property
    def parameter_share(self) -> float:
        """Parameters the edit adds, as a share of the base's."""
        base_size: int = sum(parameter.numel() for parameter in self.trainable_base().parameters())
        return self.trainable_parameters / base_size

    def edit_digest(self) -> str:
        """Return a SHA-256 over the configuration and every value."""
        digest = hashlib.sha256(repr(self.config).encode())
        for intervention in self.interventions.values():
            for tensor in intervention.tensors().values():
                digest.update(tensor.float().numpy().tobytes())
        return digest.hexdigest()

    def with_base(self, base: LanguageModel) -> EditedModel:
        """Return the same edit (shared, not copied) on other weights of the same shape."""
        return EditedModel(self.base.with_base(base), self.config, self.interventions, training=self.training)

    def save(self, directory: Path | str) -> None:
        """Write ``grun_config.json`` and ``grun.safetensors``; `attach` reads them.

        Raises:
            ConfigError: If the folder cannot be written to.
        """
        tensors = {
            f"{layer}.{name}": tensor
            for layer, edit in self.interventions.items()
            for name, tensor in edit.tensors().items()
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
    edits = fresh_edits(config, generator)
    return EditedModel(lm, config, edits), num_merged


def fresh_edits(config: GrunConfig, generator: torch.Generator) -> dict[int, GatedLoReFT]:
    """Return untrained, frozen edits of a shape, block index to intervention."""
    edits = {
        layer: GatedLoReFT(
            embed_dim=config.hidden_size,
            rank=config.rank,
            gate=config.gate,
            gate_input=config.gate_input,
            generator=generator,
        )
        for layer in config.layers
    }
    for layer, edit in edits.items():
        if config.gate == "phrase" and layer != config.layers[0]:
            edit.gate = FollowingGate()
        edit.requires_grad_(False)
    return edits


def read_gates(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    activate: Callable[[Tensor, ExitStack], Sequence[Activation | None]],
    widths: Sequence[int],
) -> list[npt.NDArray[np.float32]]:
    """Run prompts without answers and return how far gates open on each.

    Args:
        lm: Its module runs.
        prompts: Strings, chats or examples.
        activate: Enters, for prompt ends ``(B,)``, the contexts of one forward; returns the activations to read
            (``None``: switched off).
        widths: Edited blocks of each activation.

    Returns:
        For each activation, values in [0, 1] of shape ``(prompts, width)``; 0 where it is switched off.
    """
    encoded = encode_prompts(lm.tokenizer, lm.template, [conversation(prompt) for prompt in prompts])
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    values = [np.zeros((len(encoded), width), dtype=np.float32) for width in widths]
    with evaluating(lm.model):
        for start in range(0, len(order), 128):
            chunk = order[start : start + 128]
            rows = [torch.tensor(encoded[i]) for i in chunk]
            ends = torch.tensor([len(row) for row in rows], device=lm.device)
            ids = nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=pad_token_id(lm.tokenizer)
            ).to(lm.device)
            mask = (torch.arange(ids.shape[1], device=lm.device)[None] < ends[:, None]).long()
            with ExitStack() as stack:
                active = activate(ends, stack)
                stack.enter_context(selecting(lambda hidden: hidden[:0, 0]))
                lm.model(input_ids=ids, attention_mask=mask, use_cache=False)
            for found, activation in zip(values, active, strict=True):
                if activation is not None:
                    found[chunk] = torch.sigmoid(activation.stacked()).T.cpu().numpy()
    return values
