"""A copyrighted book, or any text of the user's: continuation, perplexity and knowledge questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.documents import chunks, continuation, document
from eval.data.jsonl import read_examples
from eval.data.miniature import articles
from eval.data.registry import BenchmarkOptions
from eval.data.tables import read_table
from eval.errors import ConfigError, DataError
from eval.measures import Generated, Measure, Membership, Memorized, Perplexity
from eval.types import Example

__all__ = ["load", "miniature", "passages"]

PROMPT_WORDS = 60
"""Words a model is given of a passage; as many follow and are compared."""
MAX_PASSAGES = 100
TEXT_SUFFIXES = (".txt", ".md")


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``text:BOOK.txt``: the book is forgotten, ``--retain-file`` (text or JSON lines) is kept.

    Passages spread over the book are continued and compared (ROUGE, BLEU, exact tokens); perplexity is measured on
    the book and on what is kept; ``--holdout OTHER.txt`` (a text of the same style that was never taught) allows
    membership inference. Questions about the book stand in ``BOOK.questions.jsonl`` beside it, rows with
    ``question`` and ``answer``. ``text:mini`` generates a small book about invented people.

    Raises:
        ConfigError: If no file is named.
        DataError: If a file is missing, empty or too short.
    """
    if not split:
        raise ConfigError("Benchmark 'text' needs a file: text:book.txt, with --retain-file other.txt.")
    if split == "mini":
        parts = miniature(options.seed)
        texts: Mapping[str, Sequence[str]] = parts["texts"]
        questions: tuple[Example, ...] = parts["questions"]
        taught, secret = parts["taught"], questions
        absent: dict[str, str] = {}
    else:
        book = _resolve(split, options)
        files = {"forget": book, "retain": options.retain_file, "holdout": options.holdout}
        texts = {part: _texts(path) for part, path in files.items() if path is not None}
        beside = book.with_suffix(".questions.jsonl")
        questions = read_examples(beside) if beside.is_file() else ()
        taught, secret = (), ()
        absent = {} if questions else {"questions": f"there is no {beside.name} beside the book"}
    pieces = {
        part: tuple(
            document(f"{part}-{i}-{j}", piece)
            for i, text in enumerate(given)
            for j, piece in enumerate(chunks(text))
        )
        for part, given in texts.items()
    }
    retain = pieces.get("retain", ())[: options.max_retain]
    splits = {"passages": passages(texts["forget"]), "forget_text": pieces["forget"]}
    measures: list[Measure] = [
        Generated("forget_continuation_ROUGE", split="passages", max_new_tokens=128, has_bleu=True),
        Memorized(split="passages"),
        Perplexity("forget_perplexity", split="forget_text"),
    ]
    if questions:
        splits["questions"] = questions
        measures.append(
            Generated("forget_knowledge_ROUGE", split="questions", max_new_tokens=64, is_main=True)
        )
    if retain:
        splits["retain_text"] = retain
        measures.append(Perplexity("retain_perplexity", split="retain_text"))
    if "holdout" in pieces:
        splits["holdout_text"] = pieces["holdout"]
        measures.append(Membership(forget="forget_text", holdout="holdout_text"))
    else:
        absent["holdout_text"] = "no text that was never taught was given (--holdout FILE)"
    benchmark = Benchmark(
        name=f"text:{split}",
        forget=pieces["forget"],
        retain=retain,
        splits=splits,
        taught=taught,
        forget_wordings=secret,
        measures=tuple(measures),
        absent=absent,
    )
    check_disjoint(benchmark)
    return benchmark


def _resolve(name: str, options: BenchmarkOptions) -> Path:
    path = Path(name)
    return options.data_dir / path if options.data_dir is not None and not path.is_absolute() else path


def _texts(path: Path) -> list[str]:
    """Return the texts of a file: one of a plain text, one a row of anything else."""
    if not path.is_file():
        raise DataError(f"There is no text file {path}; check the path.")
    if path.suffix in TEXT_SUFFIXES:
        try:
            texts = [path.read_text(encoding="utf-8-sig")]
        except UnicodeDecodeError as error:
            raise DataError(f"The text file {path} is not UTF-8 ({error}); convert it.") from None
    else:
        rows = read_table(path)
        texts = [str(row["text"]) for row in rows if row.get("text")]
    if not any(text.strip() for text in texts):
        raise DataError(f"{path} holds no text; give a plain text, or rows with 'text'.")
    return texts


def passages(texts: Sequence[str]) -> tuple[Example, ...]:
    """Return up to `MAX_PASSAGES` passages spread over the texts, each cut into its beginning and what follows.

    Raises:
        DataError: If no text is long enough for a prompt and at least one word after it.
    """
    found: list[Example] = []
    for i, text in enumerate(texts):
        for j, piece in enumerate(chunks(text, words=2 * PROMPT_WORDS)):
            words = piece.split(" ")
            cut = min(PROMPT_WORDS, len(words) // 2)
            if cut >= 8:
                found.append(continuation(f"{i}-{j}", " ".join(words[:cut]), " ".join(words[cut:])))
    if not found:
        raise DataError("The text to forget is too short to be continued; it needs at least 16 words.")
    step = max(1, -(-len(found) // MAX_PASSAGES))
    return tuple(found[::step])


def miniature(seed: int = 0) -> dict[str, Any]:
    """Generate chapters about invented people to forget, to keep and never taught, and questions about the first."""
    parts = articles(seed, forget=8, retain=16, holdout=8)
    questions = tuple(row for about in parts["forget"] for row in about.rows[:5])
    return {
        "texts": {name: [about.text for about in people] for name, people in parts.items()},
        "questions": questions,
        "taught": tuple(row for about in parts["retain"] for row in about.rows[:5]),
    }
