"""The slow tier: what a user would do, from nothing, killed in the middle, and as the pages say."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNLEARN = str(Path(sys.executable).parent / "unlearn")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def _run(command: list[str], cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **more}
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory, teaching_cache) -> tuple[dict, Path, dict[str, str]]:
    """`unlearn compare` as a newcomer runs it; target and oracle are taught unless an earlier test did."""
    folder = tmp_path_factory.mktemp("world")
    cache = {"UNLEARN_CACHE": str(teaching_cache)}
    done = _run([UNLEARN, "compare", "--json"], folder, **cache)
    return json.loads(done.stdout), folder, cache


def test_the_main_job_reaches_its_goals(world):
    report, folder, _ = world
    results = report["results"]

    def value(method: str, metric: str) -> float:
        return results[method][metric]["value"]

    utility, oracle_rouge = value("target", "model_utility"), value("oracle", "forget_Q_A_ROUGE")
    assert value("target", "forget_Q_A_ROUGE") >= 0.95
    assert value("target", "retain_Q_A_ROUGE") >= 0.95
    for method in ("grun-gd", "grun-idk", "grun-npo", "guard", "guard-refuse"):
        assert value(method, "model_utility") >= 0.95 * utility, method
    for method in ("grun-gd", "grun-idk", "grun-npo", "guard-refuse"):
        assert value(method, "forget_Q_A_ROUGE") <= oracle_rouge + 0.10, method
    assert value("guard", "leak_rate") <= 0.02
    assert value("guard", "masked_steps") > 0
    assert value("npo", "forget_quality") > 0.05
    assert (folder / "runs" / "world-forget05" / "report.html").is_file()


def test_a_killed_run_elsewhere_goes_on_and_finds_the_same(world):
    """Target and oracle come from the cache, what is finished stays, and every number is the first run's."""
    report, folder, cache = world
    command = [UNLEARN, "compare", "--methods", "guard-refuse,npo", "--output-dir", "killed", "--json"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               env={**os.environ, **cache}, start_new_session=True)  # fmt: skip
    finished = folder / "killed" / "guard-refuse" / "result.json"
    deadline = time.monotonic() + 300
    while not finished.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert finished.is_file()
    assert not (folder / "killed" / "report.json").exists()
    stamp = finished.stat().st_mtime_ns
    done = _run(command, folder, **cache)
    again = json.loads(done.stdout)["results"]
    assert "teaching" not in done.stderr
    assert again["target"] == report["results"]["target"]
    assert again["guard-refuse"] == report["results"]["guard-refuse"]
    assert finished.stat().st_mtime_ns == stamp
    for metric in ("forget_Q_A_ROUGE", "model_utility", "forget_truth_ratio"):
        expected = report["results"]["npo"][metric]["value"]
        assert again["npo"][metric]["value"] == pytest.approx(expected, rel=1e-6), metric


def test_the_main_job_on_real_input(shared_data, tmp_path):
    command = [UNLEARN, "compare", "--benchmark", "tofu:forget01", "--data-dir", str(shared_data / "tofu"),
               "--model", "scratch:small", "--max-retain", "200", "--methods", "graddiff,guard-refuse",
               "--json"]  # fmt: skip
    done = _run(command, tmp_path, UNLEARN_CACHE=str(tmp_path / "cache"))
    results = json.loads(done.stdout)["results"]
    assert (
        results["target"]["forget_Q_A_ROUGE"]["value"] > results["oracle"]["forget_Q_A_ROUGE"]["value"] + 0.3
    )
    assert results["target"]["forget_Q_A_ROUGE"]["n"] == 40
    refused, oracle = results["guard-refuse"]["forget_Q_A_ROUGE"], results["oracle"]["forget_Q_A_ROUGE"]
    assert refused["value"] <= oracle["value"] + 0.10
    assert (
        results["guard-refuse"]["model_utility"]["value"]
        >= 0.95 * results["target"]["model_utility"]["value"]
    )


def _page_commands() -> list[str]:
    found = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            found += [line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    return [line for line in dict.fromkeys(found) if line.startswith("unlearn ")]


def test_the_commands_in_the_pages_run(world, shared_data, project, tiny_lm, tmp_path, monkeypatch, run):
    """In order, in one folder, in this process; short answers, few methods and rows, and a small random model where
    a line names path/to/model or none.
    """
    _, folder, cache = world
    for name in ("model", "oracle"):
        tiny_lm.save(tmp_path / "path" / "to" / name)
    assert project.forget == tmp_path / "forget.jsonl"
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "tofu").mkdir()
    for file in (shared_data / "tofu").iterdir():
        rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "tofu" / file.name).write_text("".join(rows[:16]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for line in _page_commands():
        words = shlex.split(line, comments=True)[1:]
        limits = {"METHODS": "graddiff,guard-refuse", "MAX_NEW_TOKENS": "8", "MAX_RETAIN": "40"}
        if words[0] in ("compare", "train", "evaluate"):
            limits |= {"MODEL": "path/to/model", "ORACLE": "path/to/oracle", "BENCHMARK": "world:forget01"}
        if "grun-npo" in line:
            limits["SET"] = "grun-npo.epochs=1 grun-npo.min_steps=1 grun-npo.gate_fit_steps=20"
        if "tofu:" in line:
            limits |= {"DATA_DIR": str(tmp_path / "tofu"), "MAX_RETAIN": "8"}
        with monkeypatch.context() as environment:
            for key, value in limits.items():
                environment.setenv(f"UNLEARN_{words[0].upper()}_{key}", value)
            environment.setenv("UNLEARN_CACHE", cache["UNLEARN_CACHE"])
            done = run(*words)
        assert done.code == 0, f"{line}\n{done.err[-3000:]}"
