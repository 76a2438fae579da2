"""Two small public models: our log against the one the field's evaluator wrote, example by example."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.data import load_benchmark
from eval.models import load
from eval.report.open_unlearning import items, read_log
from eval.runner import Evaluation, evaluate


def run(shared_data: Path, name: str, *, num_kept: int | None = None) -> tuple[Evaluation, dict[str, Any]]:
    """Evaluate one of the models; ``num_kept`` cuts the splits that are not about forgetting."""
    folder = shared_data / "scratch_tofu_forget01"
    lm = load(str(folder / name), template="Question: {question}\\nAnswer:\\n", device="cpu")
    benchmark = load_benchmark(
        "tofu:forget01", data_dir=shared_data / "tofu", holdout=folder / "holdout01.json"
    )
    if num_kept is not None:
        short = {
            name: rows[:num_kept] for name, rows in benchmark.splits.items() if name in ("retain", "ra", "wf")
        }
        benchmark = replace(benchmark, splits=dict(benchmark.splits) | short)
    oracle = folder / "peer_logs" / "oracle" / "TOFU_EVAL.json"
    done = evaluate(lm, benchmark, reference=read_log(oracle) if name == "target" else None)
    return done, json.loads((folder / "peer_logs" / name / "TOFU_EVAL.json").read_text(encoding="utf-8"))


def compare_items(metric: str, ours: Any, peers: Any) -> None:
    """Compare the rows that both have, in order."""
    for i, (own, peer) in enumerate(zip(items(ours), items(peers), strict=False)):
        for field, value in peer.items():
            if isinstance(value, str):
                assert own[field] == value, (metric, i, field)
            else:
                tolerance = 1e-3 if metric.endswith("ROUGE") else 1e-4
                assert own[field] == pytest.approx(value, abs=tolerance, rel=0), (metric, i, field)


def compare_logs(done: Evaluation, peer: dict[str, Any]) -> None:
    assert set(peer) <= set(done.log)
    for metric in peer:
        for part in ("forget", "holdout") if metric.startswith("mia_") else ():
            compare_items(metric, done.log[metric][part], peer[metric][part])
        compare_items(metric, done.log[metric], peer[metric])


def compare_results(done: Evaluation, peer: dict[str, Any], metrics: set[str]) -> None:
    for metric in metrics - {"forget_quality"}:
        assert done.results[metric].value == pytest.approx(peer[metric]["agg_value"], abs=1e-4, rel=1e-6), (
            metric
        )
    quality = peer.get("forget_quality", {}).get("agg_value")
    expected = None if quality is None else pytest.approx(quality, rel=1e-6, abs=0)
    assert done.results["forget_quality"].value == expected


def test_forget_rows_and_the_first_kept_rows_equal_the_peers(shared_data: Path) -> None:
    done, peer = run(shared_data, "target", num_kept=12)
    compare_logs(done, peer)
    forget = {name for name in peer if name.startswith(("forget", "mia", "e", "priv"))}
    assert len(forget) == 14
    compare_results(done, peer, forget)
    assert len(items(done.log["forget_Q_A_Prob"])) == len(items(peer["forget_Q_A_Prob"])) == 40
    assert len(items(done.log["retain_Q_A_Prob"])) == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["target", "oracle"])
def test_the_whole_log_of_the_peer_is_reproduced(shared_data: Path, name: str) -> None:
    done, peer = run(shared_data, name)
    compare_logs(done, peer)
    compare_results(done, peer, set(peer))
    for metric in peer:
        assert len(items(done.log[metric])) == len(items(peer[metric])), metric
