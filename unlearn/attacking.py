"""Attack what a comparison made: target, oracle and every finished method, one attack after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.artifacts import environment, fingerprint, read_json, write_json
from eval.errors import ArtifactError, ConfigError
from eval.report import Report, RunInfo, now
from unlearn.methods import make_method
from unlearn.runs import RECORD, TRAINED, benchmark_info, labelled, locked_run
from unlearn.stages import LABELS

if TYPE_CHECKING:
    from eval.attacks.base import Attack, AttackData
    from eval.data import Benchmark
    from eval.models import LanguageModel
    from eval.types import Example, Progress

__all__ = ["DEFAULT_ATTACKS", "AttackSettings", "attack", "attacked_questions"]

DEFAULT_ATTACKS = ("prompt", "sampling", "probing", "quantization", "edit", "relearning")
"""Families of attacks that run when none are named: every one."""


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """What an attack's numbers depend on beside the models."""

    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    """Names or families."""
    wordings: Path | None = None
    """JSON lines of prompts of one's own (translations, ...), see `eval.attacks.catalogue.from_file`."""
    methods: tuple[str, ...] = ()
    """Of the run; empty: every finished one."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The settings the methods were run with."""
    seed: int = 0
    limit: int | None = None
    """At most so many questions, drawn by seed."""
    max_new_tokens: int = 64
    keep_weights: bool = True
    """Keep the weights that an attacker trains, so that they are never trained twice."""


