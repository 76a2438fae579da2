"""Model utility: one number for what must survive unlearning (TOFU, arXiv:2401.06121)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["UTILITY_TERMS", "harmonic_mean"]

UTILITY_TERMS = (
    "retain_Q_A_Prob",
    "retain_Q_A_ROUGE",
    "retain_Truth_Ratio",
    "ra_Q_A_Prob_normalised",
    "ra_Q_A_ROUGE",
    "ra_Truth_Ratio",
    "wf_Q_A_Prob_normalised",
    "wf_Q_A_ROUGE",
    "wf_Truth_Ratio",
)
"""The nine aggregates behind model utility: retained rows, real authors, world facts."""


def harmonic_mean(values: Sequence[float]) -> float:
    """Return the harmonic mean; 0 if any value is 0 (one lost ability is not made up for by the others).

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("The harmonic mean of no values is not defined.")
    if min(values) <= 0.0:
        return 0.0
    return len(values) / sum(1.0 / value for value in values)
