"""What a forget request consists of: examples, a subject with its names, documents; and what each covers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.errors import DataError
from eval.types import Example
from guard.building import find_phrases, group_of, question_of
from guard.config import GuardSettings
from guard.encoder import SentenceEncoder
from guard.finders import SpanFinder
from guard.store import Entry, Store, veiled_entry

__all__ = ["DOCUMENT_NOTICE", "SUBJECT_NOTICE", "Added", "add_request"]

SUBJECT_NOTICE = (
    "A subject without examples is covered more weakly: prompts are recognised by its names alone, and nothing is "
    "known that an answer should leave out, so such prompts are refused."
)
"""Said when a subject is added without examples."""
DOCUMENT_NOTICE = (
    "A document is covered more weakly than question-answer pairs: its wording is kept from being repeated, its "
    "facts in other words are not; add examples for those."
)
"""Said when a document is added."""

_CHUNK_WORDS, _OVERLAP_WORDS, _BEGINNING_WORDS = 120, 20, 30


@dataclass(frozen=True)
class Added:
    """What `Guard.add` put in."""

    ids: tuple[int, ...]
    """Of the new entries."""
    notices: tuple[str, ...] = ()
    """Where coverage is weaker than with question-answer pairs."""


def add_request(
    store: Store,
    encoder: SentenceEncoder,
    settings: GuardSettings,
    request: str,
    *,
    examples: Sequence[Example] = (),
    subject: str | None = None,
    aliases: Sequence[str] = (),
    documents: Sequence[str] = (),
    finder: SpanFinder | None = None,
) -> Added:
    """Put a request's entries into a store.

    Raises:
        DataError: If there is nothing to add, or a part of it is empty.
    """
    pairs = [e for e in examples if e.text is None]
    texts = [(e.text, e.subject or f"document {e.id}") for e in examples if e.text is not None]
    texts += [(text, subject or f"document of {request}") for text in documents]
    names = [] if subject is None else [subject, *aliases]
    if aliases and subject is None:
        raise DataError(f"Request {request!r} has aliases but no subject; say whose they are.")
    if not pairs and not texts and not names:
        raise DataError(
            f"Request {request!r} has no examples, no subject and no document; nothing was added."
        )
    if any(not re.search(r"\w", text) for text in [*names, *(text for text, _ in texts)]):
        raise DataError(f"Request {request!r} has an empty name or document; nothing was added.")

    bare: list[Entry] = []

    def put(kind: str, question: str, answer: str, group: str) -> None:
        number = store.next_id + len(bare)
        bare.append(
            Entry(id=number, request=request, kind=kind, question=question, answer=answer, group=group)  # type: ignore[arg-type]
        )

    for example, group in zip(pairs, group_of(pairs), strict=True):
        put("qa", question_of(example), example.answer or "", subject or group)
    for name in names:
        put("subject", name, "", subject or name)
    for text, group in texts:
        for piece in chunks(text):
            put("document", " ".join(piece.split()[:_BEGINNING_WORDS]), piece, group)
    vectors = encoder.encode([e.question for e in bare] + [e.answer or e.question for e in bare])
    questions, answers = vectors[: len(bare)], vectors[len(bare) :]
    entries = find_phrases(store, bare, questions, num_neighbours=settings.num_neighbours, finder=finder)
    if store.veil is not None:
        entries = [veiled_entry(entry, store.veil) for entry in entries]
    store.add(entries, questions, answers)
    notices = [SUBJECT_NOTICE] if names and not pairs and not texts else []
    notices += [DOCUMENT_NOTICE] if texts else []
    return Added(tuple(entry.id for entry in entries), tuple(notices))


def chunks(text: str) -> list[str]:
    """Cut a document into pieces of `_CHUNK_WORDS` words that overlap a little."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    step = _CHUNK_WORDS - _OVERLAP_WORDS
    starts = range(0, max(1, len(words) - _OVERLAP_WORDS), step)
    return [text[words[s][0] : words[min(s + _CHUNK_WORDS, len(words)) - 1][1]] for s in starts]
