"""Rows of a benchmark's tables, from a local folder or the hub: JSON, JSON lines, CSV, Parquet or plain text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.errors import DataError

__all__ = ["Tables", "read_table"]

Rows = list[dict[str, Any]]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
"""What a local table may end in, in order of preference."""


def read_table(path: Path) -> Rows:
    """Read one table; a plain text is one row ``{"text": ...}``.

    A ``.json`` file may hold a list of objects, a list of texts, or JSON lines.

    Raises:
        DataError: If the file is missing or broken; the sentence names the line where there is one.
    """
    from eval.data.jsonl import read_rows

    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".jsonl":
        return [row for _, row in read_rows(path)]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The data file {path} cannot be read as UTF-8 text ({error}).") from None
    if path.suffix == ".txt":
        return [{"text": text}]
    if path.suffix == ".csv":
        return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    if not text.lstrip().startswith("["):
        return [row for _, row in read_rows(path)]
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not valid JSON ({error.msg} at line {error.lineno}); it may be cut off: get it anew."
        ) from None
    return [row if isinstance(row, dict) else {"text": str(row)} for row in rows]


def _parquet(path: Path) -> Rows:
    try:
        from datasets import Dataset
    except ImportError:
        raise DataError(
            f"{path} is Parquet, which needs the package `datasets`: pip install 'unlearn-toolkit[hub]'."
        ) from None
    rows: Rows = Dataset.from_parquet(str(path)).to_list()
    return rows


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Where a benchmark's tables come from.

    Args:
        name: Of the benchmark, for sentences.
        hub: Dataset on the hub, such as ``muse-bench/MUSE-News``.
        data_dir: A local folder in place of the hub: ``CONFIG/SPLIT.jsonl`` (or .json, .csv, .parquet, .txt).
        generated: Rows by ``(config, split)``, in place of both.
        url: Where a user gets the files; empty: the hub's page.

    Raises:
        DataError: If ``data_dir`` is missing, or if there is neither a hub dataset nor a folder.
    """

    name: str
    hub: str = ""
    data_dir: Path | None = None
    generated: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    url: str = ""

    @property
    def source(self) -> str:
        """Where a user gets the files."""
        return self.url or f"https://huggingface.co/datasets/{self.hub}"

    def __post_init__(self) -> None:
        if not self.hub and self.data_dir is None and not self.generated:
            raise DataError(
                f"{self.name} is not on the hub: get its files from {self.source} and give their folder "
                "with --data-dir."
            )
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise DataError(
                f"There is no data folder {self.data_dir}; check --data-dir, or leave it out to use the hub."
            )

    def find(self, config: str, split: str, fields: Sequence[str]) -> Rows | None:
        """Return the rows of a split, or ``None`` where the folder or the hub has no such split.

        Args:
            config: Folder or hub configuration; empty: none.
            split: Name of the split.
            fields: What every row must have.

        Raises:
            DataError: If the file is broken, has no row, or a row lacks a field.
        """
        if self.generated:
            rows: Rows | None = [dict(row) for row in self.generated.get((config, split), ())] or None
            where = f"{config}/{split}"
        elif self.data_dir is not None:
            path = self._local(config, split)
            rows, where = (None, "") if path is None else (read_table(path), str(path))
        else:
            rows, where = self._from_hub(config, split), f"{self.hub} ({config or 'default'}, {split})"
        if rows is not None:
            _check(rows, fields, where)
        return rows

    def need(self, config: str, split: str, fields: Sequence[str]) -> Rows:
        """Return the rows of a split the benchmark cannot do without.

        Raises:
            DataError: If it is missing; the sentence names it and says where to get it.
        """
        rows = self.find(config, split, fields)
        if rows is None:
            wanted = "/".join(part for part in (config, split) if part)
            files = f" ({wanted}{', '.join(SUFFIXES)})" if self.data_dir is not None else ""
            raise DataError(
                f"{self.data_dir or self.hub} has no split {wanted!r}{files}, which {self.name} needs; get it from "
                f"{self.source}."
            )
        return rows

    def _local(self, config: str, split: str) -> Path | None:
        assert self.data_dir is not None
        stems = [self.data_dir / config / split, self.data_dir / f"{config}_{split}" if config else None]
        for stem in stems:
            for suffix in SUFFIXES if stem is not None else ():
                path = Path(f"{stem}{suffix}")
                if path.is_file():
                    return path
        shards = sorted((self.data_dir / config).glob(f"{split}-*.parquet"))
        if len(shards) > 1:
            raise DataError(
                f"{self.data_dir / config} holds {split!r} in {len(shards)} Parquet files; join them into one."
            )
        return shards[0] if shards else None

    def _from_hub(self, config: str, split: str) -> Rows | None:
        try:
            from datasets import load_dataset
        except ImportError:
            raise DataError(
                f"{self.name} comes from the hub by the package `datasets`: pip install "
                "'unlearn-toolkit[hub]', or give a local folder with --data-dir."
            ) from None
        try:
            rows: Rows = load_dataset(self.hub, config or None, split=split).to_list()
        except (ValueError, OSError) as error:
            # Both an unknown configuration or split and, offline, one that was never fetched are a ValueError.
            if isinstance(error, ValueError) and "find cache" not in str(error):
                return None
            raise DataError(
                f"{self.name}'s {config} {split} could not be fetched from the hub ({self.hub}: "
                f"{type(error).__name__}); check the connection, or give a local folder with --data-dir."
            ) from None
        return rows


def _check(rows: Rows, fields: Sequence[str], where: str) -> None:
    if not rows:
        raise DataError(f"{where} has no rows; get it anew.")
    for i, row in enumerate(rows):
        missing = [name for name in fields if row.get(name) is None]
        if missing:
            raise DataError(f"{where}, row {i + 1} has no {missing[0]!r}; mend or remove it.")
