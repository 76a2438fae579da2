"""What an unfinished evaluation has found so far: one JSON line an example, on disk as soon as it is known.

The lines stand beside the final log, in ``partial.jsonl`` (of process N of a launcher: ``partial-N.jsonl``), and
go once that log is written. An evaluation that is started again after it was killed reads them and does the rest.

Its numbers are those of an uninterrupted one to the last bit. A row's last bits depend on the rows computed in one
batch with it; so a batch is known by all its rows, and one of which a line is missing, or that an evaluation on
another number of processes would not have made, is computed anew. (The same machine and number of threads are taken
for granted: matrix products differ between them, with or without a kill.)
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from eval.artifacts import fingerprint
from eval.types import Example, Progress

if TYPE_CHECKING:
    from eval.models.language_model import Generation, GenerationOptions, LanguageModel

__all__ = ["Partial", "generated", "kept", "resumed"]

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

VERSION = 1
SYNC_SECONDS = 5.0
"""Between two forced writes to the disk: a killed process loses nothing it wrote, a power cut at most so much."""


class Partial:
    """The lines of one evaluation; a context manager that leaves them there for the next run if it fails.

    Args:
        directory: Where the final log will stand.
        key: Fingerprint of everything the numbers depend on; lines of another key are not used.
        rank: Number of this process; each writes a file of its own and reads all.
    """

    def __init__(self, directory: Path, key: str, *, rank: int = 0) -> None:
        self.directory, self.key = directory, key
        self.path = directory / (f"partial-{rank}.jsonl" if rank else "partial.jsonl")
        self._known: defaultdict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self._files():
            lines, size = _read(path, self.key)
            for line in lines:
                self._known[line["batch"]][line["row"]] = line
            if path == self.path and size < path.stat().st_size:
                os.truncate(path, size)
        self._file = self.path.open("a", encoding="utf-8")
        if self._file.tell() == 0:
            self._write([{"version": VERSION, "key": self.key}])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._sync()
            self._file.close()

    def get(self, batch: str, size: int) -> list[Mapping[str, Any]] | None:
        """Return what was kept of the rows of a batch, in their order; ``None`` unless it is there for every row."""
        lines = self._known.get(batch, {})
        return [lines[i] for i in range(size)] if lines.keys() >= set(range(size)) else None

    def put(self, batch: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was found out about the rows of one batch, one JSON object each."""
        self._write([{"batch": batch, "row": i, **value} for i, value in enumerate(values)])

    def discard(self) -> None:
        """Take the files of all processes away: the final log is written."""
        self._file.close()
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("partial*.jsonl"))

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        # Python's JSON: the NaN of a broken model stands as it is and is read again.
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def kept(
    lm: LanguageModel, directory: Path | None, name: str = "", *, rank: int = 0
) -> AbstractContextManager[Partial | None]:
    """Return where what a model says is kept as it is found; nowhere without a folder or a known state of the model.

    Args:
        lm: The model, as it is asked.
        directory: Where the final log will stand.
        name: What is done, where several things are done with the same model in one folder.
        rank: Number of this process.
    """
    state = None if directory is None else lm.state_digest
    if directory is None or state is None:
        return nullcontext()
    versions = [version(package) for package in ("unlearn-toolkit", "torch", "transformers")]
    return Partial(directory, fingerprint([state, *versions, name]), rank=rank)


def generated(
    lm: LanguageModel,
    rows: Sequence[Example],
    options: GenerationOptions,
    *,
    partial: Partial | None = None,
    progress: Progress | None = None,
) -> list[Generation]:
    """Answer each row; those that ``partial`` holds are not asked again.

    A sampled answer depends on all that are drawn with it, so that those of one seed are one batch.
    """
    from eval.data.collate import encode_prompts
    from eval.models.language_model import Generation

    prompts = [row.conversation for row in rows]
    prompt_ids = encode_prompts(lm.tokenizer, lm.template, prompts)
    sampled = [list(range(len(rows)))] if rows else []
    within = progress if options.do_sample else None
    found = resumed(
        "generating",
        sampled if options.do_sample else lm.generation_batches(prompts, options),
        lambda places: lm.generate([rows[i] for i in places], options, progress=within),
        name=lambda batch: (options, [(prompts[i], prompt_ids[i]) for i in batch]),
        write=lambda i, said: {"prompt": prompts[i][-1].content, **asdict(said)},
        read=lambda i, value: Generation.from_json(value),
        partial=partial,
        progress=progress,
    )
    return [found[i] for i in range(len(rows))]


def resumed(
    what: str,
    batches: Sequence[Sequence[T]],
    work: Callable[[Sequence[T]], Sequence[R]],
    *,
    name: Callable[[Sequence[T]], object],
    write: Callable[[T, R], dict[str, Any]],
    read: Callable[[T, Mapping[str, Any]], R],
    partial: Partial | None = None,
    progress: Progress | None = None,
) -> dict[T, R]:
    """Do the batches of which something is missing, keep each as it is finished, and return all results.

    Args:
        what: Shown as progress. The rows that are to be done count, not those done before, so that the remaining
            time is that of the work that remains.
        batches: Rows that are computed together.
        work: Computes one batch.
        name: Everything the results of a batch depend on beside the model; its ``repr`` names the batch.
        write: Turns a row and its result into JSON.
        read: Turns a row and its JSON into the result again, bit for bit.
        partial: Where results are kept; ``None``: nowhere.
        progress: Told the number of rows done.
    """
    found: dict[T, R] = {}
    missing: list[Sequence[T]] = []
    names: list[str] = []
    for batch in batches:
        digest = "" if partial is None else _digest(f"{what} {name(batch)!r}")
        kept = None if partial is None else partial.get(digest, len(batch))
        if kept is None:
            missing.append(batch)
            names.append(digest)
        else:
            found |= {row: read(row, line) for row, line in zip(batch, kept, strict=True)}
    done, total = 0, sum(map(len, missing))
    label = f"{what}, {len(found)} kept" if found else what
    for digest, batch in zip(names, missing, strict=True):
        results = dict(zip(batch, work(batch), strict=True))
        if partial is not None:
            partial.put(digest, [{"what": what, **write(row, result)} for row, result in results.items()])
        found |= results
        done += len(batch)
        if progress is not None:
            progress(label, done, total)
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: Path, key: str) -> tuple[list[dict[str, Any]], int]:
    """Return the lines of one file up to the first that is torn or not ours, and the bytes they take; none of
    another key.
    """
    lines: list[dict[str, Any]] = []
    size = 0
    for raw in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(raw) if raw.endswith(b"\n") else None
        except ValueError:
            line = None
        if not isinstance(line, dict):
            break
        if size == 0:
            if (line.get("version"), line.get("key")) != (VERSION, key):
                break
        elif isinstance(line.get("batch"), str) and isinstance(line.get("row"), int):
            lines.append(line)
        else:
            break
        size += len(raw)
    return lines, size
