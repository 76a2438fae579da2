"""Each metric by hand: small cases whose value follows from the definition."""

from __future__ import annotations

from math import comb, exp, log, log2, sqrt

import numpy as np
import pytest

from eval.metrics.bootstrap import interval, mean_interval, resample_weights
from eval.metrics.fluency import ngram_entropy
from eval.metrics.forget_quality import exact_ks_floor, two_sample_ks
from eval.metrics.leakage import leaked_spans, normalise_words
from eval.metrics.membership import (
    auc,
    min_k,
    min_k_plus_plus,
    privacy_leakage,
    relative_difference,
    weighted_auc,
    zlib_score,
)
from eval.metrics.memorization import exact_memorization, extraction_strength
from eval.metrics.probability import normalised_probability, probability
from eval.metrics.rouge import rouge_scores
from eval.metrics.truth_ratio import closer_to_one, log_truth_ratio, true_better, truth_ratio
from eval.metrics.utility import harmonic_mean


def test_probability() -> None:
    assert probability([0.0, log(2)]) == pytest.approx([1.0, 0.5])
    assert normalised_probability(0.2, [0.1, 0.1]) == pytest.approx(0.5, abs=1e-8)
    assert normalised_probability(0.0, [0.0]) == 0.0


def test_truth_ratio_averages_losses_before_the_exponential() -> None:
    wrong = [1.0, 3.0]
    assert truth_ratio(1.0, wrong) == pytest.approx(exp(-2) / (exp(-1) + 1e-10))
    arithmetic = (exp(-1) + exp(-3)) / 2 / exp(-1)
    assert truth_ratio(1.0, wrong) != pytest.approx(arithmetic, rel=0.05)
    assert log_truth_ratio(1.0, wrong) == pytest.approx(-1.0)


def test_a_collapsed_model_keeps_its_log_ratio() -> None:
    assert truth_ratio(100.0, [98.0]) < 1e-30  # the epsilon swallows it
    assert log_truth_ratio(100.0, [98.0]) == pytest.approx(2.0)


def test_truth_ratio_transforms() -> None:
    assert closer_to_one([0.5, 2.0, 0.0]) == pytest.approx([0.5, 0.5, 0.0])
    assert true_better([0.25, 2.0]) == pytest.approx([0.75, 0.0])


def test_harmonic_mean() -> None:
    assert harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([1.0, 0.0]) == 0.0
    with pytest.raises(ValueError, match="no values"):
        harmonic_mean([])


@pytest.mark.parametrize("n", [40, 200, 300, 400])
def test_samples_that_do_not_overlap_give_the_floor(n: int) -> None:
    result = two_sample_ks(np.arange(n), np.arange(n) + n)
    golden = {40: 1.860340e-23, 200: 1.942643e-119, 300: 1.480298e-179, 400: 1.063590e-239}[n]
    assert result.p_value == pytest.approx(golden, rel=1e-6, abs=0)
    assert result.p_value == exact_ks_floor(n) == pytest.approx(2 / comb(2 * n, n), rel=1e-12, abs=0)
    assert result.statistic == 1.0
    assert result.log10_p == pytest.approx(np.log10(golden), abs=1e-5)


def test_a_floor_below_the_smallest_float_keeps_its_logarithm() -> None:
    result = two_sample_ks(np.arange(600), np.arange(600) + 600)
    assert result.p_value == 0.0
    assert result.log10_p == pytest.approx((log(2) - log(comb(1200, 600))) / log(10))


def test_a_model_against_itself_is_not_to_be_told_apart() -> None:
    values = np.random.default_rng(0).normal(size=400)
    assert two_sample_ks(values, values).p_value == 1.0
    assert two_sample_ks(values, values[:399]).p_value == pytest.approx(1.0)


@pytest.mark.parametrize("sizes", [(20, 20), (57, 57), (20, 31)])
def test_exact_p_value_equals_scipy(sizes: tuple[int, int]) -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    for shift in (0.0, 0.3, 1.0):
        first, second = rng.normal(size=sizes[0]).round(1), rng.normal(shift, size=sizes[1]).round(1)
        ours, theirs = two_sample_ks(first, second), ks_2samp(first, second, method="exact")
        assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-12)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=0)


@pytest.mark.parametrize("bad", [[], [float("nan")], [float("inf")]])
def test_a_test_of_nothing_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="Kolmogorov"):
        two_sample_ks(bad, [1.0])


@pytest.mark.parametrize(
    ("hits", "floored", "clean"),
    [
        ([1, 1, 1, 1], 1.0, 1.0),
        ([0, 1, 1, 1], 0.75, 0.75),
        ([1, 1, 0, 1], 0.25, 0.25),
        ([1, 1, 1, 0], 0.25, 0.0),
        ([0, 0, 0, 0], 0.25, 0.0),
        ([0], 1.0, 0.0),
        ([], None, None),
    ],
)
def test_extraction_strength_with_the_fields_floor_and_without(
    hits: list[int], floored: float | None, clean: float | None
) -> None:
    assert extraction_strength(hits) == floored
    assert extraction_strength(hits, clean=True) == clean


def test_exact_memorization() -> None:
    assert exact_memorization([True, False, True, True]) == 0.75
    assert exact_memorization([]) is None


