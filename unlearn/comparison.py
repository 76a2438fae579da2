"""The main job: unlearn with several methods, measure each beside target and oracle, write one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import environment, write_json
from eval.errors import ConfigError
from eval.processes import num_processes
from eval.report import Report, now
from unlearn.dynamics import SAMPLE, read_dynamics
from unlearn.methods import DEFAULT_METHODS, make_method
from unlearn.runs import benchmark_info, locked_run, read_sections, refuse_other_run, slug
from unlearn.stages import Stages

if TYPE_CHECKING:
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.types import Progress

__all__ = ["CompareSettings", "compare", "compare_prepared", "refuse_launcher"]


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """What a comparison depends on beside the models and the benchmark."""

    methods: tuple[str, ...] = DEFAULT_METHODS
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings for each method (``--set``)."""
    seed: int = 0
    seeds: int = 1
    """Number of seeds every method is run with: ``seed``, ``seed + 1``, ..."""
    max_new_tokens: int | None = None
    """Of generation; ``None``: 200, as in the field."""
    reference: Mapping[str, Any] | None = None
    """A retain model's log, where there is no oracle to evaluate."""
    eval_every: int | None = None
    """Evaluate on a sample of the questions every so many optimizer steps (`unlearn.dynamics`); ``None``: never."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigError("No methods were named; give at least one, such as --methods npo,guard.")
        repeated = [name for name in self.methods if self.methods.count(name) > 1]
        if repeated:
            raise ConfigError(f"Method {repeated[0]!r} is named twice; name each method once.")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; give the number of seeds to run, 1 or more.")


def compare(
    target: LanguageModel,
    benchmark: Benchmark,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    oracle: LanguageModel | None = None,
    reference: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    seeds: int = 1,
    output_dir: Path | str | None = None,
    max_new_tokens: int | None = None,
    eval_every: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Unlearn ``benchmark.forget`` from ``target`` with each method and measure all of them side by side.

    Finished stages found in ``output_dir`` are not done again, unless something they depend on has changed.

    Args:
        target: The model that knows everything; it stays unchanged.
        benchmark: What to forget, to keep and to ask.
        methods: Names from `unlearn methods`.
        oracle: A model that never saw the forget set; without it (or ``reference``) forget quality is null.
        reference: A published retain log in place of an oracle.
        overrides: Settings for each method.
        seed: Of every method.
        seeds: Run every method with so many seeds (``seed``, ``seed + 1``, ...) and report means and spread.
        output_dir: Where the run is kept; default ``runs/<benchmark>``.
        max_new_tokens: Of generation; default: 200, as in the field.
        eval_every: Also evaluate while methods train, every so many optimizer steps.
        progress: Told what is being done.

    Raises:
        UnlearnError: On anything the user can mend, before anything is lost.
    """
    settings = CompareSettings(
        methods=tuple(methods),
        overrides=overrides or {},
        seed=seed,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        reference=reference,
        eval_every=eval_every,
    )
    directory = Path(output_dir) if output_dir is not None else Path("runs") / slug(benchmark.name)
    return compare_prepared(target, oracle, benchmark, settings, directory, progress=progress)


def refuse_launcher() -> None:
    """Refuse to compare in several processes: the filters and edits among the methods run in one.

    Raises:
        ConfigError: If a launcher started more than one.
    """
    if num_processes() > 1:
        raise ConfigError(
            f"unlearn compare runs in one process, but {num_processes()} were started; train each method with "
            "`accelerate launch -m unlearn train`, measure it with `accelerate launch -m unlearn evaluate`, or "
            "start compare without a launcher."
        )


def compare_prepared(
    target: LanguageModel,
    oracle: LanguageModel | None,
    benchmark: Benchmark,
    settings: CompareSettings,
    output_dir: Path,
    *,
    taught: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run a comparison whose models are there; see `compare`.

    Args:
        target: The model that knows everything.
        oracle: The model that never saw the forget set.
        benchmark: What to forget, to keep and to ask.
        settings: Methods and their settings.
        output_dir: The run's folder.
        taught: Seconds that teaching ``target`` and ``oracle`` took.
        config: The resolved command line, written to ``config.yaml``.
        progress: Told what is being done.
    """
    refuse_launcher()
    built = {name: make_method(name, settings.overrides.get(name)) for name in settings.methods}
    with locked_run(output_dir):
        _write_config(output_dir, settings, benchmark, config)
        write_json(output_dir / "environment.json", environment(str(target.device)))
        stages = Stages(benchmark, settings, output_dir, target, progress, dict(taught or {}))
        if oracle is not None:
            stages.measure_given("oracle", oracle)
        stages.measure_given("target", target)
        for name, method in built.items():
            stages.measure_method(name, method)
        report = _report(stages)
        report.save(output_dir)
        _write_card(output_dir, report)
        return report


def _report(stages: Stages) -> Report:
    """Put target, oracle and the methods side by side."""
    from eval.report.dynamics import dynamics_sections
    from eval.report.gate_section import gates_together
    from eval.report.sections import comparison_sections

    order = [n for n in ("target", "oracle", *stages.settings.methods) if n in stages.finished]
    runs = [stages.finished[name].info for name in order]
    results = {name: stages.finished[name].results for name in order}
    notes: list[str] = []
    if stages.reference is None:
        notes.append("Forget quality is null: no oracle and no --reference log was given to compare with.")
    sections = comparison_sections(
        runs=runs,
        results=results,
        logs={name: stages.log(name) for name in order},
        examples=stages.benchmark.splits.get("forget", ()),
        notes=notes,
    )
    measured = {name: read_dynamics(stages.directory / name) for name in order}
    dynamics = dynamics_sections(runs, measured, results, sample=SAMPLE)
    own = gates_together([section for name in order for section in read_sections(stages.directory / name)])
    pictures = next((i for i, section in enumerate(sections) if section.id == "answers"), len(sections))
    return Report(
        kind="compare",
        name=stages.directory.name,
        created=now(),
        benchmark=benchmark_info(stages.benchmark),
        environment=environment(str(stages.target.device)),
        runs=runs,
        results=results,
        sections=[*sections[:pictures], *dynamics, *sections[pictures:], *own],
    )


def _write_config(
    directory: Path, settings: CompareSettings, benchmark: Benchmark, config: Mapping[str, Any] | None
) -> None:
    import yaml

    from eval.artifacts import write_text

    resolved = dict(config or {}) or {
        "benchmark": benchmark.name,
        "methods": list(settings.methods),
        "seed": settings.seed,
        "seeds": settings.seeds,
        "overrides": {name: dict(values) for name, values in settings.overrides.items() if values},
    }
    refuse_other_run(directory, resolved)
    write_text(directory / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))


def _write_card(directory: Path, report: Report) -> None:
    """Write the run's README: what was done, what each artifact changes, how to look at it."""
    from eval.artifacts import write_text
    from eval.report.markdown import markdown_table

    rows = [[run.title, run.kind, run.summary, run.artifact or "-"] for run in report.runs]
    lines = [
        f"# {report.name}",
        "",
        f"`unlearn compare` on {report.benchmark.name}, {report.created}. Open `report.html`; every number in it can "
        "be recomputed from the per-example values in `<method>/eval/*_EVAL.json`.",
        "",
        "A filter suppresses, an adapter edits, training changes weights: the column says which.",
        "",
        markdown_table(["method", "changes", "what it does", "artifact"], rows),
        "",
    ]
    write_text(directory / "README.md", "\n".join(lines))
