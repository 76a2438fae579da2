"""Published logs: every aggregate recomputed from per-item values equals the published number."""

from __future__ import annotations

import json
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics import aggregate, recompute
from eval.metrics.bootstrap import resample_weights
from eval.metrics.composites import FORMULAS
from eval.metrics.rouge import rouge_scores
from eval.metrics.truth_ratio import closer_to_one, true_better
from eval.metrics.utility import harmonic_mean
from eval.report.open_unlearning import item_values, items, read_log

LOGS = ("full_forget10", "retain90", "full_forget05", "retain95")
REFERENCE = {"full_forget10": "retain90", "full_forget05": "retain95"}

TOFU = {
    "forget_Q_A_Prob": (0.8804820564, 0.1161314931, 0.8853488636, 0.1267482481),
    "forget_Q_A_PARA_Prob": (0.1004176411, 0.0534084371, 0.0986759492, 0.0536633144),
    "forget_Q_A_PERT_Prob": (0.0413351644, 0.0406917785, 0.0392587220, 0.0404491432),
    "retain_Q_A_Prob": (0.8706601644, 0.8804108249, 0.8706601644, 0.8765412040),
    "retain_Q_A_PARA_Prob": (0.0884299578, 0.0864754402, 0.0884299578, 0.0895032283),
    "retain_Q_A_PERT_Prob": (0.0387152607, 0.0378159819, 0.0387152607, 0.0385894805),
    "ra_Q_A_Prob": (0.0161447651, 0.0138946654, 0.0161447651, 0.0132491978),
    "ra_Q_A_PERT_Prob": (0.0064113636, 0.0062157212, 0.0064113636, 0.0055798194),
    "ra_Q_A_Prob_normalised": (0.4135646438, 0.3922635412, 0.4135646438, 0.3997104138),
    "wf_Q_A_Prob": (0.0053814290, 0.0048722144, 0.0053814290, 0.0048819743),
    "wf_Q_A_PERT_Prob": (0.0019527814, 0.0019173996, 0.0019527814, 0.0017374640),
    "wf_Q_A_Prob_normalised": (0.4363308258, 0.4288505097, 0.4363308258, 0.4370002282),
    "forget_Q_A_ROUGE": (0.8201171051, 0.3790735553, 0.8316309852, 0.3846785593),
    "retain_Q_A_ROUGE": (0.7932626474, 0.8300587399, 0.7932626474, 0.8117276670),
    "ra_Q_A_ROUGE": (0.7970000000, 0.8295000000, 0.7970000000, 0.8395000000),
    "wf_Q_A_ROUGE": (0.8279202279, 0.8022792023, 0.8279202279, 0.8433048433),
    "forget_truth_ratio": (0.4755638962, 0.6274597699, 0.4725141860, 0.6343233853),
    "retain_Truth_Ratio": (0.5179621870, 0.5139158767, 0.5179621870, 0.5180134566),
    "ra_Truth_Ratio": (0.5273262603, 0.5034587128, 0.5273262603, 0.5148138265),
    "wf_Truth_Ratio": (0.6201053694, 0.6175020880, 0.6201053694, 0.6212421124),
    "model_utility": (0.5991534707, 0.5911246639, 0.5991534707, 0.5991012093),
    "extraction_strength": (0.7062684940, 0.0589589413, 0.7271725475, 0.0634368353),
    "exact_memorization": (0.9739357573, 0.5848885099, 0.9744433871, 0.5935281582),
    "mia_loss": (0.9964875000, 0.3873625000, 0.9998500000, 0.3633000000),
    "mia_zlib": (0.9979375000, 0.3088875000, 0.9999500000, 0.2950000000),
    "mia_min_k": (0.9966500000, 0.3826125000, 0.9999500000, 0.3624000000),
    "mia_min_k_plus_plus": (0.9980312500, 0.4776250000, 0.9995000000, 0.4701250000),
    "mia_gradnorm": (0.9984812500, 0.3416437500, 0.9989250000, 0.3185375000),
    "mia_reference": (0.9984812500, None, 0.9976750000, None),
    "privleak": (-99.45739101, 23.47750000, -99.99215808, 27.51999999),
}
FORGET_QUALITY = {"full_forget10": (0.35, 3.9054713571e-22), "full_forget05": (0.37, 1.4275699622e-12)}
ASYMPTOTIC = {"full_forget10": 2.0897176574e-22, "full_forget05": 8.6312871960e-13}
ARITHMETIC = {  # forget truth ratio, model utility with an arithmetic mean over the wrong answers
    "full_forget10": (0.4934898724, 0.5586690323),
    "retain90": (0.6366587613, 0.5490612629),
    "full_forget05": (0.4934455557, 0.5586690323),
    "retain95": (0.6484576350, 0.5562001282),
}
GRADNORM_TIES_LOST = (0.9984562500, 0.3385000000, 0.9989000000, 0.3153250000)
GRADNORM_TIES = (8, 1006, 2, 257)

