"""Stems: by hand, and equal to NLTK's on words of the benchmarks and on every meeting of letters and suffixes."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from eval.data import load_benchmark
from eval.metrics import stemming
from eval.metrics.stemming import stem


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("ties", "tie"),
        ("agreed", "agre"),
        ("plastered", "plaster"),
        ("motoring", "motor"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("relational", "relat"),
        ("theology", "theolog"),
        ("hopefulness", "hope"),
        ("adoption", "adopt"),
        ("controll", "control"),
        ("dying", "die"),
        ("by", "by"),
        ("1987s", "1987"),
    ],
)
def test_stems_by_hand(word: str, expected: str) -> None:
    assert stem(word) == expected


def _differ(words: set[str]) -> list[tuple[str, str, str]]:
    porter = pytest.importorskip("nltk.stem.porter", reason="NLTK is the reference").PorterStemmer()
    pairs = ((word, stem(word), porter.stem(word)) for word in sorted(words))
    return [pair for pair in pairs if pair[1] != pair[2]]


def test_made_words_are_stemmed_as_nltk_does() -> None:
    rng = random.Random(0)
    suffixes = ["", *stemming._STEP_2, *stemming._STEP_3, *stemming._STEP_4]
    suffixes += [
        "s",
        "ies",
        "sses",
        "ed",
        "ing",
        "eed",
        "ied",
        "y",
        "ly",
        "e",
        "ll",
        "logi",
        "logy",
        "ally",
        "alli",
    ]
    heads = ["".join(rng.choices("abeilostyzx9", k=rng.randint(0, 5))) for _ in range(60)]
    words = {head + one + two for head, one, two in itertools.product(heads, suffixes, suffixes)}
    assert len(words) > 50_000
    assert not _differ(set(rng.sample(sorted(words), 20_000)) | set(stemming._IRREGULAR))


def test_words_of_the_benchmarks_are_stemmed_as_nltk_does(shared_data: Path) -> None:
    benchmark = load_benchmark("tofu:forget10", data_dir=shared_data / "tofu")
    texts = [str(text) for rows in benchmark.splits.values() for e in rows for text in (e.question, e.answer)]
    texts += [text for rows in benchmark.splits.values() for e in rows for text in e.perturbed_answers]
    words = {word for text in texts for word in re.findall("[a-z0-9]+", text.lower())}
    assert len(words) > 3000
    assert not _differ(words)
