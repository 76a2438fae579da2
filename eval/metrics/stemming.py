"""Porter's stemmer (Program 14, 1980) with NLTK's changes: what ROUGE stems by, without importing NLTK.

NLTK's package takes longer to import than a small evaluation's texts take to score; the tests hold every stem equal
to ``nltk.stem.porter.PorterStemmer().stem``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__all__ = ["stem"]


def _table(text: str) -> dict[str, str]:
    """Read pairs ``from:to``; the first that fits a word counts."""
    return dict(pair.split(":") for pair in text.split())


_IRREGULAR = _table(
    "sky:sky skies:sky dying:die lying:lie tying:tie news:news innings:inning inning:inning outings:outing "
    "outing:outing cannings:canning canning:canning howe:howe proceed:proceed exceed:exceed succeed:succeed"
)
_STEP_2 = _table(
    "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize "
    "ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble fulli:ful"
)
_STEP_3 = _table("icate:ic ative: alize:al iciti:ic ical:ic ful: ness:")
_STEP_4 = _table(
    "al: ance: ence: er: ic: able: ible: ant: ement: ment: ent: ion: ou: ism: ate: iti: ous: ive: ize:"
)


def stem(word: str) -> str:
    """Return the stem of a lower-case word."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    for step in (_plural, _past, _final_y, _step_2, _step_3, _step_4, _final_e, _final_ll):
        word = step(word)
    return word


def _shape(word: str) -> str:
    """Return ``c`` for each consonant and ``v`` for each vowel; a y is a vowel after a consonant."""
    shape = ""
    for i, letter in enumerate(word):
        is_vowel = letter in "aeiou" or (letter == "y" and i > 0 and shape[-1] == "c")
        shape += "v" if is_vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Return the number of times a consonant follows a vowel."""
    return _shape(word).count("vc")


def _ends_cvc(word: str) -> bool:
    shape = _shape(word)
    return (shape.endswith("cvc") and word[-1] not in "wxy") or shape == "vc"


def _replaced(word: str, suffixes: Iterable[str], change: Callable[[str, str], str | None]) -> str:
    """Change the first suffix that fits; one that may not be changed (``None``) ends the search."""
    for suffix in suffixes:
        if word.endswith(suffix):
            changed = change(word.removesuffix(suffix), suffix)
            return word if changed is None else changed
    return word


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    rest = re.sub("(ed|ing)$", "", word)
    if rest == word or "v" not in _shape(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return f"{rest}e"
    if len(rest) > 1 and rest[-1] == rest[-2] and _shape(rest)[-1] == "c":
        return rest if rest[-1] in "lsz" else rest[:-1]
    return f"{rest}e" if _measure(rest) == 1 and _ends_cvc(rest) else rest


def _final_y(word: str) -> str:
    rest = word[:-1]
    return f"{rest}i" if word.endswith("y") and len(rest) > 1 and _shape(rest)[-1] == "c" else word


def _step_2(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _step_2(word[:-2])
    if word.endswith("logi"):  # the l counts as part of the rest, so that "theologi" loses its i
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _STEP_2, lambda rest, s: rest + _STEP_2[s] if _measure(rest) > 0 else None)


def _step_3(word: str) -> str:
    return _replaced(word, _STEP_3, lambda rest, s: rest + _STEP_3[s] if _measure(rest) > 0 else None)


def _step_4(word: str) -> str:
    def shortened(rest: str, suffix: str) -> str | None:
        is_allowed = _measure(rest) > 1 and (suffix != "ion" or rest[-1] in "st")
        return rest if is_allowed else None

    return _replaced(word, _STEP_4, shortened)


def _final_e(word: str) -> str:
    rest = word[:-1]
    if not word.endswith("e"):
        return word
    measure = _measure(rest)
    return rest if measure > 1 or (measure == 1 and not _ends_cvc(rest)) else word


def _final_ll(word: str) -> str:
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
