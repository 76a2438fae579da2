"""What is allowed whatever the gate and the phrases say: an operator's answer to a false positive.

Texts are compared word by word in folded form (case, accents and marks do not count), never by similarity: a prompt
that merely resembles an allowed one is judged as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eval.errors import ConfigError
from guard.normalise import plain

__all__ = ["Allowlist"]


@dataclass(frozen=True, kw_only=True)
class Allowlist:
    """Allowed texts in folded form; in a private store their words are hashed as the store's are."""

    prompts: tuple[str, ...] = ()
    """Prompts that are innocent: a user turn that is one of these, or a sentence of it, is not flagged."""
    phrases: tuple[str, ...] = ()
    """Text that may be said in any answer, and so may the phrases within it."""

    def lets_pass(self, text: str) -> bool:
        """Whether a text (veiled in a private store) is an allowed prompt."""
        return bool(self.prompts) and plain(text) in self.prompts

    def banned(self, phrases: Iterable[str]) -> Iterable[str]:
        """Yield those of ``phrases`` (folded) that do not stand within an allowed one."""
        allowed = [f" {phrase} " for phrase in self.phrases]
        return (phrase for phrase in phrases if not any(f" {phrase} " in text for text in allowed))

    def extended(
        self, prompts: Iterable[str], phrases: Iterable[str], veiled: Callable[[str], str]
    ) -> Allowlist:
        """Return the list with further texts.

        Args:
            prompts: To be allowed as prompts.
            phrases: To be allowed in answers.
            veiled: Hashes the words of a text, in a private store.

        Raises:
            ConfigError: If there is nothing to allow, or a text has no word.
        """
        added = [_folded(texts, veiled) for texts in (prompts, phrases)]
        if not any(added):
            raise ConfigError("There is nothing to allow; give a prompt or a phrase.")
        return Allowlist(
            prompts=tuple(dict.fromkeys((*self.prompts, *added[0]))),
            phrases=tuple(dict.fromkeys((*self.phrases, *added[1]))),
        )

    def reduced(
        self, prompts: Iterable[str], phrases: Iterable[str], veiled: Callable[[str], str]
    ) -> Allowlist:
        """Return the list without these texts.

        Raises:
            ConfigError: If there is nothing to take back, or a text is not on the list.
        """
        kept: list[tuple[str, ...]] = []
        given = [(list(prompts), self.prompts, "prompt"), (list(phrases), self.phrases, "phrase")]
        if not any(texts for texts, _, _ in given):
            raise ConfigError("There is nothing to take back; give a prompt or a phrase of the allowlist.")
        for texts, allowed, kind in given:
            gone = _folded(texts, veiled)
            unknown = [text for text, folded in zip(texts, gone, strict=True) if folded not in allowed]
            if unknown:
                raise ConfigError(
                    f"The {kind} {unknown[0]!r} is not on the allowlist; `unlearn guard list` shows what is."
                )
            kept.append(tuple(text for text in allowed if text not in gone))
        return Allowlist(prompts=kept[0], phrases=kept[1])


def _folded(texts: Iterable[str], veiled: Callable[[str], str]) -> list[str]:
    found = [plain(veiled(text)) for text in texts]
    if not all(found):
        raise ConfigError("An allowed prompt or phrase has no word in it; give text with letters or digits.")
    return found
