"""From per-item values to every aggregate: one function for our own runs and for published logs.

A log in OpenUnlearning's layout is the only input, so any number in a report can be recomputed from the file
beside it. Stored aggregates are never read.
"""

from __future__ import annotations

import zlib as checksums
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.errors import DataError
from eval.metrics.bootstrap import interval, resample_weights
from eval.metrics.composites import composites
from eval.metrics.forget_quality import two_sample_ks
from eval.metrics.membership import auc, privacy_leakage, relative_difference, weighted_auc
from eval.metrics.truth_ratio import closer_to_one, true_better
from eval.metrics.utility import UTILITY_TERMS, harmonic_mean
from eval.report.open_unlearning import EvalLog, item_values, items
from eval.types import MetricResult

__all__ = [
    "COMPARED",
    "NO_REFERENCE",
    "aggregate",
    "check_reference",
    "check_rows",
    "check_texts",
    "row_values",
    "split_seed",
]

Array = npt.NDArray[np.float64]

NO_REFERENCE = "no retain model's log to compare with (an oracle, or --reference LOG)"
"""Why forget quality is null where nothing was given to compare with."""


def aggregate(log: EvalLog, reference: EvalLog | None = None, *, seed: int = 0) -> dict[str, MetricResult]:
    """Compute every aggregate that a log's per-item values allow.

    Args:
        log: Per-item values in OpenUnlearning's layout.
        reference: The retain model's log of the same forget split.
        seed: Of the bootstrap intervals.

    Raises:
        DataError: If ``reference`` is of another forget split or benchmark.
    """
    if reference is not None:
        if not any(name in reference for name in (*COMPARED, *log)):
            raise DataError(
                f"The reference log holds none of what this log does ({', '.join(list(reference)[:3])}, ...): it is "
                "of another benchmark; give the retain model's log of this one."
            )
        check_reference(log, reference)
    out: dict[str, MetricResult] = {}
    for name, entry in log.items():
        if name.startswith("mia_"):
            out[name] = _membership(entry, seed)
        elif isinstance(entry, Mapping) and ("value_by_index" in entry or entry.get("reason")):
            out[name] = _mean(name, entry, seed)
    if "forget_truth_ratio" in log or "forget_Q_A_Prob" in log:
        out["model_utility"] = _utility(log, out, seed)
        out["forget_quality"] = _forget_quality(log, reference)
    if "mia_min_k" in log:
        out["privleak"] = _privacy_leakage(log, out["mia_min_k"], reference, seed)
    out |= composites(log, out, reference)
    return {name: _as_shown(log.get(name), out[name]) for name in sorted(out)}


def _as_shown(entry: Any, result: MetricResult) -> MetricResult:
    """Attach the reason a log gives, and withhold a value it says must not be shown."""
    reason = entry.get("reason") if isinstance(entry, Mapping) else None
    if reason is None:
        return result
    if entry.get("withheld"):
        return MetricResult(value=None, n=result.n, reason=reason)
    return MetricResult(value=result.value, ci=result.ci, n=result.n, reason=reason, extra=result.extra)


def _field(name: str) -> str:
    """Return the per-item field behind a metric's aggregate."""
    if name.endswith(("ROUGE", "_regurgitation")):
        return "rougeL_f1" if "knowmem" in name or "verbmem" in name else "rougeL_recall"
    if name.endswith("_perplexity"):
        return "avg_loss"
    return "prob" if "_Prob" in name else "score"


def _transform(name: str) -> Callable[[npt.ArrayLike], Array]:
    if name == "forget_truth_ratio":
        return closer_to_one
    if name.endswith("_Truth_Ratio"):
        return true_better
    return lambda values: np.asarray(values, dtype=np.float64)


def row_values(name: str, entry: Any) -> Array:
    """Return one value for each row of the split, NaN where a row has none."""
    field, transform, values = _field(name), _transform(name), []
    for item in items(entry):
        value = item.get(field)
        parts = value if isinstance(value, list) else [value]
        present = [float(part) for part in parts if part is not None]
        values.append(float(np.mean(transform(present))) if present else float("nan"))
    return np.asarray(values, dtype=np.float64)