def test_min_k_takes_the_least_likely_tokens() -> None:
    logps = [-5.0, -1.0, -2.0, -4.0, -3.0]
    assert min_k(logps) == pytest.approx(4.5)  # int(0.4 * 5) = 2 tokens
    assert min_k([-7.0]) == 7.0  # never less than one
    assert min_k([]) is None


def test_min_k_plus_plus_standardises() -> None:
    assert min_k_plus_plus([-3.0, -1.0], [-1.0, -1.0], [4.0, 1.0]) == pytest.approx(1.0)
    assert min_k_plus_plus([-3.0], [-1.0], [0.0]) == pytest.approx(2.0 / sqrt(1e-6))  # variance is clamped
    assert min_k_plus_plus([], [], []) is None


def test_zlib_score_divides_by_compressed_bytes() -> None:
    assert zlib_score(5.0, "é" * 100) == pytest.approx(5.0 / 13)


def test_auc_signs_and_ties() -> None:
    assert auc([1.0, 2.0], [3.0, 4.0]) == 1.0  # forget rows have the lower loss: memorised
    assert auc([3.0, 4.0], [1.0, 2.0]) == 0.0
    assert auc([1.0, 1.0], [1.0]) == 0.5
    assert auc([1.0, 3.0], [2.0, 3.0]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    with pytest.raises(ValueError, match="at least one"):
        auc([], [1.0])


def test_weighted_auc_equals_repeating_rows() -> None:
    forget, holdout = np.array([1.0, 3.0, 2.0]), np.array([2.0, 3.0])
    weights = weighted_auc(forget, holdout, np.array([[2.0, 0.0, 1.0]]), np.array([[1.0, 3.0]]))
    assert weights[0] == pytest.approx(auc([1, 1, 2], [2, 3, 3, 3]))


def test_privacy_leakage() -> None:
    assert privacy_leakage(1.0, 0.5) == pytest.approx(-100)
    assert privacy_leakage(0.4, 0.4) == 0.0
    assert privacy_leakage(0.25) == pytest.approx(50)
    assert relative_difference(0.75, 0.5) == pytest.approx(50)


def test_rouge_by_hand() -> None:
    scores = rouge_scores("the cats sat on mats", "a cat was on the mat")
    assert scores.rouge1_recall == pytest.approx(4 / 5)  # the, cat, on, mat: stemmed
    assert scores.rougeL_recall == pytest.approx(3 / 5)  # cat on mat
    assert scores.rougeL_f1 == pytest.approx(2 * (3 / 6) * (3 / 5) / (3 / 6 + 3 / 5))
    assert rouge_scores("Zoë's", "zo s").rougeL_recall == 1.0  # accented letters separate words
    for pair in (("", "word"), ("word", ""), ("...", "word")):
        assert rouge_scores(*pair).rougeL_recall == 0.0


def test_rouge_equals_the_reference_package() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    rng = np.random.default_rng(0)
    text = (
        "Running runs ran is; 42 the The O'Neil's naïve generously 北京 x-ray dying skies organization flies"
    )
    words = text.split()
    for _ in range(200):
        first, second = (" ".join(rng.choice(words, size=rng.integers(0, 30))) for _ in range(2))
        theirs, ours = scorer.score(first, second), rouge_scores(first, second)
        assert ours.rouge1_recall == pytest.approx(theirs["rouge1"].recall, abs=1e-15)
        assert ours.rougeL_recall == pytest.approx(theirs["rougeL"].recall, abs=1e-15)
        assert ours.rougeL_f1 == pytest.approx(theirs["rougeL"].fmeasure, abs=1e-15)


def test_fluency() -> None:
    assert ngram_entropy("") == ngram_entropy("word") == ngram_entropy("la la la la la la") == 0.0
    # "a b c d": three bigrams and two trigrams, all different
    assert ngram_entropy("a b c d") == pytest.approx((2 / 3 * log2(3) + 4 / 3 * log2(2)) / 2)


def test_leaks_are_whole_words_whatever_their_dress() -> None:
    assert normalise_words("Hsiao  YUN-HWA's café") == ["hsiao", "yun", "hwa", "cafe"]
    assert leaked_spans("It was Rome.", ["Rome", "Oslo"]) == ("Rome",)
    assert leaked_spans("It was Romeo.", ["Rome"]) == ()
    assert leaked_spans("born in r\u200bo\u200bme", ["Rome"]) == ("Rome",)
    assert leaked_spans("Zoe Muller said", ["Zoë Müller"]) == ("Zoë Müller",)
    assert leaked_spans("Ｒｏｍｅ", ["Rome"]) == ("Rome",)
    assert leaked_spans("Rome", ["Rome"], question="Who was born in Rome?") == ()
    assert leaked_spans("anything", ["", "..."]) == ()


def test_bootstrap_is_seeded_and_covers() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=100)
    low, high = mean_interval(values, seed=5)
    assert (low, high) == mean_interval(values, seed=5)
    assert (low, high) != mean_interval(values, seed=6)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)
    assert mean_interval([1.0]) == (1.0, 1.0)
    assert (resample_weights(10, 0).sum(1) == 10).all()
    assert interval(np.arange(1001)) == pytest.approx((25.0, 975.0))
