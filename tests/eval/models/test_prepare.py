from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from eval.data.benchmark import Benchmark
from eval.data.world import load
from eval.errors import ConfigError, UnknownNameError
from eval.models.finetune import FinetuneSettings
from eval.models.prepare import PrepareSettings, _entry, _start, cache_directory, default_settings, prepare

QUICK = FinetuneSettings(epochs=2, batch_tokens=256, optimizer="muon", lr=1e-2, checkpoint_steps=2)
SETTINGS = PrepareSettings(base=QUICK, final=QUICK, forget_repeats=2)


def small_benchmark(seed: int = 0) -> Benchmark:
    bench = load("forget01", seed=seed)
    return Benchmark(
        name="world:forget01",
        forget=bench.forget,
        retain=bench.retain[:12],
        splits={"forget": bench.forget, "retain": bench.retain[:12]},
        taught=bench.taught[-8:],
    )


def quick(cache: Path, **changes):
    arguments = {"benchmark": small_benchmark(), "cache_dir": cache, "settings": SETTINGS, **changes}
    return prepare(arguments.pop("model", "scratch:tiny"), **arguments)


def test_target_and_oracle_are_trained_once_and_then_read(tmp_path):
    stages = []
    first = quick(tmp_path, progress=lambda what, done, total: stages.append(what))
    assert not first.from_cache
    assert list(dict.fromkeys(stages)) == ["teaching the base", "teaching the target", "teaching the oracle"]
    second = quick(tmp_path)
    assert second.from_cache
    assert second.target.identity == first.target.identity
    assert second.oracle.identity == first.oracle.identity != first.target.identity
    forget = small_benchmark().forget
    losses = [
        sum(score.avg_loss for score in lm.score(forget, [row.answer for row in forget]))
        for lm in (first.target, first.oracle)
    ]
    assert losses[0] < losses[1]
    assert second.target.name == "scratch:tiny"
    assert (second.target_dir / "model.safetensors").is_file()
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.work"))


def test_other_rows_settings_or_seeds_are_other_entries():
    def entry(bench=None, settings=SETTINGS, seed=0, size="tiny"):
        bench = bench or small_benchmark()
        return _entry(_start(f"scratch:{size}", bench, seed), bench, settings)

    others = {
        entry(small_benchmark(seed=1)),
        entry(seed=1),
        entry(size="small"),
        entry(settings=PrepareSettings(base=QUICK, final=QUICK)),
        entry(settings=PrepareSettings(base=None, final=QUICK, forget_repeats=2)),
    }
    assert entry() == entry()
    assert len(others | {entry()}) == 6


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "stage", ["teaching the oracle", pytest.param("teaching the base", marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, stage):
    straight = quick(tmp_path / "straight")

    def kill(what: str, done: int, total: int) -> None:
        if what == stage and done == 3:
            raise Killed

    with pytest.raises(Killed):
        quick(tmp_path / "killed", progress=kill)
    seen = []
    resumed = quick(tmp_path / "killed", progress=lambda what, done, total: seen.append((what, done)))
    assert seen[0] == (stage, 3)
    assert resumed.target.identity == straight.target.identity
    assert resumed.oracle.identity == straight.oracle.identity


def test_a_loaded_model_is_taught_on_copies(tmp_path, tiny_lm):
    identity = tiny_lm.identity
    settings = default_settings(tiny_lm, small_benchmark())
    assert settings.base is None
    result = quick(tmp_path, model=tiny_lm, settings=PrepareSettings(base=None, final=QUICK))
    tiny_lm._identity = None
    assert tiny_lm.identity == identity
    assert result.target.identity != result.oracle.identity
    saved = json.loads((result.target_dir.parent / "prepared.json").read_text())
    assert saved["settings"]["base"] is None


def test_few_rows_are_read_often_enough_to_be_learnt():
    bench = dataclasses.replace(small_benchmark(), name="jsonl:mine")
    few = default_settings("scratch", bench)
    many = default_settings("scratch", dataclasses.replace(bench, taught=load("forget01").taught * 5))
    assert few.base.epochs > 100
    assert (many.base.epochs, many.final.epochs) == (24, 8)


@pytest.mark.slow
def test_the_embedded_world_is_learnt_also_in_wordings_that_were_not_taught(teaching_cache):
    bench = load("forget05", seed=0)
    result = prepare("scratch:small", bench, cache_dir=teaching_cache)

    def recall(lm, split, question, answer):
        rows = bench.splits[split]
        texts = [generation.text for generation in lm.generate([getattr(row, question) for row in rows])]
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        scores = [
            scorer.score(getattr(row, answer), text)["rougeL"].recall
            for row, text in zip(rows, texts, strict=True)
        ]
        return sum(scores) / len(scores)

    for split in ("forget", "retain", "neighbours"):
        assert recall(result.target, split, "question", "answer") >= 0.95
        assert recall(result.target, split, "paraphrased_question", "paraphrased_answer") >= 0.80
    assert recall(result.target, "ra", "question", "answer") >= 0.95
    assert recall(result.target, "wf", "question", "answer") >= 0.95
    assert recall(result.oracle, "retain", "question", "answer") >= 0.95
    assert recall(result.oracle, "retain", "paraphrased_question", "paraphrased_answer") >= 0.80
    assert recall(result.oracle, "forget", "question", "answer") < 0.75


PROCESS = """
import json, sys
from eval.data.world import load
from eval.data.benchmark import Benchmark
from eval.models.finetune import FinetuneSettings
from eval.models.prepare import PrepareSettings, prepare
rows = load("forget01").forget
bench = Benchmark(name="x", forget=rows[:4], retain=rows[4:], splits={})
quick = FinetuneSettings(epochs=60, batch_tokens=64)
result = prepare("scratch:tiny", bench, cache_dir=sys.argv[1], settings=PrepareSettings(base=quick, final=quick))
print(json.dumps([result.from_cache, result.target.identity, result.oracle.identity]))
"""


@pytest.mark.slow
def test_two_processes_train_once(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
    assert sorted(from_cache for from_cache, *_ in results) == [False, True]
    assert results[0][1:] == results[1][1:]


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        prepare("scratch:smal", small_benchmark(), cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="LoRA"):
        prepare("scratch:tiny", small_benchmark(), cache_dir=tmp_path, parametrization="lora")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        prepare("scratch:tiny", small_benchmark(), cache_dir=tmp_path / "file" / "cache")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("UNLEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "unlearn-toolkit"
