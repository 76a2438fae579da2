"""`load`: the one place where a checkpoint becomes a `LanguageModel` on a device, in a precision, with its pads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from eval.errors import ArtifactError, ConfigError
from eval.models.language_model import LanguageModel
from eval.models.templates import Template

__all__ = ["load", "resolve_device", "resolve_dtype"]

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
"""A folder with a tokenizer has at least one of them."""


def resolve_device(device: str) -> torch.device:
    """Turn ``auto`` into cuda, else mps, else cpu; check that a named device is there.

    Raises:
        ConfigError: If CUDA or MPS is asked for and absent, or the name is no device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"Unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps.") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"Device {device!r} was asked for, but this PyTorch sees no CUDA device; use auto or cpu."
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"Device {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices."
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("Device 'mps' was asked for, but this PyTorch sees no MPS device; use auto or cpu.")
    return resolved


def _cpu_has_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype | Literal["auto"]:
    """Turn ``auto`` into the checkpoint's own precision, or fp32 on CPUs without native bf16.

    Raises:
        ConfigError: If the name is unknown.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" and not _cpu_has_bf16() else "auto"
    if dtype not in _DTYPES:
        raise ConfigError(f"Unknown dtype {dtype!r}; use auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def load(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    quantization: Literal["int8", "nf4"] | None = None,
    adapter: str | Path | None = None,
    attn_implementation: str | None = None,
    template: str | Template = "auto",
    ou_compat: bool = False,
) -> LanguageModel:
    """Load a causal language model for scoring, generation and training.

    Args:
        name_or_path: A folder that `save_pretrained` wrote, a hub name, or ``scratch[:tiny|small|base]`` (a small
            untrained Llama whose tokenizer knows the embedded benchmark).
        revision: Of a hub model.
        dtype: ``auto`` (the checkpoint's on a GPU, fp32 on CPUs without native bf16), or a precision.
        device: ``auto`` (cuda, then mps, then cpu) or a device.
        device_map: Spread over several devices, as in Hugging Face (``"auto"``, ``"balanced"``); excludes ``device``.
        quantization: ``int8`` or ``nf4`` through bitsandbytes.
        adapter: A PEFT adapter folder to put on top.
        attn_implementation: As in Hugging Face.
        template: See `eval.models.templates.resolve_template`.
        ou_compat: Reproduce published numbers that masked real eos tokens (`LanguageModel`).

    Raises:
        ArtifactError: If there is no such model or adapter, or it cannot be read.
        ConfigError: If a device, dtype or quantization is unknown or not available here.
    """
    name = str(name_or_path)
    if name == "scratch" or name.startswith("scratch:"):
        from eval.models.scratch import untrained

        lm = untrained(name.partition(":")[2] or "small")
        lm.model.to(resolve_device(device))
        return lm
    if device_map is not None and device != "auto":
        raise ConfigError(
            f"device_map places the model itself; leave out the device ({device!r}), or device_map."
        )
    where = resolve_device(device)
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype, where)}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if quantization is not None:
        options["quantization_config"] = _quantization(quantization)
        device_map = device_map or {"": where}
    if device_map is not None:
        options["device_map"] = device_map
    model, tokenizer = _from_pretrained(name, revision, options)
    if adapter is not None:
        model = _with_adapter(model, Path(adapter))
    if device_map is None:
        model.to(where)
    model.eval()
    return LanguageModel(
        model,
        tokenizer,
        template=template,
        name=name,
        kind="none" if adapter is None else "weights",
        ou_compat=ou_compat,
    )


def _from_pretrained(name: str, revision: str | None, options: dict[str, Any]) -> tuple[Any, Any]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision, **options)
    except UnpicklingError as error:
        raise ArtifactError(
            f"The weights in {name} are a pickle that holds more than tensors, or is damaged; save the model as "
            "safetensors."
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).exists():
            raise ArtifactError(
                f"The model in {name} could not be loaded ({first}); it may be half-written."
            ) from error
        raise ArtifactError(
            f"Model {name!r} is neither a folder here nor a model the hub gave us ({first}); check the name."
        ) from error
    return model, tokenizer


def _check_folder(name: str) -> None:
    """Refuse a path that cannot be a saved model; a name that is no path is left to the hub.

    Raises:
        ArtifactError: With what is missing in it.
    """
    path = Path(name)
    if path.suffix == ".gguf":
        raise ArtifactError(
            f"{name} is a GGUF file, which cannot be trained or edited; give the folder of the Hugging Face model "
            "it was made from."
        )
    if not path.exists():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ArtifactError(
                f"There is no model folder {name}; check the path, or give a hub name such as org/model."
            )
        return
    if not (path / "config.json").is_file():
        inside = " or ".join(str(path / part) for part in ("target", "model") if (path / part).is_dir())
        raise ArtifactError(
            f"{name} holds no config.json, so it is not a saved Hugging Face model; "
            + (f"did you mean {inside}?" if inside else "check the path.")
        )
    if not any((path / file).is_file() for file in _TOKENIZER_FILES):
        raise ArtifactError(
            f"{name} holds a model but no tokenizer ({_TOKENIZER_FILES[0]}); save it there too: "
            "AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)."
        )


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise ArtifactError(
            f"{adapter} holds no adapter_config.json, so it is not a PEFT adapter; check --adapter."
        )
    try:
        return PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArtifactError(f"The adapter in {adapter} does not fit this model ({first}).") from error


def _quantization(kind: str) -> Any:
    from importlib.util import find_spec

    if kind not in ("int8", "nf4"):
        raise ConfigError(f"Unknown quantization {kind!r}; use int8 or nf4.")
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"Quantization {kind!r} needs bitsandbytes; install it with `pip install 'unlearn-toolkit[quantization]'`."
        )
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