def attack(
    target: LanguageModel,
    oracle: LanguageModel | None,
    benchmark: Benchmark,
    run: Path,
    settings: AttackSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Attack every model of a finished comparison and write ``run/attack/report.*``.

    Per-question results are kept in ``run/<method>/attacks/<attack>.json``; what is there already is not done again,
    and an attack that was killed goes on at the answer it had reached. Relearned weights are kept beside them, with
    the model whose weights they were: models that put an edit or a filter on the target's share the target's.

    Args:
        target: The model that knows everything.
        oracle: The model that never saw the forget set; without it nothing says what guessing reaches.
        benchmark: The run's.
        run: The folder of a comparison.
        settings: Which attacks on which methods.
        progress: Told what is being done.

    Raises:
        ConfigError: If the run has no finished method, or one that is named is not finished.
        UnknownNameError: If there is no such attack.
    """
    from eval.attacks.base import AttackData
    from eval.attacks.catalogue import attacks, choose, from_file

    settings = settings or AttackSettings()
    known = attacks(is_world=benchmark.name.startswith("world:"))
    chosen = choose(known, settings.attacks)
    if settings.wordings is not None:
        chosen += from_file(settings.wordings)
    names = _finished(run, settings.methods)
    data = AttackData(
        questions=attacked_questions(benchmark, settings), retain=tuple(benchmark.retain), start=target
    )
    with locked_run(run):
        sweep = _Sweep(run, settings, data, progress)
        for name, lm in _models(run, names, target, oracle, settings):
            for one in chosen:
                sweep.measure(name, lm, one)
        report = _report(run, benchmark, sweep, chosen, str(target.device))
        report.save(run / "attack")
        return report


def _finished(run: Path, asked: Sequence[str]) -> list[str]:
    """Return the methods whose artifacts are complete: those of the run's report, or any in its folder by name."""
    found = read_json(run / "report.json")["results"] if (run / "report.json").is_file() else {}
    names = [name for name in asked or found if name not in LABELS and (run / name / RECORD).is_file()]
    missing = [name for name in asked if name not in names]
    if missing or not names:
        what = f"no finished method {missing[0]!r}" if missing else "no finished method"
        raise ConfigError(
            f"{run} holds {what} (finished: {', '.join(names) or 'none'}); run `unlearn compare` there first."
        )
    return names


def attacked_questions(benchmark: Benchmark, settings: AttackSettings) -> tuple[Example, ...]:
    """Return the forget questions an attack asks: the split ``forget``, else the one in which leaks are looked for.

    Raises:
        ConfigError: If the benchmark asks nothing whose answer can leak.
    """
    import random

    from eval.measures import Generated

    main = (m.split for m in benchmark.measures if isinstance(m, Generated) and m.is_main)
    rows = list(benchmark.splits.get(next(main, "forget"), ()))
    if not rows:
        raise ConfigError(
            f"Benchmark {benchmark.name} asks no question whose answer can leak, so there is nothing to attack; "
            "attack a run on world, tofu, jsonl, muse, lume, rwku or text."
        )
    if settings.limit is not None and settings.limit < len(rows):
        kept = sorted(random.Random(settings.seed).sample(range(len(rows)), settings.limit))
        rows = [rows[i] for i in kept]
    return tuple(rows)


def _models(
    run: Path,
    names: Sequence[str],
    target: LanguageModel,
    oracle: LanguageModel | None,
    settings: AttackSettings,
) -> Iterator[tuple[str, LanguageModel]]:
    yield "target", target
    if oracle is not None:
        yield "oracle", oracle
    for name in names:
        yield name, make_method(name, settings.overrides.get(name)).load(target, run / name)


class _Sweep:
    """Every (model, attack) of one command; each finished one stands in a file of its own."""

    def __init__(
        self, run: Path, settings: AttackSettings, data: AttackData, progress: Progress | None
    ) -> None:
        self.run, self.settings, self.data, self.progress = run, settings, data, progress
        self.results: dict[str, dict[str, dict[str, Any]]] = {}
        self.infos: dict[str, RunInfo] = {}

    def measure(self, name: str, lm: LanguageModel, one: Attack) -> None:
        """Run one attack on one model, or read what an earlier command found."""
        from importlib.metadata import version

        from eval.attacks.base import run_attack
        from eval.models import GenerationOptions

        record = self._record(name)
        if name not in self.infos:
            self.infos[name] = record
        path = self.run / name / "attacks" / f"{one.name}.json"
        key = fingerprint(
            {
                "model": self._model_key(name, lm),
                "attack": one.name,
                "questions": [(e.id, e.conversation, e.key_spans) for e in self._asked(one)],
                "seed": self.settings.seed,
                "max_new_tokens": self.settings.max_new_tokens,
                "version": version("unlearn-toolkit"),
            }
        )
        value = read_json(path) if path.is_file() else {}
        if value.get("key") != key:
            label = f"{name}, {one.name}"
            if self.progress is not None:
                self.progress(label, 0, 0)
            result = run_attack(
                lm,
                one,
                replace(self.data, keep=self._keep(name, lm)),
                seed=self.settings.seed,
                options=GenerationOptions(max_new_tokens=self.settings.max_new_tokens),
                partial_dir=path.parent,
                progress=labelled(self.progress, label),
            )
            metric = result.metric(seed=self.settings.seed).as_json()
            value = {"key": key, "attack": one.name, "result": metric, "items": list(result.items)}
            write_json(path, value)
            (path.parent / "partial.jsonl").unlink(missing_ok=True)
        self.results.setdefault(name, {})[one.name] = value["result"]

    def _keep(self, name: str, lm: LanguageModel) -> Path | None:
        """Return where weights that an attacker trains are kept: with the model that the attacker starts from."""
        if not self.settings.keep_weights:
            return None
        target = self.data.start
        is_of_target = target is not None and lm.identity == target.identity
        return self.run / ("target" if is_of_target else name) / "attacks"

    def _asked(self, one: Attack) -> list[Example]:
        """Return the prompts of an attack, so that one in other words is not taken for the one done before."""
        questions = list(self.data.questions)
        return questions if one.ask is None else one.ask(questions, self.settings.seed)

    def _record(self, name: str) -> RunInfo:
        path = self.run / name / RECORD
        if not path.is_file():  # a target or oracle that this run did not evaluate
            return RunInfo(method=name, label=LABELS.get(name, name))
        try:
            return RunInfo(**read_json(path)["info"])
        except (KeyError, TypeError):
            raise ArtifactError(f"{path} is damaged; remove it and run `unlearn compare` again.") from None

    def _model_key(self, name: str, lm: LanguageModel) -> str:
        path = self.run / name / TRAINED
        return str(read_json(path).get("key")) if path.is_file() else lm.identity


def _report(run: Path, benchmark: Benchmark, sweep: _Sweep, chosen: Sequence[Attack], device: str) -> Report:
    from eval.report.attack_section import attack_sections

    return Report(
        kind="attack",
        name=f"{run.name}, attacked",
        created=now(),
        benchmark=benchmark_info(benchmark),
        environment=environment(device),
        runs=list(sweep.infos.values()),
        results={name: {"leak_rate": found["plain"]} for name, found in sweep.results.items()},
        sections=attack_sections(
            runs=list(sweep.infos.values()),
            found=sweep.results,
            attacks={one.name: (one.family, one.summary) for one in chosen},
        ),
    )
