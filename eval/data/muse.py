"""MUSE (arXiv:2407.06460): news articles and books; verbatim and knowledge memory, privacy, utility, folds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.data.benchmark import Benchmark, check_disjoint
from eval.data.documents import chunks, continuation, document, raw_question
from eval.data.miniature import Article, articles
from eval.data.registry import BenchmarkOptions
from eval.data.tables import Tables
from eval.errors import UnknownNameError
from eval.measures import Generated, Membership, Memorized
from eval.types import Example

__all__ = ["MEASURES", "load", "miniature"]

CORPORA = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
FOLDS = 4
"""Forget sets of growing size (``scal``), and of one size, requested one after another (``sust``)."""

STOPS = ("\n\n", "\nQuestion", "Question:")
"""Where a short answer ends: a base model goes on with questions of its own."""

MEASURES = (
    Generated("forget_verbmem_ROUGE", split="verbmem", max_new_tokens=128),
    Memorized(split="verbmem"),
    Generated("forget_knowmem_ROUGE", split="forget_qa", max_new_tokens=32, stops=STOPS, is_main=True),
    Generated("retain_knowmem_ROUGE", split="retain_qa", max_new_tokens=32, stops=STOPS),
    Membership(forget="privleak_forget", holdout="privleak_holdout"),
)
"""What MUSE measures, on which split."""


def load(split: str, options: BenchmarkOptions) -> Benchmark:
    """Load ``muse:news``, ``muse:books`` or the generated ``muse:mini``, whole or one fold of the news.

    ``muse:news-scal2`` unlearns the second of four nested forget sets of growing size, ``muse:news-sust2`` the
    second of four requests that come one after another; what is asked stays the same. From the hub, or a folder
    with ``raw``, ``verbmem``, ``knowmem``, ``privleak`` (and ``scal``, ``sust``), each split a file.

    Raises:
        UnknownNameError: If there is no such corpus or fold.
        DataError: If a split is missing or broken; the sentence names it.
    """
    match = re.fullmatch(r"(news|books|mini)(?:-(scal|sust)([1-4]))?", split or "news")
    if match is None or (match[1] == "books" and match[2]):
        folds = [
            f"{corpus}-{kind}{i}" for corpus in ("news", "mini") for kind in ("scal", "sust") for i in (1, 4)
        ]
        raise UnknownNameError("corpus of muse", split, [*CORPORA, "mini", *folds])
    corpus, fold, number = match.groups()
    tables = Tables(
        name=f"MUSE {corpus}",
        hub=CORPORA.get(corpus, CORPORA["news"]),
        data_dir=options.data_dir,
        generated=miniature(options.seed) if corpus == "mini" else {},
    )
    forget = _documents(tables, fold or "raw", f"forget_{number}" if fold else "forget")
    retain = _documents(tables, "raw", "retain1")
    splits = {
        "verbmem": tuple(
            continuation(str(i), row["prompt"], row["gt"])
            for i, row in enumerate(tables.need("verbmem", "forget", ("prompt", "gt")))
        ),
        "forget_qa": _questions(tables, "forget"),
        "retain_qa": _questions(tables, "retain"),
        "privleak_forget": _whole(tables, "forget"),
        "privleak_holdout": _whole(tables, "holdout"),
    }
    if options.max_retain is not None:
        retain = retain[: options.max_retain]
    benchmark = Benchmark(
        name=f"muse:{split or 'news'}",
        forget=forget,
        retain=retain,
        splits=splits,
        taught=splits["retain_qa"] if corpus == "mini" else (),
        forget_wordings=(*splits["verbmem"], *splits["forget_qa"]) if corpus == "mini" else (),
        notes=(f"Forget and retain texts are cut into {len(forget)} and {len(retain)} pieces for training.",),
        measures=MEASURES,
    )
    check_disjoint(benchmark)
    return benchmark


def _documents(tables: Tables, config: str, split: str) -> tuple[Example, ...]:
    rows = tables.need(config, split, ("text",))
    return tuple(
        document(f"{split}-{i}-{j}", piece)
        for i, row in enumerate(rows)
        for j, piece in enumerate(chunks(str(row["text"])))
    )


def _whole(tables: Tables, split: str) -> tuple[Example, ...]:
    rows = tables.need("privleak", split, ("text",))
    return tuple(document(f"{split}-{i}", str(row["text"])) for i, row in enumerate(rows))


def _questions(tables: Tables, part: str) -> tuple[Example, ...]:
    """Questions behind the solved examples of their own part, as a base model must be asked."""
    rows = tables.need("knowmem", f"{part}_qa", ("question", "answer"))
    solved = tables.need("knowmem", f"{part}_qa_icl", ("question", "answer"))
    opening = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in solved)
    return tuple(
        replace(
            raw_question(str(i), f"{opening}Question: {row['question']}\nAnswer: ", row["answer"]),
            key_spans=tuple(row.get("key_spans") or ()),
        )
        for i, row in enumerate(rows)
    )


def _qa(people: Sequence[Article], kinds: slice) -> list[dict[str, Any]]:
    return [
        {"question": row.question, "answer": row.key_spans[0], "key_spans": list(row.key_spans)}
        for about in people
        for row in about.rows[kinds]
    ]


def miniature(seed: int = 0) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    """Generate a small corpus in MUSE's form about invented people: (config, split) to rows."""
    parts = articles(seed, forget=8, retain=16, holdout=8)
    forget, retain, holdout = (parts[name] for name in ("forget", "retain", "holdout"))
    texts = {name: [{"text": about.text} for about in people] for name, people in parts.items()}
    verbatim = [
        {"prompt": " ".join(about.sentences[:5]), "gt": " ".join(about.sentences[5:])} for about in forget
    ]
    folds = {("scal", f"forget_{i}"): texts["forget"][: 2 * i] for i in range(1, FOLDS + 1)} | {
        ("sust", f"forget_{i}"): texts["forget"][2 * i - 2 : 2 * i] for i in range(1, FOLDS + 1)
    }
    return folds | {
        ("raw", "forget"): texts["forget"],
        ("raw", "retain1"): texts["retain"],
        ("raw", "retain2"): texts["retain"][8:],
        ("raw", "holdout"): texts["holdout"],
        ("verbmem", "forget"): verbatim,
        ("knowmem", "forget_qa"): _qa(forget, slice(0, 5)),
        ("knowmem", "forget_qa_icl"): _qa(forget[:2], slice(5, 6)),
        ("knowmem", "retain_qa"): _qa(retain, slice(0, 5)),
        ("knowmem", "retain_qa_icl"): _qa(retain[:2], slice(5, 6)),
        ("privleak", "forget"): texts["forget"],
        ("privleak", "retain"): texts["retain"],
        ("privleak", "holdout"): [{"text": about.text} for about in holdout],
    }
