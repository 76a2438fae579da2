"""Undo disguises of whole texts: digits for letters, lost spaces, rot13, reversed writing, base64, other alphabets.

Each is recognised by what comes out: words of the language where there were none before. Ordinary text stays as it
is, and words are taken whole, so that nothing is found inside an innocent word.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise

__all__ = ["unmasked"]

IsWord = Callable[[str], bool]

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_OTHER_ALPHABET = re.compile(r"[\u0370-\u03ff\u0400-\u04ff\u1f00-\u1fff]+")
_BASE64 = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{16,}={0,2}(?![\w+/=])")
_FROM_LEET = str.maketrans("0134579@$!|", "oieastgasil")
_LEET_WORD = re.compile(r"(?<![\w@$!|])[\w@$!|]*[^\W\d_][\w@$!|]*")
_TO_LATIN = str.maketrans(
    dict(zip("абвгґдеєзиіклмнопрстуфыэ", "abvggdeeziiklmnoprstufye", strict=True))
    | {
        "ж": "zh",
        "х": "h",
        "ц": "ts",
        "ч": "ch",
        "ш": "sh",
        "щ": "shch",
        "ъ": "",
        "ь": "",
        "ю": "yu",
        "я": "ya",
    }
    | dict(zip("αβγδεζηικλμνξοπρσςτυφω", "avgdeziiklmnxoprsstyfo", strict=True))
    | {"θ": "th", "χ": "ch", "ψ": "ps"}
)
"""Cyrillic and Greek letters as names are commonly transcribed."""
_GLUED = 20
"""Letters in a row from which a word may be a sentence without its spaces."""
_MIN_WORDS = 3
_LONGEST_WORD = 18


def unmasked(text: str, is_word: IsWord) -> list[str]:
    """Return what a text may hide: its readings once disguises are undone, none for ordinary text.

    Args:
        text: A user turn, after `guard.normalise.readable`.
        is_word: Whether a lower-case word is one of the language, or a name that is looked for.
    """
    found: list[str] = []
    for match in _BASE64.finditer(text):
        decoded = _from_base64(match[0])
        if decoded is not None:
            found.append(decoded)
    latin = _in_latin(text)
    if latin != text:
        found.append(latin)
    plain = _without_leet(text, is_word)
    if plain != text:
        found.append(plain)
    for reading in (codecs.encode(text, "rot13"), text[::-1]):
        hidden = _region(text, reading, is_word)
        if hidden is not None:
            found.append(hidden)
    spaced = _with_spaces(text, is_word)
    if spaced != text:
        found.append(spaced)
    return found


def _in_latin(text: str) -> str:
    """Transcribe Cyrillic and Greek words, accents left out; their capitals stay."""

    def transcribed(match: re.Match[str]) -> str:
        bare = "".join(
            c for c in unicodedata.normalize("NFD", match[0].lower()) if not unicodedata.combining(c)
        )
        latin = bare.translate(_TO_LATIN)
        return latin.capitalize() if match[0][0].isupper() else latin

    return _OTHER_ALPHABET.sub(transcribed, text)


def _from_base64(token: str) -> str | None:
    padded = token.rstrip("=").replace("-", "+").replace("_", "/")
    padded += "=" * (-len(padded) % 4)
    try:
        decoded = base64.b64decode(padded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    is_text = decoded.isprintable() or all(c.isprintable() or c.isspace() for c in decoded)
    return decoded if is_text and len(_LETTERS.findall(decoded)) >= 2 else None


def _without_leet(text: str, is_word: IsWord) -> str:
    """Read digits inside words as letters where at least two such words then are words of the language."""
    mixed = [m for m in _LEET_WORD.finditer(text) if any(c in "0134579@$!|" for c in m[0].rstrip("!"))]
    readings = [m[0].rstrip("!").lower().translate(_FROM_LEET) for m in mixed]
    if sum(len(r) > 2 and is_word(r) for r in readings) < 2:
        return text
    return _LEET_WORD.sub(lambda m: m[0].translate(_FROM_LEET) if m[0].rstrip("!") else m[0], text)


def _region(text: str, reading: str, is_word: IsWord) -> str | None:
    """Return the part of ``reading`` that makes sense where the same part of ``text`` does not."""
    is_backwards = reading == text[::-1]
    spans = [m.span() for m in _LETTERS.finditer(text) if len(m[0]) > 2]
    hits: list[tuple[int, int]] = []
    ordinary = 0
    for begin, end in spans:
        word = text[begin:end].lower()
        other = word[::-1] if is_backwards else codecs.encode(word, "rot13")
        if is_word(word):
            ordinary += not is_word(other)
        elif is_word(other):
            hits.append((begin, end))
    if len(hits) < _MIN_WORDS:
        return None
    begin, end = hits[0][0], hits[-1][1]
    inside = [s for s in spans if begin <= s[0] and s[1] <= end]
    if 2 * len(hits) < len(inside):
        return None
    begin, end = _grown(text, begin, end, is_word)
    part = text[begin:end]
    return part[::-1] if is_backwards else codecs.encode(part, "rot13")


def _grown(text: str, begin: int, end: int, is_word: IsWord) -> tuple[int, int]:
    """Widen a span over neighbouring words that mean nothing as they stand (names, mostly)."""
    for match in reversed(list(_LETTERS.finditer(text, 0, begin))):
        if len(match[0]) > 2 and is_word(match[0].lower()):
            break
        begin = match.start()
    for match in _LETTERS.finditer(text, end):
        if len(match[0]) > 2 and is_word(match[0].lower()):
            break
        end = match.end()
    return begin, end


def _with_spaces(text: str, is_word: IsWord) -> str:
    """Set spaces into runs of letters that are several words of the language in a row."""

    def spaced(match: re.Match[str]) -> str:
        token = match[0]
        if len(token) < _GLUED or is_word(token.lower()):
            return token
        parts = _segmented(token, is_word)
        known = sum(len(p) for p in parts if len(p) > 1 and is_word(p.lower()))
        return " ".join(parts) if known >= 0.6 * len(token) and len(parts) > 3 else token

    return _WORD.sub(spaced, text)


def _segmented(token: str, is_word: IsWord) -> list[str]:
    """Cut a token into the fewest words; a letter that is in none costs as much as three."""
    lower = token.lower()
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(token) + 1):
        choice = (best[end - 1][0] + 3.0, end - 1)
        for begin in range(max(0, end - _LONGEST_WORD), end - 1):
            if is_word(lower[begin:end]):
                choice = min(choice, (best[begin][0] + 1.0 + 0.5 * (end - begin < 4), begin))
        best.append(choice)
    cuts = [len(token)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    cuts.reverse()
    parts: list[str] = []
    was_unknown = False
    for begin, end in pairwise(cuts):
        is_unknown = end - begin == 1
        if is_unknown and was_unknown:
            parts[-1] += token[begin:end]
        else:
            parts.append(token[begin:end])
        was_unknown = is_unknown
    return parts
