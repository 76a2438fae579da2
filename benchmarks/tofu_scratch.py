"""TOFU from nothing: targets and oracles, then every method on them, in stages that each end inside ten minutes.

``python benchmarks/tofu_scratch.py`` does as much as fits into ``--minutes`` and exits with 3 while something is left;
the same command goes on. Models and runs lie in ``--work-dir`` (ignored by git). Results so far, as JSON and as a
Markdown table, go to ``benchmarks/results/`` after every stage.

Presets: ``small`` (CPU, about an hour on two cores; a sub-sampled TOFU, about 1 M parameters, methods with their preset
for small models) and ``gpu`` (full TOFU, about 91 M parameters; for a rented GPU). Method settings of ``gpu`` are the
papers' with the learning rate below, untuned. A model taught TOFU alone writes no wrong answers when asked to, so
GNM's negatives and AltPO's alternates are answers of retain rows to the questions most like the forget question,
nearest first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, SHARED, millions

MAIN = ("ga", "graddiff", "npo", "npo-rt", "simnpo", "loku", "flat-tv", "gnm", "grun-npo", "guard")
"""Methods on the larger forget sets; all others run on forget01."""
METRICS = (
    "forget_quality",
    "model_utility",
    "forget_Q_A_ROUGE",
    "forget_Q_A_Prob",
    "leak_rate",
    "extraction_strength",
)
WRITTEN = {"gnm": "negatives", "altpo": "alternates"}
NUM_WRITTEN = 4
LEFT = 3


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a run of this benchmark is made of."""

    size: str
    """Of `eval.models.scratch.SIZES`."""
    splits: dict[str, tuple[str, ...]]
    """Forget split to its methods; ``("*",)``: all that the other splits leave out."""
    max_retain: int | None
    max_new_tokens: int
    overrides: dict[str, Any]
    """Settings of the fine-tuning methods."""


PRESETS = {
    "small": Preset(
        size="small",
        splits={"forget05": MAIN, "forget01": ("*",)},
        max_retain=400,
        max_new_tokens=64,
        overrides={},
    ),
    "gpu": Preset(
        size="large",
        splits={"forget05": MAIN, "forget10": MAIN, "forget01": ("*",)},
        max_retain=None,
        max_new_tokens=100,
        overrides={"preset": "paper", "learning_rate": 1e-4, "save_steps": 50},
    ),
}


class TimeUpError(Exception):
    """The stage has used its minutes; what it has done is kept."""


@dataclass
class Clock:
    """Ends a stage when its time is up; the progress callback of everything that runs."""

    deadline: float

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() > self.deadline:
            raise TimeUpError


