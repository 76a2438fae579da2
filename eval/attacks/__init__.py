"""Attacks: what somebody would try to make an unlearned model talk, and the innocent prompts that look alike."""

from __future__ import annotations

from eval.attacks.near_misses import NearMiss, near_misses
from eval.attacks.prompts import PROMPT_ATTACKS, PromptAttack
from eval.attacks.subjects import with_subjects

__all__ = ["PROMPT_ATTACKS", "NearMiss", "PromptAttack", "near_misses", "with_subjects"]
