"""The same text in other characters: what a reader still reads and a plain comparison misses."""

from __future__ import annotations

import base64
import codecs
import re
from random import Random

__all__ = [
    "accents",
    "encode_base64",
    "full_width",
    "homoglyphs",
    "leet",
    "letters_apart",
    "misspell",
    "reversed_text",
    "rot13",
    "typos",
    "zero_width",
]

_GLYPHS = dict(zip("aceiopxyABCEHIKMOPTXYS", "асеіорхуАВСЕНІКМОРТХУЅ", strict=True))
_LEET = dict(zip("aeiost", "431057", strict=True))
_ACCENTS = dict(zip("aeiouncyAEIOU", "áéíóúñçýÀÈÌÒÙ", strict=True))
_NEIGHBOURS = {
    row[i]: row[max(i - 1, 0)] if i else row[1]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for i in range(len(row))
}


def misspell(word: str, rng: Random, *, edits: int = 1) -> str:
    """Make ``edits`` typing errors inside a word; its first letter stays."""
    letters = list(word)
    for _ in range(edits):
        if len(letters) < 4:
            break
        at = rng.randrange(1, len(letters) - 1)
        kind = rng.randrange(4)
        if kind == 0 and letters[at] != letters[at + 1]:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        elif kind == 1:
            del letters[at]
        elif kind == 2:
            letters.insert(at, letters[at])
        else:
            letters[at] = _NEIGHBOURS.get(letters[at].lower(), "x")
    return "".join(letters)


def typos(text: str, rng: Random, *, share: float = 0.4) -> str:
    """Make one typing error in a share of the words of five letters or more, and in one at least."""
    found = [m.span() for m in re.finditer(r"[^\W\d_]{5,}", text)]
    chosen = [span for span in found if rng.random() < share] or found[:1]
    for begin, end in reversed(chosen):
        text = text[:begin] + misspell(text[begin:end], rng) + text[end:]
    return text


def homoglyphs(text: str, rng: Random, *, share: float = 0.6) -> str:
    """Write a share of the letters in Cyrillic look-alikes."""
    return "".join(_GLYPHS[c] if c in _GLYPHS and rng.random() < share else c for c in text)


def zero_width(text: str, rng: Random, *, share: float = 0.4) -> str:
    """Put invisible characters between letters."""
    return "".join(c + (rng.choice("\u200b\u200c\u200d\u2060") if rng.random() < share else "") for c in text)


def leet(text: str, rng: Random, *, share: float = 0.6) -> str:
    """Write digits for the letters they resemble."""
    return "".join(_LEET[c.lower()] if c.lower() in _LEET and rng.random() < share else c for c in text)


def accents(text: str, rng: Random, *, share: float = 0.5) -> str:
    """Put accents where none belong."""
    return "".join(_ACCENTS[c] if c in _ACCENTS and rng.random() < share else c for c in text)


def full_width(text: str) -> str:
    """Write in full-width characters."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def letters_apart(text: str, separator: str = " ") -> str:
    """Set the letters of each word apart."""
    return "   ".join(separator.join(word) for word in text.split())


def reversed_text(text: str) -> str:
    """Write from right to left."""
    return text[::-1]


def rot13(text: str) -> str:
    """Move each letter 13 places on."""
    return codecs.encode(text, "rot13")


def encode_base64(text: str) -> str:
    """Write as base64."""
    return base64.b64encode(text.encode()).decode()
