"""Features from the target model's own hidden states, as in the GUARD paper, in the sentence encoder's place.

A text's vector is the mean over its tokens of one layer's hidden state (arXiv:2505.13312, section 3.1: the layer before
the last), less the mean over everyday prompts, which all texts share, and of unit length. Nothing else of the gate
changes: names, telling words, the store and the classifier are the same. A store of such vectors fits this model alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from eval.errors import ConfigError
from eval.models.language_model import LanguageModel
from guard.config import GuardSettings
from guard.encoder import SentenceEncoder, get_encoder
from guard.normalise import words
from guard.rewordings import EVERYDAY

__all__ = ["HiddenEncoder", "encoder_for", "hidden_identity"]

Vectors = npt.NDArray[np.float32]

_WINDOW_LETTERS = 1000
_BATCH_SIZE = 32
_ENOUGH_WORDS = 5000
"""A vocabulary with so many whole lower-case words knows the frequent ones of its language; smaller ones are those of
small models, whose pieces follow their training texts."""
_WORD_BEGINS = ("\u0120", "\u2581")
"""What marks a piece that begins a word, in byte-level and in SentencePiece vocabularies."""


def hidden_identity(lm: LanguageModel, layer: int) -> str:
    """Return what a store of this model's hidden states is built with: the layer and the model's identity."""
    return f"hidden-states[{layer}]@{lm.identity}"


class HiddenEncoder(SentenceEncoder):
    """Unit vectors from a language model's hidden states, with the sentence encoder's interface and cache.

    The model runs as it is without edit or filter, so that a guard over an edited model sees what it was built on.
    Everyday words, which tell names from words in prompts without capitals, are those of its vocabulary, so that no
    sentence encoder has to be installed; a small vocabulary (`_ENOUGH_WORDS`) has too few, and the packaged encoder's
    are taken.

    Args:
        lm: The target model.
        layer: Which of the hidden states (0: the embeddings); negative: from the last one.

    Raises:
        ConfigError: If the model has no such layer.
    """

    def __init__(self, lm: LanguageModel, *, layer: int = -2) -> None:
        super().__init__(f"hidden states of {lm.name}", device=str(lm.device))
        self.lm = lm
        self.layer = layer
        num_states = int(lm.model.config.get_text_config().num_hidden_layers) + 1
        if not -num_states <= layer < num_states:
            raise ConfigError(
                f"The model has no hidden state {layer}; give one from {-num_states} to {num_states - 1}."
            )

    @cached_property
    def identity(self) -> str:
        """What a store must have been built with: the layer and the model's identity."""
        return hidden_identity(self.lm, self.layer)

    @cached_property
    def common_words(self) -> frozenset[str]:
        """Frequent words of the language: whole lower-case words of the model's vocabulary, or the packaged encoder's.

        Raises:
            ConfigError: If the vocabulary is small and the packaged encoder is not there.
        """
        pieces = (p[1:] for p in self.lm.tokenizer.get_vocab() if p.startswith(_WORD_BEGINS))
        own = frozenset(words(" ".join(p for p in pieces if p.isalpha() and p.islower())))
        return own if len(own) >= _ENOUGH_WORDS else get_encoder().common_words

    def windows(self, text: str) -> list[str]:
        """Cut a text into pieces of `_WINDOW_LETTERS` characters, overlapping by half; one for short texts."""
        size = min(_WINDOW_LETTERS, self._limit // 2)
        if len(text) <= size:
            return [text]
        return [text[start : start + size] for start in range(0, len(text) - size // 2, size // 2)]

    @property
    def _limit(self) -> int:
        """Tokens the model can read."""
        return int(self.lm.model.config.get_text_config().max_position_embeddings)

    @cached_property
    def _centre(self) -> Vectors:
        return np.asarray(self._states(EVERYDAY).mean(axis=0), dtype=np.float32)

    def _forward(self, texts: list[str]) -> list[Vectors]:
        vectors = self._states(texts) - self._centre
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return list(np.asarray(vectors / np.maximum(norms, 1e-9), dtype=np.float32))

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> Vectors:
        """Return the mean hidden state of each text, shape ``(n, D)``."""
        tokenizer = self.lm.tokenizer
        tokens = [tokenizer(text)["input_ids"][: self._limit] or [tokenizer.eos_token_id] for text in texts]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        out: list[Vectors] = [np.zeros(0, dtype=np.float32)] * len(tokens)
        with self.lm.edit_disabled():
            for start in range(0, len(order), _BATCH_SIZE):
                rows = order[start : start + _BATCH_SIZE]
                for i, vector in zip(rows, self._means([tokens[i] for i in rows]), strict=True):
                    out[i] = vector
        return np.stack(out)

    def _means(self, rows: Sequence[list[int]]) -> Vectors:
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.lm.device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows], device=self.lm.device)
        found = self.lm.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        states = found.hidden_states[self.layer].float() * mask[:, :, None]
        means = states.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return np.asarray(means.cpu().numpy(), dtype=np.float32)


def encoder_for(settings: GuardSettings, model: LanguageModel | None) -> SentenceEncoder:
    """Return what makes a guard's vectors.

    Raises:
        ConfigError: If it is a model's hidden states, and no model is given.
    """
    if settings.features == "encoder":
        return get_encoder(settings.encoder)
    if model is None:
        raise ConfigError(
            "This guard compares prompts by a model's hidden states; give the model: Guard.build(..., model=lm) or "
            "Guard.load(store, model=lm), --model on the command line."
        )
    return HiddenEncoder(model, layer=settings.layer)