@dataclass(frozen=True)
class Bench:
    """One preset in one folder.

    Args:
        name: Of the preset.
        work_dir: Models and runs.
        data_dir: TOFU's files.
        clock: Ends a stage.
    """

    name: str
    work_dir: Path
    data_dir: Path
    clock: Clock

    @property
    def preset(self) -> Preset:
        return PRESETS[self.name]

    def methods(self, split: str) -> tuple[str, ...]:
        """Return the methods of a split."""
        from unlearn.methods import method_names

        named = {method for methods in self.preset.splits.values() for method in methods}
        chosen = self.preset.splits[split]
        return tuple(m for m in method_names() if m not in named) if chosen == ("*",) else chosen

    def stages(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield every stage in order."""
        for split in self.preset.splits:
            yield f"{split}: target and oracle", lambda split=split: self.prepare(split)  # type: ignore[misc]
            for method in self.methods(split):
                yield f"{split}: {method}", lambda s=split, m=method: self.compare(s, (m,))  # type: ignore[misc]
            yield f"{split}: report", lambda split=split: self.report(split)  # type: ignore[misc]

    def benchmark(self, split: str) -> Any:
        from eval.data import load_benchmark

        return load_benchmark(f"tofu:{split}", data_dir=self.data_dir, max_retain=self.preset.max_retain)

    def prepare(self, split: str) -> tuple[Any, Any]:
        """Teach target and oracle from one untrained model, or read them from the folder."""
        from eval.models.loading import resolve_device
        from eval.models.prepare import default_settings, prepare
        from eval.models.scratch import benchmark_texts, build

        benchmark, device = self.benchmark(split), resolve_device("auto")
        start = build(self.preset.size, benchmark_texts(benchmark))
        start.model.to(device)
        settings = default_settings(f"scratch:{self.preset.size}", benchmark)
        models = prepare(
            start, benchmark, cache_dir=self.work_dir / "models", settings=settings, progress=self.clock
        )
        for lm in (models.target, models.oracle):
            lm.model.to(device)
        return models.target, models.oracle

    def compare(self, split: str, methods: tuple[str, ...]) -> dict[str, Any]:
        """Run methods that are not finished yet, and return the report."""
        from finetune_baselines import METHODS
        from unlearn.comparison import CompareSettings, compare_prepared

        target, oracle = self.prepare(split)
        settings = CompareSettings(
            methods=methods,
            overrides={
                name: self.preset.overrides | self.written(split, name) for name in methods if name in METHODS
            },
            max_new_tokens=self.preset.max_new_tokens,
        )
        folder = self.work_dir / "runs" / split
        report = compare_prepared(
            target, oracle, self.benchmark(split), settings, folder, progress=self.clock
        )
        rows = {run.method: report.results[run.method] for run in report.runs}
        for run in report.runs:
            rows[run.method] = {
                **{key: rows[run.method].get(key, {}) for key in METRICS},
                "seconds": {"value": run.seconds},
                "trainable_parameters": {"value": run.trainable_parameters},
                "peak_memory_mb": {"value": run.peak_memory_mb},
            }
        self.record(split, rows, millions(target.model))
        return rows

    def written(self, split: str, method: str) -> dict[str, str]:
        """Return the setting that names the file of a method's other answers, written where it is missing."""
        from eval.artifacts import write_text

        kind = WRITTEN.get(method)
        if kind is None:
            return {}
        path = self.work_dir / "answers" / f"{split}-{kind}.jsonl"
        if not path.is_file():
            benchmark = self.benchmark(split)
            others = [(_words(row), row.answer) for row in benchmark.retain]
            lines = []
            for row in benchmark.forget:
                mine = _words(row)
                likeness = [len(mine & words) / len(mine | words) for words, _ in others]
                order = sorted(range(len(others)), key=lambda i: (-likeness[i], i))
                texts = list(dict.fromkeys(others[i][1] for i in order[: 4 * NUM_WRITTEN]))
                lines.append(json.dumps({"id": row.id, kind: texts[:NUM_WRITTEN]}))
            write_text(path, "\n".join(lines) + "\n")
        return {f"{kind}_file": str(path)}

    def report(self, split: str) -> None:
        """Draw the page of all methods of a split: everything is finished, so nothing runs again."""
        self.compare(split, self.methods(split))

    def record(self, split: str, rows: dict[str, Any], size: float) -> None:
        """Add what is known to ``results/``: JSON and a Markdown table."""
        from eval.artifacts import environment, read_json, write_json, write_text
        from eval.report.markdown import markdown_table

        path = RESULTS / f"tofu_scratch_{self.name}.json"
        known = read_json(path) if path.is_file() else {"splits": {}}
        known |= {"preset": self.name, "millions": size, "environment": environment()}
        known["max_retain"] = self.preset.max_retain
        known["splits"].setdefault(split, {}).update(rows)
        write_json(path, known)
        sampled = f", at most {self.preset.max_retain} retain rows" if self.preset.max_retain else ""
        parts = [f"# TOFU from nothing: preset {self.name}, {size:.1f} M parameters{sampled}"]
        for name, results in known["splits"].items():
            cells = [[method, *(_cell(row.get(key, {})) for key in (*METRICS, "seconds", "trainable_parameters",
                     "peak_memory_mb"))] for method, row in results.items()]  # fmt: skip
            head = ["method", "forget quality p (D)", "model utility", "forget ROUGE-L", "forget probability",
                    "leak rate", "extraction strength", "seconds", "trained parameters", "peak MiB"]  # fmt: skip
            parts += [f"## {name}", markdown_table(head, cells)]
        write_text(path.with_suffix(".md"), "\n\n".join(parts) + "\n")


def _words(row: Any) -> set[str]:
    return set(row.question.lower().split())


def _cell(result: dict[str, Any]) -> str:
    value = result.get("value")
    if "not comparable" in (result.get("reason") or ""):
        return "not comparable"
    if value is None:
        return "–"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{text} ({result['D']:.2f})" if "D" in result else text


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "tofu_scratch")
    parser.add_argument("--data-dir", type=Path, default=SHARED / "tofu")
    parser.add_argument("--minutes", type=float, default=9.0, help="Of this call (default 9).")
    parser.add_argument("--list", action="store_true", help="Print the stages and which are done.")
    arguments = parser.parse_args()
    work = arguments.work_dir / arguments.preset
    bench = Bench(
        arguments.preset, work, arguments.data_dir, Clock(time.monotonic() + 60 * arguments.minutes)
    )
    for name, run in bench.stages():
        mark = work / "done" / f"{name.replace(': ', '-').replace(' ', '-')}"
        if arguments.list:
            print(f"{'done' if mark.is_file() else 'open'}  {name}")
            continue
        if mark.is_file():
            continue
        start = time.monotonic()
        try:
            run()
        except TimeUpError:
            print(f"{name}: time is up after {time.monotonic() - start:.0f} s; the same command goes on")
            return LEFT
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
