"""BLEU, exact match, word recall, gibberish and extraction likelihood against values worked out by hand."""

from __future__ import annotations

from math import exp, log, log2

import pytest

from eval.metrics.bleu import bleu
from eval.metrics.extraction import extraction_likelihood, memorization_accuracy
from eval.metrics.gibberish import CharacterModel, TextJudge
from eval.metrics.rouge import exact_match, word_recall


def test_bleu_by_hand() -> None:
    assert bleu("the cat sat on the mat", "the cat sat on the mat") == pytest.approx(1.0)
    # 3 of 4 words, 1 of 3 pairs, no triple (1/2 of 2), no quadruple (1/4 of 1); 4 words for 6: exp(1 - 6/4)
    expected = exp(1 - 6 / 4 + (log(3 / 4) + log(1 / 3) + log(0.5 / 2) + log(0.25 / 1)) / 4)
    assert bleu("the cat sat on the mat", "the cat ran on") == pytest.approx(expected)
    assert bleu("the cat", "") == 0.0
    assert bleu("the cat", "dogs bark") == 0.0
    assert bleu("yes", "yes") == pytest.approx(1.0)


def test_exact_match_ignores_case_and_outer_space_only() -> None:
    assert exact_match("Madera", " madera\n") == 1.0
    assert exact_match("Lorianne.", "Lorianne") == 0.0


def test_word_recall_is_an_ordered_share_of_the_true_words() -> None:
    assert word_recall("a b c d", "x a c b d") == pytest.approx(3 / 4)
    assert word_recall("Paris", "paris") == 0.0
    assert word_recall("", "x") == 0.0


def test_character_model_by_hand() -> None:
    # order 0 on "ab": each letter once; Witten-Bell with 2 of 2: (1 + 2 * 1/3) / (2 + 2) for both, alphabet 2 + 1
    model = CharacterModel(["ab"], order=0)
    assert model.bits_per_character("ba") == pytest.approx(-log2((1 + 2 / 3) / 4))
    assert model.bits_per_character("z") == pytest.approx(-log2((2 / 3) / 4))
    assert model.bits_per_character("") == float("inf")


def test_the_judge_tells_text_from_gibberish() -> None:
    verbs, places = ("lives", "works", "was born"), ("Rome", "Oslo", "Lima", "Cairo", "Quito", "Dakar")
    judge = TextJudge([f"The author {verb} in {place}." for verb in verbs for place in places])
    for text in (
        "The author was born in Cairo.",
        "works in Rome",
        "The author lives in Lima, was born in Oslo.",
    ):
        assert judge.is_text(text), text
    for text in (
        "",
        "   ",
        "xq zzkvw pprt qqq",
        "}{][ 0x00",
        "in Rome in Rome in Rome in Rome in Rome in Rome",
    ):
        assert not judge.is_text(text), text
    with pytest.raises(ValueError, match="at least four"):
        TextJudge(["a", "b", "a"])


def test_extraction_likelihood_by_hand() -> None:
    tokens = [1, 2, 3, 1, 2]
    # t=1: [2,3,1,2] all right -> 1; t=2: [9,1,2]: pairs (9,1) no, (1,2) yes -> 1/2; t=3: ended early -> 0; T - n = 3
    said = [[2, 3, 1, 2], [9, 1, 2], [], [2]]
    assert extraction_likelihood(tokens, said, n=2) == pytest.approx((1 + 1 / 2 + 0) / 3)
    # repeated n-grams count each time: (1,2), (2,1), (1,2) against {(2,3), (3,1), (1,2)}
    assert extraction_likelihood(tokens, [[1, 2, 1, 2], [], [], []], n=2) == pytest.approx(2 / 3 / 3)
    assert memorization_accuracy([True, False, True, True]) == 0.75
    with pytest.raises(ValueError, match="more than 10"):
        extraction_likelihood([1, 2], [[2]])
