"""English words that carry no fact: never a phrase of their own."""

from __future__ import annotations

__all__ = ["STOP_WORDS", "word_set"]


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text set in lines."""
    return frozenset(text.split())


STOP_WORDS = word_set(
    """
    a about above across after again against ago all almost along already also although always am among an and
    another any anybody anyone anything are around as at away back be became because become becomes been before
    began begin behind being below beside best between beyond both but by call called came can cannot come comes
    could currently day days did different do does doing done down due during each early either else enough
    especially even ever every everyone everything example few first following for former found from full further
    gave general get give given gives go goes going good got great greatly had has have having he help hence her
    here hers herself him himself his how however i if in include included includes including indeed instead into
    is it its itself just keep kept kind know known knows large last late later least less let like likely little
    long look made mainly make makes making many may maybe me mean means might mine more most mostly much must my
    myself name named namely names near nearly need never new next no nobody none nor not nothing notable notably
    now of off often old on once one ones only onto or other others otherwise our ours out over own part
    particular particularly per perhaps please quite rather re really regarding s said same say says see seem
    seems seen several shall she should show shows since so some somebody someone something sometimes soon still
    such t take taken takes tell than that the their theirs them themselves then there thereby therefore these
    they thing things this those though three through throughout thus till time times to today together told too
    took toward towards two under unless until up upon us use used using usually various very via want was way
    ways we well went were what whatever when where whereas whether which while who whole whom whose why will with
    within without work works would year years yes yet you your yours
    """
)
"""Words too common to be a phrase on their own."""