def split_seed(name: str, seed: int) -> int:
    """Draw the rows of one split alike for all its metrics, and those of different splits independently."""
    return checksums.crc32(name.split("_")[0].encode()) ^ seed


def _weighted_means(values: Array, name: str, seed: int) -> Array:
    weights = resample_weights(len(values), split_seed(name, seed))
    present = np.isfinite(values)
    totals = weights[:, present].sum(1)
    sums = weights[:, present] @ values[present]
    means: Array = np.divide(sums, totals, out=np.full(len(sums), np.nan), where=totals > 0)
    return means


def _mean(name: str, entry: Mapping[str, Any], seed: int) -> MetricResult:
    values = row_values(name, entry)
    present = values[np.isfinite(values)]
    if not len(present):
        return MetricResult(value=None, reason=entry.get("reason") or "no row has a value")
    low, high = interval(_weighted_means(values, name, seed))
    extra = {"dropped": float(len(values) - len(present))} if len(present) < len(values) else {}
    mean = float(present.mean())
    if name.endswith("_perplexity"):
        mean, low, high = (float(np.exp(loss)) for loss in (mean, low, high))
    return MetricResult(value=mean, ci=(low, high), n=len(present), extra=extra)


def _scores(entry: Any, part: str) -> Array:
    scores = item_values(entry.get(part)) if isinstance(entry, Mapping) else []
    return np.asarray([score for score in scores if score is not None], dtype=np.float64)


def _resampled_auc(forget: Array, holdout: Array, seed: int) -> Array:
    return weighted_auc(
        forget,
        holdout,
        resample_weights(len(forget), split_seed("forget", seed)),
        resample_weights(len(holdout), split_seed("holdout", seed)),
    )


def _membership(entry: Mapping[str, Any], seed: int) -> MetricResult:
    forget, holdout = _scores(entry, "forget"), _scores(entry, "holdout")
    if not len(forget) or not len(holdout):
        return MetricResult(
            value=None, reason=entry.get("reason") or "no forget or no holdout row has a score"
        )
    return MetricResult(
        value=auc(forget, holdout),
        ci=interval(_resampled_auc(forget, holdout, seed)),
        n=len(forget) + len(holdout),
        extra={"n_forget": len(forget), "n_holdout": len(holdout)},
    )


def _utility(log: EvalLog, results: Mapping[str, MetricResult], seed: int) -> MetricResult:
    terms = {name: results[name].value for name in UTILITY_TERMS if name in results}
    missing = [name for name in UTILITY_TERMS if terms.get(name) is None]
    if missing:
        return MetricResult(
            value=None, reason=f"needs nine terms, {len(missing)} missing: {', '.join(missing)}"
        )
    draws = np.stack([_weighted_means(row_values(name, log[name]), name, seed) for name in UTILITY_TERMS])
    positive = (draws > 0).all(0)
    means = np.zeros(draws.shape[1])
    means[positive] = len(draws) / (1.0 / draws[:, positive]).sum(0)
    return MetricResult(
        value=harmonic_mean([float(value) for value in terms.values() if value is not None]),
        ci=interval(means),
        n=sum(results[f"{split}_Q_A_ROUGE"].n for split in ("retain", "ra", "wf")),
    )


def _forget_quality(log: EvalLog, reference: EvalLog | None) -> MetricResult:
    own = [v for v in item_values(log.get("forget_truth_ratio")) if v is not None]
    if not own:
        entry = log.get("forget_truth_ratio")
        reason = entry.get("reason") if isinstance(entry, Mapping) else None
        return MetricResult(value=None, reason=reason or "the log has no truth ratios of the forget split")
    if reference is None:
        return MetricResult(value=None, n=len(own), reason=NO_REFERENCE)
    other = [v for v in item_values(reference.get("forget_truth_ratio")) if v is not None]
    if not other:
        return MetricResult(value=None, n=len(own), reason="the reference log has no forget_truth_ratio")
    test = two_sample_ks(own, other)
    extra = {"D": test.statistic, "log10_p": test.log10_p, "n_reference": len(other)}
    return MetricResult(value=test.p_value, n=len(own), extra=extra)


