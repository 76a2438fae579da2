"""One folded form of text for comparing: case, accents, look-alike letters, invisible characters, spacing."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Folded", "fold", "fold_char", "plain", "readable", "words"]

_LOOK_ALIKES = dict(
    zip(
        "авсенijіјкморѕтухԁһԛԝѵӏгьɡɑıłøđħαβεηικνορτυχωζμΗΝΥΡΒΜНВУРоոսհզ",
        "abcehijijkmopstyxdhqwvlrbgailodhabenikvoptuxwzuhnypbmhbyponuhq",
        strict=True,
    )
) | {"æ": "ae", "œ": "oe"}
"""Letter to the Latin letters it can be taken for: a practical subset of Unicode's confusables."""


_SMALL_CAPITALS = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘǫʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnopqrstuvwyz", strict=True))
"""Letters that no ordinary text is written in."""
_LOOK_ALIKES |= _SMALL_CAPITALS
_LETTERS_APART = re.compile(
    r"(?<![^\W_])[^\W\d_](?:([-._*\u00b7|])[^\W\d_](?=\1|(?![^\W_]))){2,}(?![^\W_])"
    r"|(?<![^\W_])[^\W\d_](?: [^\W\d_]\b){3,}"
)
"""A word whose letters are parted by the same mark ("K-a-y"), or four letters and more by single spaces."""


@lru_cache(maxsize=65536)
def fold_char(char: str) -> str | None:
    """Fold one character.

    Returns:
        The letters and digits it stands for, ``" "`` for anything that separates words, and ``None`` for
        what has no width or only marks the letter before it.
    """
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or char in "\u115f\u1160\u3164\uffa0\u034f":
        return None
    if "\U000e0000" <= char <= "\U000e0fff" or "\ufe00" <= char <= "\ufe0f":
        return None
    char = _LOOK_ALIKES.get(char, char)
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", char).casefold())
    letters = "".join(c for c in text if not unicodedata.combining(c))
    letters = "".join(_LOOK_ALIKES.get(c, c) for c in letters)
    return letters if letters.isalnum() else " "


class Folded(NamedTuple):
    """Letters and digits of a text without anything between them, and where its words begin."""

    letters: str
    starts: tuple[int, ...]
    """Positions in ``letters`` before which the text separates words; 0 if it begins with a separator."""
    is_open: bool
    """Whether the text ends in a letter or digit, so that more letters would continue the last word."""


def fold(text: str) -> Folded:
    """Fold a piece of text, keeping its word boundaries."""
    letters: list[str] = []
    starts: list[int] = []
    length, is_open = 0, True
    for char in text:
        folded = fold_char(char)
        if folded is None:
            continue
        if folded == " ":
            is_open = False
            continue
        if not is_open:
            starts.append(length)
        is_open = True
        letters.append(folded)
        length += len(folded)
    return Folded("".join(letters), tuple(starts), is_open)


def readable(text: str) -> str:
    """Undo disguises but keep case, accents and punctuation: what a sentence encoder should read.

    Invisible characters go, compatibility forms become plain ones, look-alike letters become Latin in texts
    that have Latin letters, and letters set apart by spaces come together. Ordinary text stays as it is.
    """
    text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    if not text.isascii():
        text = "".join(_SMALL_CAPITALS.get(c, c) for c in text)
        num_latin = sum(c.isascii() and c.isalpha() for c in text)
        num_disguised = sum(c in _LOOK_ALIKES and not c.isascii() for c in text)
        if num_latin >= num_disguised:
            text = "".join(_look_alike(c) for c in text)
    tokens = text.split()
    if len(tokens) > 7 and sum(len(token) == 1 for token in tokens) > 0.9 * len(tokens):
        text = " ".join("".join(part.split()) for part in re.split(r"\s{2,}", text))
    return _LETTERS_APART.sub(lambda match: re.sub(r"[\W_]", "", match[0]), text)


def _look_alike(char: str) -> str:
    latin = _LOOK_ALIKES.get(char) or _LOOK_ALIKES.get(char.lower(), char)
    return latin.upper() if char.isupper() else latin


def plain(text: str) -> str:
    """Return the folded text with one space between words: the readable form of `fold`."""
    return " ".join("".join(" " if (f := fold_char(c)) == " " else f or "" for c in text).split())


def words(text: str) -> list[str]:
    """Return the folded words of a text; a possessive ``'s`` is dropped."""
    return plain(_POSSESSIVE.sub(" ", text)).split()


_POSSESSIVE = re.compile(r"(?<=\w)['\u2019\u02bc]s\b", re.IGNORECASE)
