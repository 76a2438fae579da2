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

from eval.artifacts import fingerprint
from eval.data.collate import Encoded, collate, encode, encode_prompts, pad_left, pad_token_id
from eval.models.batching import generation_batches, scoring_batches
from eval.models.forward import answer_logits, evaluating, install_selector, shared_prompt_logits
from eval.models.generation import Generation, GenerationOptions, greedy
from eval.models.scoring import TokenScores, token_scores
from eval.models.templates import Template, resolve_template
from eval.types import Batch, Example, Kind, Message, Progress, Prompt, conversation

__all__ = ["Generation", "GenerationOptions", "LanguageModel"]


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
    def state_digest(self) -> str | None:
        """SHA-256 over all that scores and texts depend on beside the rows, computed anew at every call.

        An edit or a filter adds its own part by overriding it; ``None``: it does not say, so that nothing of an
        interrupted evaluation is used again.
        """
        is_offloaded = any(parameter.is_meta for parameter in self.model.parameters())
        if self.kind not in ("none", "weights") or is_offloaded:
            return None
        where = (str(next(self.model.parameters()).dtype), self.device.type, self.eos_ids, self.ou_compat)
        return fingerprint([_identity(self.trainable_base()), *where])

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
        scores: dict[Encoded, TokenScores] = {}
        batches = self.scoring_batches(rows)
        for batch in batches:
            scores.update(zip(batch, self.score_batch(batch, moments=moments), strict=True))
            if progress is not None:
                progress("scoring", len(scores), sum(map(len, batches)))
        return [scores[row] for row in rows]

    def scoring_batches(self, rows: Sequence[Encoded]) -> list[list[Encoded]]:
        """Group encoded rows, each distinct one once, into the batches `score` computes, the costliest first.

        The same rows make the same batches, so that a batch done anew gives the same numbers to the last bit.
        """
        return scoring_batches(list(dict.fromkeys(rows)), vocab_size=self.vocab_size, is_gpu=self._is_gpu)

    def score_batch(self, rows: Sequence[Encoded], *, moments: bool = False) -> list[TokenScores]:
        """Score encoded rows in one forward pass; see `score`."""
        with evaluating(self.model):
            batch = self.collate(rows).to(self.device)
            logits = self.answer_logits(batch)
            lengths = [len(row.answer_ids) for row in rows]
            return token_scores(logits, batch.targets, lengths, moments=moments)

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
        names = list(distinct)
        answers: dict[Any, Generation] = {}
        with evaluating(self.model):
            for chunk in self._generation_batches(encoded, options):
                messages = [distinct[names[i]] for i in chunk]
                new = self._generate_batch(messages, [encoded[i] for i in chunk], options)
                answers.update(zip((names[i] for i in chunk), new, strict=True))
                if progress is not None:
                    progress("generating", len(answers), len(distinct))
        return [answers[key] for key in keys]

    def generation_batches(self, prompts: Sequence[Prompt], options: GenerationOptions) -> list[list[int]]:
        """Group prompts, equal ones together, into the batches `generate` answers; return their places."""
        places: dict[tuple[Message, ...], list[int]] = {}
        for i, prompt in enumerate(prompts):
            places.setdefault(conversation(prompt), []).append(i)
        encoded = encode_prompts(self.tokenizer, self.template, list(places))
        equal = list(places.values())
        return [
            sorted(i for group in batch for i in equal[group])
            for batch in self._generation_batches(encoded, options)
        ]

    def _generation_batches(
        self, prompts: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[int]]:
        return generation_batches([len(ids) for ids in prompts], options, is_gpu=self._is_gpu)

    @property
    def _is_gpu(self) -> bool:
        return self.device.type == "cuda"

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
        options = GenerationOptions(max_new_tokens=max(lengths, default=1))
        with evaluating(self.model):
            for chunk in self._generation_batches(prefixes, options):
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


def _identity(model: Any) -> str:
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _UNSTABLE_CONFIG}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):  # packed weights of a quantized layer
            digest.update(f"{name}{tensor!r}".encode())
            continue
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.is_meta:  # offloaded: its values are read when its block runs
            continue
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