def _privacy_leakage(log: EvalLog, own: MetricResult, reference: EvalLog | None, seed: int) -> MetricResult:
    if own.value is None:
        return MetricResult(value=None, reason=own.reason)
    entry = reference.get("mia_min_k") if reference is not None else None
    forget, holdout = _scores(entry, "forget"), _scores(entry, "holdout")
    has_reference = len(forget) > 0 and len(holdout) > 0
    other = auc(forget, holdout) if has_reference else 0.5
    draws = _resampled_auc(_scores(log["mia_min_k"], "forget"), _scores(log["mia_min_k"], "holdout"), seed)
    low, high = interval(draws)
    extra = {"auc": own.value, "auc_reference": other, "from_reference": float(has_reference)}
    if has_reference:
        extra["rel_diff"] = relative_difference(own.value, other)
    return MetricResult(
        value=privacy_leakage(own.value, other),
        ci=(privacy_leakage(high, other), privacy_leakage(low, other)),
        n=own.n,
        reason=None
        if has_reference
        else "against an AUC of 0.5: no retain model's membership scores were given",
        extra=extra,
    )


COMPARED = ("forget_truth_ratio", "mia_min_k")
"""What is read from a retain model's log: for forget quality and for PrivLeak."""

_FORGET_METRICS = ("forget_truth_ratio", "forget_Q_A_Prob", "forget_Q_A_ROUGE")


def check_rows(num_forget: int, reference: EvalLog) -> None:
    """Refuse a reference log of another number of forget rows.

    Raises:
        DataError: If its number of rows is not ``num_forget``.
    """
    for name in _FORGET_METRICS:
        other = len(items(reference.get(name)))
        if other and other != num_forget:
            raise DataError(
                f"The reference log has {other} forget rows ({name}) where this evaluation has {num_forget}: they "
                "are of different forget splits; give the retain model's log of the same split."
            )


def check_reference(log: EvalLog, reference: EvalLog) -> None:
    """Refuse a reference log whose rows are not the log's: another number, or other gold answers.

    Raises:
        DataError: If they differ; the sentence gives both.
    """
    for part in ("forget", "holdout"):
        own, other = (len(_scores(one.get("mia_min_k"), part)) for one in (log, reference))
        if own and other and own != other:
            raise DataError(
                f"The reference log's mia_min_k has {other} {part} rows where this log's has {own}: it is of another "
                "forget split or benchmark; give the retain model's log of the same one."
            )
    own_rows = next((len(rows) for name in _FORGET_METRICS if (rows := items(log.get(name)))), 0)
    if own_rows:
        check_rows(own_rows, reference)
    for metric, entry in log.items():
        texts = [item.get("ground_truth") for item in items(entry)] if metric.startswith("forget") else []
        if texts and None not in texts:
            check_texts(metric, [str(text) for text in texts], reference)


def check_texts(metric: str, texts: Sequence[str], reference: EvalLog) -> None:
    """Refuse a reference log whose rows have other gold answers; one without that metric passes.

    Args:
        metric: Whose rows are compared.
        texts: This evaluation's gold answers.
        reference: The retain model's log.

    Raises:
        DataError: If fewer than half of the answers are the same, or their number differs.
    """
    others = [item.get("ground_truth") for item in items(reference.get(metric))]
    if not others or None in others:
        return
    if len(others) != len(texts):
        raise DataError(
            f"The reference log has {len(others)} rows of {metric} where this evaluation has {len(texts)}: they are of "
            "different forget splits; give the retain model's log of the same split."
        )
    same = sum("".join(a.split()) == "".join(str(b).split()) for a, b in zip(texts, others, strict=True))
    if same < len(texts) / 2:
        raise DataError(
            f"Only {same} of {len(texts)} forget rows of the reference log have this log's gold answers: it is "
            "of another forget split; give the retain model's log of the same split."
        )
