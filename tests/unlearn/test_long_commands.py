"""The slow tier: what a user would do, from nothing, killed in the middle, and as the pages say."""

import json
import os
import re
import shlex
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
def world(tmp_path_factory) -> tuple[dict, Path, dict[str, str]]:
    """`unlearn compare` as a newcomer runs it: nothing cached."""
    folder = tmp_path_factory.mktemp("world")
    cache = {"UNLEARN_CACHE": str(folder / "cache")}
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


def test_a_second_run_elsewhere_reuses_target_and_oracle(world):
    report, folder, cache = world
    done = _run(
        [UNLEARN, "compare", "--methods", "guard-refuse", "--output-dir", "again", "--json"], folder, **cache
    )
    again = json.loads(done.stdout)["results"]
    assert again["target"] == report["results"]["target"]
    assert again["guard-refuse"] == report["results"]["guard-refuse"]
    assert "teaching" not in done.stderr


def test_a_killed_run_goes_on_and_finds_the_same(world):
    report, folder, cache = world
    command = [
        UNLEARN,
        "compare",
        "--methods",
        "guard-refuse,graddiff,npo",
        "--output-dir",
        "killed",
        "--json",
    ]
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
    again = json.loads(_run(command, folder, **cache).stdout)["results"]
    assert finished.stat().st_mtime_ns == stamp
    for method in ("guard-refuse", "graddiff", "npo"):
        for metric in ("forget_Q_A_ROUGE", "model_utility", "forget_truth_ratio"):
            expected = report["results"][method][metric]["value"]
            assert again[method][metric]["value"] == pytest.approx(expected, rel=1e-6), (method, metric)


def test_the_main_job_on_real_input(shared_data, tmp_path):
    command = [UNLEARN, "compare", "--benchmark", "tofu:forget01", "--data-dir", str(shared_data / "tofu"),
               "--model", "scratch:small", "--max-retain", "400", "--json"]  # fmt: skip
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


def test_the_commands_in_the_pages_run(world, shared_data, project, tiny_lm, tmp_path):
    """In order, in one folder, with a small model where they say path/to/model, short answers, few methods and rows."""
    _, folder, cache = world
    for name in ("model", "oracle"):
        tiny_lm.save(tmp_path / "path" / "to" / name)
    assert project.forget == tmp_path / "forget.jsonl"
    (tmp_path / "runs").symlink_to(folder / "runs")
    data = str(shared_data / "tofu")
    for line in _page_commands():
        name = shlex.split(line)[1].upper()
        limits = {f"UNLEARN_{name}_MAX_NEW_TOKENS": "8", f"UNLEARN_{name}_METHODS": "graddiff,guard-refuse"}
        if "tofu:" in line:
            limits |= {f"UNLEARN_{name}_DATA_DIR": data, f"UNLEARN_{name}_MAX_RETAIN": "8"}
        _run([UNLEARN, *shlex.split(line, comments=True)[1:]], tmp_path, **cache, **limits)
