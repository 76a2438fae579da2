"""A small Llama-architecture model and its byte-level BPE tokenizer, from nothing: the embedded default."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch

from eval.data.benchmark import Benchmark
from eval.errors import UnknownNameError
from eval.models.language_model import LanguageModel

__all__ = ["SIZES", "Size", "benchmark_texts", "build", "untrained"]


class Size(NamedTuple):
    """Shape of a scratch model."""

    vocab: int
    """Upper bound: the tokenizer stops earlier where nothing is left to merge."""
    hidden: int
    layers: int
    heads: int
    intermediate: int


SIZES = {
    "tiny": Size(vocab=512, hidden=64, layers=2, heads=4, intermediate=160),
    "small": Size(vocab=2048, hidden=160, layers=2, heads=4, intermediate=480),
    "base": Size(vocab=4096, hidden=256, layers=4, heads=8, intermediate=704),
    "large": Size(vocab=8192, hidden=768, layers=12, heads=12, intermediate=2048),
}
"""Name to shape. ``small`` is what ``unlearn compare`` trains by default; ``large`` (about 91 M) wants a GPU."""

BOS, EOS, PAD, SYSTEM, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""One special token opens a turn and the end-of-sequence token closes the assistant's: short prompts train fast."""

MAX_POSITIONS = 1024


def build(size: str, texts: Iterable[str], *, seed: int = 0) -> LanguageModel:
    """Return an untrained model of a size, with a tokenizer trained on the texts.

    Equal arguments give equal weights and an equal vocabulary; the global random state is left as it was.

    Args:
        size: One of `SIZES`.
        texts: What the tokenizer learns its merges from.
        seed: Of the initial weights.

    Raises:
        UnknownNameError: If there is no such size.
    """
    if size not in SIZES:
        raise UnknownNameError("size of scratch model", size, SIZES)
    shape = SIZES[size]
    tokenizer = _tokenizer(texts, shape.vocab)
    return LanguageModel(_model(shape, tokenizer, seed), tokenizer, name=f"scratch:{size}")


def untrained(size: str = "small", *, seed: int = 0) -> LanguageModel:
    """Return an untrained model whose tokenizer knows the embedded benchmark."""
    from eval.data.world import load

    return build(size, benchmark_texts(load()), seed=seed)


def benchmark_texts(benchmark: Benchmark) -> Iterator[str]:
    """Yield every question and answer of a benchmark, never-taught rows too.

    A tokenizer that had not seen the holdout's names would cut them finer than the forget set's, and
    membership inference would measure that.
    """
    tested = (row for rows in benchmark.splits.values() for row in rows)
    for row in (*benchmark.forget, *benchmark.forget_wordings, *benchmark.retain, *benchmark.taught, *tested):
        yield from (message.content for message in row.conversation)
        yield from (text for text in (row.answer, row.paraphrased_answer) if text)


def _tokenizer(texts: Iterable[str], vocab: int) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = [PAD, BOS, EOS, SYSTEM, USER, ASSISTANT]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _model(shape: Size, tokenizer: Any, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.02,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()
