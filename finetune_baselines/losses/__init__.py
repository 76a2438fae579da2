"""Losses: tensors in, a scalar out; one method a file. None of them knows a model."""

from finetune_baselines.losses.cross_entropy import cross_entropy_loss
from finetune_baselines.losses.gradient_ascent import gradient_ascent_loss
from finetune_baselines.losses.kl import kl_loss
from finetune_baselines.losses.npo import npo_loss

__all__ = ["cross_entropy_loss", "gradient_ascent_loss", "kl_loss", "npo_loss"]
