"""Recompute every aggregate of a published or own evaluation log from its per-item values."""

from __future__ import annotations

from pathlib import Path

from eval.metrics.aggregate import aggregate
from eval.report.open_unlearning import EvalLog, read_log, run_logs

__all__ = ["recompute"]


def recompute(path: Path | str, reference: Path | str | None = None) -> dict[str, float | None]:
    """Return ``{metric: value}`` of a log, null where a value cannot be had.

    Args:
        path: OpenUnlearning's ``*_EVAL.json``, TOFU's legacy aggregated log, or a run folder (or its
            ``report.json``). A comparison's metrics are named ``method/metric``, its oracle is the reference.
        reference: The retain model's log, in any of these forms; without it forget quality is null.

    Raises:
        ArtifactError: If a file is missing, not JSON, of unknown layout, or holds a value that is not finite.
        DataError: If ``reference`` is of another forget split.
    """
    path = Path(path)
    folder = path.parent if path.name == "report.json" else path
    given = None if reference is None else read_log(reference, prefer=("oracle", "model"))
    if folder is path and not path.is_dir():
        return _values(path, given)
    logs = run_logs(folder)
    if len(logs) == 1:
        return _values(next(iter(logs.values())), given)
    if given is None and "oracle" in logs:
        given = read_log(logs["oracle"])
    out: dict[str, float | None] = {}
    for method, log in logs.items():
        own_reference = None if method == "oracle" and reference is None else given
        values = {name: r.value for name, r in aggregate(read_log(log), own_reference).items()}
        out |= {f"{method}/{name}": value for name, value in values.items()}
    return out


def _values(path: Path, reference: EvalLog | None) -> dict[str, float | None]:
    return {name: result.value for name, result in aggregate(read_log(path), reference).items()}
