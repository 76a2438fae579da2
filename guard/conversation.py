"""What of a prompt is judged: the bare user turns, never the system prompt, the answers or the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import takewhile

from eval.errors import ConfigError
from eval.types import Message, Prompt, conversation
from guard.normalise import readable, words
from guard.runs import capitalised_runs
from guard.stopwords import word_set
from guard.unmask import unmasked

__all__ = ["conversations", "judged_texts"]

_REFERS_BACK = word_set(
    """
    he she they him her them his hers their theirs it its this that these those one there same former latter
    """
)
_ASKS_OF_SOMEBODY = word_set(
    """
    age author award awards biography birth birthday birthplace book books born career childhood education family
    father genre job jobs life mother novel novels occupation occupations parents prize prizes profession school
    studied study style themes title titles university work works writer writing wrote
    """
)
"""After a turn that names somebody forgotten, a turn with one of these that names nobody else goes on about them."""
_SENTENCE = re.compile(
    r"(?<=[.!?\u2026])[\"'\u201d\u2019)]*\s+|\n+"
    r"|(?<=:)\s+[\"'\u201c\u2018]?(?=(?:wh\w+|how|is|was|were|did|does|do|can|in|on|by|as|name|give|tell)\b)",
    re.IGNORECASE,
)
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))\W*[A-Z]")
MAX_SEGMENTS = 32
"""Sentences of one turn that are judged apart."""
WINDOW_TURNS = 4
"""User turns that a pronoun may refer back to."""
_SHORT = 4


def judged_texts(
    prompt: Prompt,
    suspicion: Callable[[str], float] = lambda text: 0.0,
    is_word: Callable[[str], bool] = lambda word: True,
) -> tuple[str, ...]:
    """Return the texts a decision rests on; the prompt is as suspicious as the most suspicious of them.

    These are the last user turn, its sentences where it has several, what a disguise in it hides, and, where it
    refers back ("where was she born?") or goes on about somebody forgotten, the last user turns together. Of very
    many sentences the most suspicious are taken.
    """
    turns = [readable(text) for text in _said_by_user(conversation(prompt)) if words(text)]
    if not turns:
        return ()
    last = turns[-1]
    texts = [last]
    sentences = [s.strip() for s in _SENTENCE.split(last) if len(words(s)) >= 3]
    if len(sentences) > 1:
        if len(sentences) > MAX_SEGMENTS:
            sentences = sorted(dict.fromkeys(sentences), key=suspicion, reverse=True)
        texts.extend(sentences[:MAX_SEGMENTS])
    texts.extend(unmasked(last, is_word))
    window = turns[-WINDOW_TURNS:]
    if len(window) > 1 and (_refers_back(last) or _goes_on(last, window[:-1], suspicion)):
        texts.append(" ".join(window))
    return tuple(dict.fromkeys(texts))


def conversations(prompts: Sequence[Prompt]) -> list[tuple[Message, ...]]:
    """Return prompts of any kind as messages.

    Raises:
        ConfigError: If something is no prompt, in one sentence.
    """
    if isinstance(prompts, str):
        raise ConfigError("prompts is a single string; give a list of prompts.")
    found: list[tuple[Message, ...]] = []
    for i, prompt in enumerate(prompts):
        try:
            messages = conversation(prompt)
        except (TypeError, KeyError, ValueError):
            messages = ()
        if not messages or not all(isinstance(text, str) for message in messages for text in message):
            raise ConfigError(
                f"Prompt {i} (a {type(prompt).__name__}) is neither text nor a chat; give a string, an example with a "
                "question, or a list of messages, each with a role and a content that is text. One chat alone is "
                "[chat]."
            )
        found.append(messages)
    return found


def _said_by_user(messages: Sequence[Message]) -> list[str]:
    """The user's turns; an answer begun for the model is the user's doing, and so is all where no user speaks."""
    turns = [message.content for message in messages if message.is_prompt]
    if not turns:
        return [" ".join(message.content for message in messages)]
    begun = list(takewhile(lambda message: not message.is_prompt, reversed(messages)))
    return [*turns[:-1], " ".join([turns[-1], *(message.content for message in reversed(begun))])]


def _refers_back(turn: str) -> bool:
    """Whether a turn is a fragment or has a pronoun: it must be read with the turns before."""
    spoken = words(turn)
    return len(spoken) <= _SHORT or bool(_REFERS_BACK & set(spoken))


def _goes_on(turn: str, before: Sequence[str], suspicion: Callable[[str], float]) -> bool:
    """Whether a turn that names nobody asks what one asks of somebody, after a turn about something forgotten."""
    names_nobody = not capitalised_runs(_SENTENCE_START.sub(lambda m: m[0].lower(), turn))
    asks = names_nobody and bool(_ASKS_OF_SOMEBODY & set(words(turn)))
    return asks and any(suspicion(text) >= 1 for text in before)
