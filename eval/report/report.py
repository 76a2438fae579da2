"""`Report`: what a run found, as dataclasses and as `report.json` (schema version 1; see docs/report.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from eval.artifacts import read_json, write_json, write_text
from eval.errors import ArtifactError

__all__ = ["SCHEMA_VERSION", "BenchmarkInfo", "Report", "RunInfo", "Section", "now"]

SCHEMA_VERSION = 1
"""Version of `report.json` that this package writes, and the only one it reads."""

T = TypeVar("T", "BenchmarkInfo", "RunInfo", "Section")


@dataclass(frozen=True, kw_only=True)
class BenchmarkInfo:
    """Which questions were asked, and how many."""

    name: str
    """As typed by the user, such as ``world:forget05``."""
    splits: dict[str, int] = field(default_factory=dict)
    """Number of tested rows of each split."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers must know (a missing split, a capped one)."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One row of the comparison: a method with its seed and settings, or the target, or the oracle."""

    method: str
    """Key into `Report.results`."""
    label: str = ""
    """What tables and pictures call it; empty: ``method``."""
    seed: int | None = None
    step: int | None = None
    """Training step the numbers belong to; ``None``: the end."""
    kind: str = "none"
    """``none``, ``suppression``, ``edit`` or ``weights`` (`eval.types.Kind`)."""
    summary: str = ""
    paper: str = ""
    """Where the method comes from, such as ``arXiv:2404.05868``."""
    seconds: float | None = None
    """Time to unlearn (or, for target and oracle, to teach)."""
    eval_seconds: float | None = None
    trainable_parameters: int | None = None
    peak_memory_mb: float | None = None
    """Largest memory use while unlearning, in MiB."""
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    artifact: str | None = None
    """Folder of the saved artifact, relative to the report."""

    @property
    def title(self) -> str:
        """The label, or the method's name where there is none."""
        return self.label or self.method


@dataclass(frozen=True, kw_only=True)
class Section:
    """A picture or table of the report; ``type`` names the renderer, ``data`` is what it draws.

    Types and the form of their data: docs/report.md.
    """

    id: str
    """Letters, digits and dashes; unique in the report; the anchor in the page."""
    title: str
    type: str
    """``table``, ``scatter``, ``distribution``, ``series``, ``figure``, ``answers`` or ``list``."""
    caption: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a table, Markdown page or HTML page shows; round-trips through `report.json`."""

    kind: Literal["compare", "evaluate", "attack"]
    name: str
    created: str
    """UTC, ISO 8601."""
    benchmark: BenchmarkInfo
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, device, commit (`eval.artifacts.environment`)."""
    runs: list[RunInfo] = field(default_factory=list)
    results: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """``{method: {metric: {"value", "ci", "n", optional "reason", further statistics}}}``."""
    sections: list[Section] = field(default_factory=list)

    def metric(self, method: str, name: str) -> dict[str, Any]:
        """Return one result; a metric that was not measured comes back with a null value."""
        return self.results.get(method, {}).get(name, {"value": None, "ci": None, "n": 0})

    def as_json(self) -> dict[str, Any]:
        """Return the content of `report.json`; numbers that are not finite become null."""
        plain = {"schema_version": SCHEMA_VERSION} | {f.name: getattr(self, f.name) for f in fields(self)}
        plain["benchmark"] = asdict(self.benchmark)
        plain["runs"] = [asdict(run) for run in self.runs]
        plain["sections"] = [asdict(section) for section in self.sections]
        finite: dict[str, Any] = _finite(plain)
        return finite

    @classmethod
    def from_json(cls, value: Any, *, source: str = "The report") -> Report:
        """Build a report from the content of `report.json`.

        Args:
            value: The parsed JSON.
            source: How error messages name it.

        Raises:
            ArtifactError: If it is not a report, is of another schema version, or has missing or unknown
                fields.
        """
        if not isinstance(value, Mapping) or "schema_version" not in value:
            raise ArtifactError(
                f"{source} is not a report: it has no schema_version; give the report.json of a run."
            )
        version = value["schema_version"]
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            hint = "update the toolkit" if newer else "make the report again"
            raise ArtifactError(
                f"{source} has schema version {version!r}, but this version reads {SCHEMA_VERSION}; {hint}."
            )
        given = {key: item for key, item in value.items() if key != "schema_version"}
        _check_fields(cls, given, source)
        try:
            return cls(
                kind=given["kind"],
                name=given["name"],
                created=given["created"],
                benchmark=_build(BenchmarkInfo, given["benchmark"], f"{source}: benchmark"),
                environment=dict(given["environment"]),
                runs=[_build(RunInfo, run, f"{source}: run {i}") for i, run in enumerate(given["runs"])],
                results={m: {k: dict(v) for k, v in row.items()} for m, row in given["results"].items()},
                sections=[
                    _build(Section, s, f"{source}: section {i}") for i, s in enumerate(given["sections"])
                ],
            )
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"{source} is damaged ({error}); make the report again.") from None

    def save(self, directory: Path | str) -> Path:
        """Write `report.json`, `report.md` and `report.html`, each atomically, and return the HTML's path.

        `report.json` comes first, so that a failure while drawing loses no result.
        """
        from eval.report.html import render_html
        from eval.report.markdown import render_markdown

        folder = Path(directory)
        self.save_json(folder)
        write_text(folder / "report.md", render_markdown(self))
        write_text(folder / "report.html", render_html(self))
        return folder / "report.html"

    def save_json(self, directory: Path | str) -> Path:
        """Write `report.json` alone (fast: nothing is drawn) and return its path."""
        path = Path(directory) / "report.json"
        write_json(path, self.as_json())
        return path

    @classmethod
    def load(cls, path: Path | str) -> Report:
        """Read a report from its file, or from the run folder that holds one.

        Raises:
            ArtifactError: If the file is missing, damaged, no report, or of another schema version.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "report.json"
            if not path.is_file():
                raise ArtifactError(
                    f"{path.parent} is no run folder (it holds no report.json); give the folder that "
                    "`unlearn compare` or `unlearn evaluate` left, such as runs/world-forget05."
                )
        return cls.from_json(read_json(path), source=str(path))


def now() -> str:
    """Return the time of day for `Report.created`: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _check_fields(cls: type[Any], given: Mapping[str, Any], source: str) -> None:
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ArtifactError(f"{source} has unknown fields ({', '.join(unknown)}); make the report again.")
    missing = sorted(known - set(given))
    if missing:
        raise ArtifactError(f"{source} lacks {', '.join(missing)}; it may be half-written: make it again.")


def _build(cls: type[T], value: Any, source: str) -> T:
    if not isinstance(value, Mapping):
        raise ArtifactError(f"{source} is a {type(value).__name__}, not an object; make the report again.")
    _check_fields(cls, value, source)
    return cls(**value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