MUSE = {
    "forget_knowmem_ROUGE": (0.4711681374, 0.3028853841),
    "retain_knowmem_ROUGE": (0.6912932009, 0.6873779576),
    "forget_verbmem_ROUGE": (0.9970156118, 0.1444594936),
    "extraction_strength": (0.9162698413, 0.0107142857),
    "exact_memorization": (0.9935714483, 0.4740476510),
    "mia_loss": (0.7679, 0.5247),
    "mia_zlib": (0.7932, 0.7226),
    "mia_min_k": (0.7693, 0.4592),
    "mia_min_k_plus_plus": (0.7448, 0.3253),
    "mia_gradnorm": (0.78845, 0.82485),
    "mia_reference": (0.8031, None),
    "privleak": (-57.34097632, 8.1599999984),
}
MUSE_WITHOUT_STEMMER = {
    "forget_knowmem_ROUGE": (0.4693499556, 0.3019330031),
    "retain_knowmem_ROUGE": (0.6886750191, 0.6866636718),
    "forget_verbmem_ROUGE": (0.9970156118, 0.1413976031),
}

LEGACY = {
    "retain_Q_A_Prob": (0.9895272274, 0.9888967275),
    "ra_Q_A_Prob_normalised": (0.4554820778, 0.4340871754),
    "wf_Q_A_Prob_normalised": (0.4185618076, 0.4143263304),
    "retain_Q_A_ROUGE": (0.9856545938, 0.9758111851),
    "ra_Q_A_ROUGE": (0.9330000000, 0.9230000000),
    "wf_Q_A_ROUGE": (0.8824786325, 0.8974358974),
    "retain_Truth_Ratio": (0.4746985880, 0.4709771340),
    "ra_Truth_Ratio": (0.5962289157, 0.5706808914),
    "wf_Truth_Ratio": (0.5390328416, 0.5441982317),
    "forget_Q_A_Prob": (0.9909385566, 0.1475628123),
    "forget_Q_A_ROUGE": (0.9854496939, 0.4082436195),
    "forget_truth_ratio": (0.5159854213, 0.6740192658),
    "model_utility": (0.6226773637, 0.6137449952),
}


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "open_unlearning_eval_logs"


def tofu_path(folder: Path, name: str) -> Path:
    return folder / f"tofu_Llama-3.2-1B-Instruct_{name}" / "TOFU_EVAL.json"


def muse_path(folder: Path, name: str) -> Path:
    return folder / f"muse_Llama-2-7b-hf_Books_{name}" / "MUSE_EVAL.json"


