"""Losses: tensors in, a scalar out; one method a file. None of them knows a model."""

from finetune_baselines.losses.ce_u import ce_u_loss
from finetune_baselines.losses.cross_entropy import cross_entropy_loss
from finetune_baselines.losses.dpo import dpo_loss
from finetune_baselines.losses.flat import DIVERGENCES, flat_loss
from finetune_baselines.losses.forget_kl import forget_kl_loss
from finetune_baselines.losses.gradient_ascent import gradient_ascent_loss
from finetune_baselines.losses.inverted_hinge import inverted_hinge_loss
from finetune_baselines.losses.jensen_shannon import js_loss, js_to_token_loss, js_to_tokens_loss
from finetune_baselines.losses.kl import gnm_kl_loss, kl_loss
from finetune_baselines.losses.kto import kto_loss
from finetune_baselines.losses.npo import npo_loss
from finetune_baselines.losses.pdu import dual_ascent, flatness_loss
from finetune_baselines.losses.renyi import renyi_loss, renyi_token_loss
from finetune_baselines.losses.rmu import embedding_distance, rmu_direction, rmu_loss
from finetune_baselines.losses.simnpo import simnpo_loss
from finetune_baselines.losses.token_npo import token_npo_loss, weighted_token_npo_loss
from finetune_baselines.losses.undial import undial_loss
from finetune_baselines.losses.weighted_ascent import satimp_loss, wga_loss

__all__ = [
    "DIVERGENCES",
    "ce_u_loss",
    "cross_entropy_loss",
    "dpo_loss",
    "dual_ascent",
    "embedding_distance",
    "flat_loss",
    "flatness_loss",
    "forget_kl_loss",
    "gnm_kl_loss",
    "gradient_ascent_loss",
    "inverted_hinge_loss",
    "js_loss",
    "js_to_token_loss",
    "js_to_tokens_loss",
    "kl_loss",
    "kto_loss",
    "npo_loss",
    "renyi_loss",
    "renyi_token_loss",
    "rmu_direction",
    "rmu_loss",
    "satimp_loss",
    "simnpo_loss",
    "token_npo_loss",
    "undial_loss",
    "weighted_token_npo_loss",
    "wga_loss",
]
