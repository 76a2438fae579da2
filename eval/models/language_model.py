"""`LanguageModel`: the seam at which every method enters scoring, generation and training."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.data.collate import Encoded, collate, encode, encode_prompts, pad_left, pad_token_id
from eval.models.forward import answer_logits, evaluating, install_selector, shared_prompt_logits
from eval.models.generation import Generation, GenerationOptions, greedy
from eval.models.scoring import TokenScores, token_scores
from eval.models.templates import Template, resolve_template
from eval.types import Batch, Example, Kind, Message, Progress, Prompt, conversation

__all__ = ["Generation", "GenerationOptions", "LanguageModel"]

LOGITS_BYTES = 2**25
"""Answer logits (fp32) of one scoring batch on a CPU (small batches stay in its cache); 64 times as much on a GPU."""

INPUT_TOKENS = 2**15
"""Prompt tokens of one scoring batch on a CPU, each distinct prompt counted once; 16 times as many on a GPU."""

KEPT_TOGETHER = 8
"""Answers of one prompt that stay in one batch whatever they cost, so that the prompt is computed once."""


class LanguageModel:
    """A causal model with its tokenizer and template, scored and sampled in one way.

    A method that edits or filters overrides `forward_context` (hidden states), `processors` (decoding) or
    `answer_logits` (everything likelihood-based); scoring, generation, training and evaluation then follow.

    Args:
        model: A Hugging Face causal model, or a PEFT model around one.
        tokenizer: Its tokenizer; never changed.
        template: A template or what `eval.models.templates.resolve_template` accepts.
        name: For reports.
        kind: What was done to the model.
        ou_compat: Mask real eos tokens in prompts when eos is the pad token, as OpenUnlearning's published
            numbers did.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | Template = "auto",
        name: str = "model",
        kind: Kind = "none",
        ou_compat: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = resolve_template(template, tokenizer)
        self.name = name
        self.kind: Kind = kind
        self.ou_compat = ou_compat
        self._identity: str | None = None
        install_selector(model)

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the input embedding."""
        device: torch.device = next(self.model.get_input_embeddings().parameters()).device
        return device

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def identity(self) -> str:
        """SHA-256 over configuration, parameter names, shapes and up to 4,096 values of each parameter.

        Computed once: artifacts record it and refuse another base model.
        """
        if self._identity is None:
            self._identity = _identity(self.trainable_base())
        return self._identity

    @property
    def trainable_parameters(self) -> int:
        """Parameters a method trained to make this model: none unless weights or an adapter were trained."""
        if self.kind != "weights":
            return 0
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a generation."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, (list, tuple)) else [configured]
        return tuple(dict.fromkeys(int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    # --- what a method overrides -----------------------------------------------------------------------------

    def forward_context(self, prompt_end: Tensor) -> AbstractContextManager[Any]:
        """Enter around every forward of a batch.

        Args:
            prompt_end: Column one past the last prompt token of each row in the full row, shape ``(B,)``
                (columns already in the key-value cache count).
        """
        return nullcontext()

    def processors(self, prompts: Sequence[tuple[Message, ...]], prompt_length: int) -> list[Any]:
        """Return the logits processors for one generated batch whose padded prompts have ``prompt_length`` tokens.

        One that keeps data for each row must have ``select(rows)``, which returns it for those rows.
        """
        return []

    def answer_logits(self, batch: Batch, *, module: nn.Module | None = None) -> Tensor:
        """Return the logits that predict answer tokens, in the order of ``batch.targets``, shape ``(N, V)``.

        Gradients flow where they are enabled; without them, rows that share a prompt compute it once.

        Args:
            batch: On any device.
            module: What to call instead of ``self.model`` (a data-parallel wrapper of it).
        """
        batch = batch.to(self.device)
        shares = batch.prompt_group is not None and int(batch.prompt_group.max()) + 1 < len(batch)
        if shares and module is None and not torch.is_grad_enabled() and not self.ou_compat:
            logits = shared_prompt_logits(self.model, batch, self.forward_context)
            if logits is not None:
                return logits
        return answer_logits(module or self.model, batch, self.forward_context(batch.prompt_end))

    @contextmanager
    def edit_disabled(self) -> Iterator[None]:
        """Give the base model's knowledge back inside the block: adapters off; nothing to do on a plain model."""
        if hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield
        else:
            yield

    def trainable_base(self) -> Any:
        """The model whose weights carry the knowledge: what an attack would fine-tune."""
        return self.model

    def with_base(self, base: LanguageModel) -> LanguageModel:
        """Return this model's edit or filter on other weights; a plain model is just those weights."""
        return base

    def copied(self) -> LanguageModel:
        """Return a plain, trainable model with its own copy of `trainable_base`, an adapter merged into it."""
        model = copy.deepcopy(self.trainable_base())
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return LanguageModel(
            model,
            self.tokenizer,
            template=self.template,
            name=self.name,
            kind="weights" if self.kind == "weights" else "none",
            ou_compat=self.ou_compat,
        )

    def forget_identity(self) -> None:
        """Compute `identity` anew when it is next asked for: call it after changing weights in place."""
        self._identity = None

    # --- built on it -------------------------------------------------------------------------------------------

    def encode(self, examples: Sequence[Example], answers: Sequence[str]) -> list[Encoded]:
        """Tokenise (example, answer) pairs with this model's tokenizer and template."""
        return encode(self.tokenizer, self.template, examples, answers)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Pad encoded rows into one batch."""
        return collate(rows, pad_token_id(self.tokenizer), ou_compat=self.ou_compat)

    def score(
        self,
        examples: Sequence[Example],
        answers: Sequence[str],
        *,
        moments: bool = False,
        progress: Progress | None = None,
    ) -> list[TokenScores]:
        """Score each answer after the prompt of the example beside it; equal pairs are scored once.

        Args:
            examples: One for each answer; repeat an example for each of its answers.
            answers: The texts to score.
            moments: Also return mean and variance under the model's own distribution.
            progress: Told the number of scored answers.
        """
        rows = self.encode(examples, answers)
        distinct = list(dict.fromkeys(rows))
        scores: dict[Encoded, TokenScores] = {}
        with evaluating(self.model):
            for chunk in self._scoring_batches(distinct):
                batch = self.collate(chunk).to(self.device)
                logits = self.answer_logits(batch)
                lengths = [len(row.answer_ids) for row in chunk]
                scores.update(
                    zip(chunk, token_scores(logits, batch.targets, lengths, moments=moments), strict=True)
                )
                if progress is not None:
                    progress("scoring", len(scores), len(distinct))
        return [scores[row] for row in rows]

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt; greedy by default, equal prompts then answered once."""
        options = options or GenerationOptions()
        conversations = [conversation(prompt) for prompt in prompts]
        keys: list[Any] = list(enumerate(conversations) if options.do_sample else conversations)
        distinct: dict[Any, tuple[Message, ...]] = dict(zip(keys, conversations, strict=True))
        encoded = encode_prompts(self.tokenizer, self.template, list(distinct.values()))
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        names = list(distinct)
        answers: dict[Any, Generation] = {}
        with evaluating(self.model):
            for chunk in self._generation_batches(order, encoded, options):
                messages = [distinct[names[i]] for i in chunk]
                new = self._generate_batch(messages, [encoded[i] for i in chunk], options)
                answers.update(zip((names[i] for i in chunk), new, strict=True))
                if progress is not None:
                    progress("generating", len(answers), len(distinct))
        return [answers[key] for key in keys]

    def continue_tokens(
        self, messages: tuple[Message, ...], prefixes: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> list[list[int]]:
        """Continue token prefixes greedily, for measures that cut texts at tokens rather than at words.

        Args:
            messages: The conversation that the prefixes begin, for filters.
            prefixes: Token ids, at least one each.
            lengths: New tokens of each at most.
        """
        out: list[list[int]] = [[] for _ in prefixes]
        order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
        options = GenerationOptions(max_new_tokens=max(lengths, default=1))
        with evaluating(self.model):
            for chunk in self._generation_batches(order, prefixes, options):
                longest = GenerationOptions(max_new_tokens=max(lengths[i] for i in chunk))
                said = self._generate_batch([messages] * len(chunk), [prefixes[i] for i in chunk], longest)
                for i, generation in zip(chunk, said, strict=True):
                    out[i] = list(generation.token_ids[: lengths[i]])
        return out

    def save(self, directory: Path | str) -> None:
        """Save model and tokenizer as safetensors and JSON."""
        self.model.save_pretrained(directory, safe_serialization=True)
        self.tokenizer.save_pretrained(directory)

    def _generate_batch(
        self,
        messages: Sequence[tuple[Message, ...]],
        prompts: Sequence[Sequence[int]],
        options: GenerationOptions,
    ) -> list[Generation]:
        input_ids, mask = pad_left(prompts, pad_token_id(self.tokenizer), ou_compat=self.ou_compat)
        input_ids, mask = input_ids.to(self.device), mask.to(self.device)
        processors = self.processors(messages, input_ids.shape[1])
        if options.do_sample or options.num_beams > 1:
            rows = self._hf_generate(input_ids, mask, processors, options)
        else:
            rows = greedy(
                self.model,
                input_ids,
                mask,
                max_new_tokens=options.max_new_tokens,
                eos_ids=self.eos_ids,
                processors=processors,
                context=self.forward_context,
            )
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [
            Generation(text=text.strip(), token_ids=tuple(ids), is_finished=len(ids) < options.max_new_tokens)
            for text, ids in zip(texts, rows, strict=True)
        ]

    def _hf_generate(
        self, input_ids: Tensor, mask: Tensor, processors: list[Any], options: GenerationOptions
    ) -> list[list[int]]:
        sampling = {"temperature": options.temperature, "top_p": options.top_p} if options.do_sample else {}
        ends = torch.full((len(input_ids) * options.num_beams,), input_ids.shape[1], device=self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self.forward_context(ends):
            torch.manual_seed(options.seed)
            out = self.model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=options.max_new_tokens,
                do_sample=options.do_sample,
                num_beams=options.num_beams,
                logits_processor=processors,
                pad_token_id=pad_token_id(self.tokenizer),
                eos_token_id=list(self.eos_ids),
                **sampling,
            )
        rows: list[list[int]] = []
        for ids in out[:, input_ids.shape[1] :].tolist():
            end = next((i for i, token in enumerate(ids) if token in self.eos_ids), len(ids))
            rows.append(ids[:end])
        return rows

    def _scoring_batches(self, rows: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """Yield rows of like answer length, those of one prompt together, within the memory for logits and inputs."""
        is_gpu = self.device.type == "cuda"
        budget = LOGITS_BYTES * (64 if is_gpu else 1) // (4 * self.vocab_size)
        limit = INPUT_TOKENS * (16 if is_gpu else 1)
        groups: dict[tuple[int, ...], list[Encoded]] = {}
        for row in rows:
            groups.setdefault(row.prompt_ids, []).append(row)

        def cost(members: list[Encoded]) -> int:
            return max(len(row.answer_ids) for row in members)

        pieces = [piece for members in groups.values() for piece in _pieces(members, budget)]
        chunk: list[Encoded] = []
        prompts = 0
        for members in sorted(pieces, key=lambda g: (cost(g), len(g[0].prompt_ids))):
            width = max(len(row.prompt_ids) for row in (*chunk, *members))
            is_full = (len(chunk) + len(members)) * cost(members) > budget
            if chunk and (is_full or (prompts + 1) * width > limit):
                yield chunk
                chunk, prompts = [], 0
            chunk.extend(members)
            prompts += 1
        if chunk:
            yield chunk

    def _generation_batches(
        self, order: Sequence[int], encoded: Sequence[Sequence[int]], options: GenerationOptions
    ) -> Iterator[list[int]]:
        limit = options.max_batch_tokens or (2**17 if self.device.type == "cuda" else 2**15)
        chunk: list[int] = []
        for i in order:
            width = len(encoded[i]) + options.max_new_tokens
            if chunk and (len(chunk) + 1) * width * options.num_beams > limit:
                yield chunk
                chunk = []
            chunk.append(i)
        if chunk:
            yield chunk


def _pieces(members: list[Encoded], budget: int) -> list[list[Encoded]]:
    """Split the answers of one prompt where they are too many: whole documents, which share a single first token."""
    members = sorted(members, key=lambda row: len(row.answer_ids))
    longest = len(members[-1].answer_ids)
    together = 1 if len(members[0].prompt_ids) == 1 else KEPT_TOGETHER
    size = max(together, budget // longest)
    return [members[i : i + size] for i in range(0, len(members), size)]


def _identity(model: Any) -> str:
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _UNSTABLE_CONFIG}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)]
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()


_UNSTABLE_CONFIG = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",  # None until a model is saved for the first time
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