@cache
def parsed(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def recomputed(path: Path, reference: Path | None = None) -> dict[str, float | None]:
    return recompute(path, reference)


@pytest.mark.parametrize("name", LOGS)
def test_tofu_log_reproduces_the_printed_and_the_stored_aggregates(folder: Path, name: str) -> None:
    path = tofu_path(folder, name)
    reference = tofu_path(folder, REFERENCE[name]) if name in REFERENCE else None
    values, stored = recomputed(path, reference), parsed(path)
    for metric, row in TOFU.items():
        golden = row[LOGS.index(name)]
        assert values.get(metric) == (
            None if golden is None else pytest.approx(golden, rel=1e-9, abs=1e-9)
        ), metric
    for metric, entry in stored.items():
        if metric != "forget_quality":
            assert values[metric] == pytest.approx(entry["agg_value"], rel=1e-9, abs=1e-9), metric
    assert set(stored) == set(values) - set(FORMULAS)


def test_the_summary_scores_follow_their_printed_formulas(folder: Path) -> None:
    values = recomputed(tofu_path(folder, "full_forget10"), tofu_path(folder, "retain90"))
    kept = [1 - 0.7062684940, 1 - 0.9739357573, 1 - 0.1004176411, 1 - 0.4755638962]
    assert values["memorization_score"] == pytest.approx(4 / sum(1 / k for k in kept), rel=1e-8)
    pairs = [  # AUC of the model and of the retain model: loss, zlib, min-k, min-k++
        (0.9964875, 0.3873625),
        (0.9979375, 0.3088875),
        (0.99665, 0.3826125),
        (0.99803125, 0.477625),
    ]
    parts = [1 - (own - retain) / (1 - retain) for own, retain in pairs]
    assert values["privacy_score"] == pytest.approx(4 / sum(1 / part for part in parts), rel=1e-6)
    assert values["utility_score"] is None  # published logs hold no verdict on gibberish
    assert values["overall_score"] is None


@pytest.mark.parametrize("name", ["full_forget10", "full_forget05"])
def test_forget_quality_is_the_exact_p_value(folder: Path, name: str) -> None:
    log, reference = read_log(tofu_path(folder, name)), read_log(tofu_path(folder, REFERENCE[name]))
    result = aggregate(log, reference)["forget_quality"]
    distance, p = FORGET_QUALITY[name]
    assert result.value == pytest.approx(p, rel=1e-9, abs=0)
    assert result.value == pytest.approx(
        parsed(tofu_path(folder, name))["forget_quality"]["agg_value"], rel=1e-6, abs=0
    )
    assert result.value != pytest.approx(ASYMPTOTIC[name], rel=0.1, abs=0)
    assert result.extra["D"] == pytest.approx(distance, abs=1e-12)
    assert result.extra["log10_p"] == pytest.approx(np.log10(p), abs=1e-9)
    assert result.n == result.extra["n_reference"] == len(items(log["forget_truth_ratio"]))


def test_a_retain_log_alone_has_no_forget_quality(folder: Path) -> None:
    assert recomputed(tofu_path(folder, "retain90"))["forget_quality"] is None


def arithmetic(log: dict[str, Any], split: str) -> np.ndarray:
    correct = f"{split}_Q_A_Prob" if split in ("ra", "wf") else f"{split}_Q_A_PARA_Prob"
    wrong = [np.exp(-np.asarray(item["avg_loss"])).mean() for item in items(log[f"{split}_Q_A_PERT_Prob"])]
    return np.asarray(wrong) / (
        np.exp(-np.asarray(item_values(log[correct], "avg_loss"), dtype=float)) + 1e-10
    )


@pytest.mark.parametrize("name", LOGS)
def test_the_arithmetic_variant_is_another_number(folder: Path, name: str) -> None:
    log, values = parsed(tofu_path(folder, name)), recomputed(tofu_path(folder, name))
    ratio, utility = ARITHMETIC[name]
    assert closer_to_one(arithmetic(log, "forget")).mean() == pytest.approx(ratio, abs=1e-9)
    assert values["forget_truth_ratio"] != pytest.approx(ratio, abs=1e-3)
    terms = [true_better(arithmetic(log, split)).mean() for split in ("retain", "ra", "wf")]
    terms += [
        v
        for k, v in values.items()
        if k.endswith(("ROUGE", "_Prob_normalised")) and not k.startswith("forget")
    ]
    assert harmonic_mean([*terms, values["retain_Q_A_Prob"]]) == pytest.approx(utility, abs=1e-9)
    assert values["model_utility"] != pytest.approx(utility, abs=1e-3)


@pytest.mark.parametrize("name", LOGS)
def test_ties_count_half_in_an_auc(folder: Path, name: str) -> None:
    entry = parsed(tofu_path(folder, name))["mia_gradnorm"]
    forget, holdout = (np.asarray(item_values(entry[part]), dtype=float) for part in ("forget", "holdout"))
    column = LOGS.index(name)
    assert (holdout[:, None] > forget).mean() == pytest.approx(GRADNORM_TIES_LOST[column], abs=1e-12)
    assert (holdout[:, None] == forget).sum() == GRADNORM_TIES[column]
    assert recomputed(tofu_path(folder, name))["mia_gradnorm"] == TOFU["mia_gradnorm"][column]


@pytest.mark.parametrize(
    ("name", "value"), [("full_forget10", -99.32999998), ("full_forget05", -99.98999998)]
)
def test_privleak_without_a_retain_log_says_so(folder: Path, name: str, value: float) -> None:
    result = aggregate(read_log(tofu_path(folder, name)))["privleak"]
    assert result.value == pytest.approx(value, abs=1e-7)
    assert result.extra["auc_reference"] == 0.5
    assert result.reason is not None
    assert "0.5" in result.reason


@pytest.mark.parametrize("name", ["full_forget10", "retain95"])
def test_rouge_of_every_stored_text(folder: Path, name: str) -> None:
    log = parsed(tofu_path(folder, name))
    for metric in ("forget_Q_A_ROUGE", "retain_Q_A_ROUGE", "ra_Q_A_ROUGE", "wf_Q_A_ROUGE"):
        for item in items(log[metric]):
            ours = rouge_scores(item["ground_truth"], item["generation"]).as_json()
            assert ours == pytest.approx({key: item[key] for key in ours}, abs=1e-12)
    plain = [
        rouge_scores(item["ground_truth"], item["generation"], use_stemmer=False).rougeL_recall
        for item in items(log["forget_Q_A_ROUGE"])
    ]
    if name == "full_forget10":
        assert np.mean(plain) == pytest.approx(0.8162876067, abs=1e-9)


def test_zlib_scores_come_from_the_decoded_answer(folder: Path, shared_data: Path) -> None:
    log = parsed(tofu_path(folder, "full_forget10"))
    lines = (shared_data / "tofu" / "forget10_perturbed.json").read_text(encoding="utf-8").splitlines()
    raw = [len(zlib.compress(json.loads(line)["answer"].encode("utf-8"))) for line in lines]
    losses, scores = (item_values(log[name]["forget"]) for name in ("mia_loss", "mia_zlib"))
    lengths = [round(loss / score) for loss, score in zip(losses, scores, strict=True)]
    assert raw[:5] == [48, 54, 56, 105, 133]
    assert sum(raw) == 55361
    assert [(i, a, b) for i, (a, b) in enumerate(zip(lengths, raw, strict=True)) if a != b] == [
        (54, 219, 220)
    ]
    assert losses == item_values(log["forget_Q_A_Prob"], "avg_loss")


@pytest.mark.parametrize("name", ["target", "retrain"])
def test_muse_log(folder: Path, name: str) -> None:
    path = muse_path(folder, name)
    values = recomputed(path, muse_path(folder, "retrain") if name == "target" else None)
    column = ("target", "retrain").index(name)
    for metric, row in MUSE.items():
        golden = row[column]
        assert values.get(metric) == (None if golden is None else pytest.approx(golden, abs=1e-8)), metric
        if golden is not None:
            assert values[metric] == pytest.approx(parsed(path)[metric]["agg_value"], abs=1e-9), metric
    assert "model_utility" not in values
    assert "forget_quality" not in values
    for metric, row in MUSE_WITHOUT_STEMMER.items():
        scores = [
            rouge_scores(item["ground_truth"], item["generation"], use_stemmer=False).rougeL_f1
            for item in items(parsed(path)[metric])
        ]
        assert np.mean(scores) == pytest.approx(row[column], abs=1e-9), metric


@pytest.mark.parametrize("name", ["full", "retain90"])
def test_legacy_log(shared_data: Path, name: str) -> None:
    folder = shared_data / "tofu_eval_logs"
    retain = folder / "llama2-7b_retain90_wd0.01.json"
    values = recomputed(folder / f"llama2-7b_{name}_wd0.01.json", retain if name == "full" else None)
    for metric, row in LEGACY.items():
        assert values[metric] == pytest.approx(row[("full", "retain90").index(name)], rel=1e-9, abs=1e-9), (
            metric
        )
    if name == "full":
        assert values["forget_quality"] == pytest.approx(1.8340664110e-21, rel=1e-9, abs=0)
    else:
        assert values["forget_quality"] is None


def test_every_interval_holds_its_value(folder: Path) -> None:
    log, reference = read_log(tofu_path(folder, "full_forget10")), read_log(tofu_path(folder, "retain90"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = aggregate(log, reference)
    for name, result in results.items():
        if name == "forget_quality" or name in FORMULAS:
            assert result.ci is None
            continue
        assert result.ci is not None, name
        assert result.ci[0] <= result.value <= result.ci[1], name
        assert result.n > 0, name
    low, high = results["forget_Q_A_Prob"].ci
    spread = np.std(item_values(log["forget_Q_A_Prob"], "prob")) / 20  # standard error of 400 values
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert aggregate(log, reference) == results
    assert resample_weights(400, 7) is resample_weights(400, 7)
