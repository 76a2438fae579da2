"""BLEU of one text against one reference (Papineni et al. 2002), smoothed so that short texts have a value."""

from __future__ import annotations

import re
from collections import Counter
from math import exp, log

__all__ = ["bleu"]

_TOKEN = re.compile(r"\w+|[^\w\s]")


def bleu(reference: str, text: str, *, max_order: int = 4) -> float:
    """Return sentence BLEU in [0, 1] with uniform weights and the brevity penalty.

    Orders without a match count ``1 / 2^k`` matches, ``k`` the how-manieth such order it is ("exp" smoothing of
    sacreBLEU); orders longer than the text are left out. An empty text, or one without a word of the reference,
    scores 0.

    Args:
        reference: The true text. Words and punctuation marks are tokens; case counts.
        text: What was generated.
        max_order: Longest n-gram.
    """
    wanted, said = _TOKEN.findall(reference), _TOKEN.findall(text)
    if not wanted or not said or not set(wanted) & set(said):
        return 0.0
    logs, misses = [], 0
    for n in range(1, min(max_order, len(said)) + 1):
        ours = Counter(zip(*(said[i:] for i in range(n)), strict=False))
        theirs = Counter(zip(*(wanted[i:] for i in range(n)), strict=False))
        matches = float((ours & theirs).total())
        if not matches:
            misses += 1
            matches = 0.5**misses
        logs.append(log(matches / ours.total()))
    penalty = min(0.0, 1.0 - len(wanted) / len(said))
    return exp(penalty + sum(logs) / len(logs))
