"""Leaving everything as it was: process-wide state, and all of a model but the part in training."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers.utils import logging as hf_logging

__all__ = ["globals_kept", "only_trainable"]


@contextmanager
def globals_kept() -> Iterator[None]:
    """Give back what the Trainer changes for the whole process: random states and the library's log level."""
    python, numpy, level = random.getstate(), np.random.get_state(), hf_logging.get_verbosity()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    library = logging.getLogger("transformers")
    own_level = library.level
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        hf_logging.set_verbosity(level)
        library.setLevel(own_level)


@contextmanager
def only_trainable(model: nn.Module, trainable: nn.Module) -> Iterator[None]:
    """Freeze all of ``model`` but ``trainable`` inside the block; flags come back, gradients go."""
    flags = {id(p): p.requires_grad for m in (model, trainable) for p in m.parameters()}
    modes = [(m, m.training) for root in (model, trainable) for m in root.modules()]
    inner = {id(p) for p in trainable.parameters()}
    try:
        if trainable is not model:
            for parameter in model.parameters():
                parameter.requires_grad_(id(parameter) in inner and flags[id(parameter)])
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for root in (model, trainable):
            for parameter in root.parameters():
                parameter.requires_grad_(flags[id(parameter)])
                parameter.grad = None
