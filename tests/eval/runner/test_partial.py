"""An evaluation that was interrupted goes on where it stopped, and nothing in its numbers tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.data import Benchmark
from eval.models import GenerationOptions, LanguageModel, batching
from eval.models.scoring import TokenScores
from eval.partial import Partial, resumed
from eval.runner import Evaluation, evaluate
from eval.types import Example

SHORT = GenerationOptions(max_new_tokens=4)


class PowerCutError(Exception):
    """What stands for a kill within one process."""


class Counting(LanguageModel):
    """A model that counts its batches and dies before one of them."""

    def __init__(self, lm: LanguageModel, dies_at: int = 10**9) -> None:
        super().__init__(lm.model, lm.tokenizer, template=lm.template)
        self.dies_at = dies_at
        self.scored: list[tuple[int, ...]] = []
        self.num_batches = self.num_generated = 0

    def _batch(self) -> None:
        if self.num_batches == self.dies_at:
            raise PowerCutError
        self.num_batches += 1

    def score_batch(self, rows: Any, *, moments: bool = False) -> list[TokenScores]:
        self._batch()
        self.scored += [(*row.prompt_ids, *row.answer_ids) for row in rows]
        return super().score_batch(rows, moments=moments)

    def generate(self, prompts: Any, *rest: Any, **options: Any) -> Any:
        self._batch()
        self.num_generated += len(prompts)
        return super().generate(prompts, *rest, **options)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LOGITS_BYTES", 4 * 400 * 120)
    monkeypatch.setattr(batching, "GENERATED_TOKENS", 90)


@pytest.fixture
def benchmark(examples: list[Example]) -> Benchmark:
    splits = {"forget": tuple(examples[:4]), "retain": tuple(examples[4:8]), "holdout": tuple(examples[8:])}
    return Benchmark(name="toy", forget=splits["forget"], retain=splits["retain"], splits=splits)


@pytest.fixture
def interrupted(tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path) -> Callable[[int], Counting]:
    def interrupt(dies_at: int) -> Counting:
        lm = Counting(tiny_lm, dies_at)
        with pytest.raises(PowerCutError):
            evaluate(lm, benchmark, options=SHORT, output_dir=tmp_path)
        return lm

    return interrupt


def log_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "eval" / "TOFU_EVAL.json").read_text()))


@pytest.mark.parametrize("dies_at", [1, 5, -1])
def test_only_the_rest_is_done_and_the_log_is_the_same_to_the_last_bit(
    tiny_lm: LanguageModel,
    benchmark: Benchmark,
    tmp_path: Path,
    interrupted: Callable[[int], Counting],
    dies_at: int,
) -> None:
    whole = Counting(tiny_lm)
    expected = evaluate(whole, benchmark, options=SHORT, output_dir=tmp_path / "whole")
    assert whole.num_batches >= 8
    first = interrupted(dies_at % whole.num_batches)
    lines = (tmp_path / "eval" / "partial.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(first.scored) + first.num_generated
    second = Counting(tiny_lm)
    done = evaluate(second, benchmark, options=SHORT, output_dir=tmp_path)
    assert first.num_batches + second.num_batches == whole.num_batches
    assert not set(first.scored) & set(second.scored)
    assert first.num_generated + second.num_generated == whole.num_generated == 8
    assert done.log == expected.log
    assert log_of(tmp_path) == log_of(tmp_path / "whole")
    assert not list((tmp_path / "eval").glob("partial*"))


def test_a_torn_line_costs_its_batch_alone(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path, interrupted: Callable[[int], Counting]
) -> None:
    expected = evaluate(tiny_lm, benchmark, options=SHORT)
    first = interrupted(4)
    path = tmp_path / "eval" / "partial.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    second = Counting(tiny_lm, dies_at=0)
    with pytest.raises(PowerCutError):
        evaluate(second, benchmark, options=SHORT, output_dir=tmp_path)
    assert path.read_bytes().endswith(b"}\n")  # the torn line is gone, later ones stand on lines of their own
    third = Counting(tiny_lm)
    done = evaluate(third, benchmark, options=SHORT, output_dir=tmp_path)
    again = [row for row in third.scored if row in first.scored]
    assert 1 <= len(again) < len(first.scored)
    assert done.log == expected.log


def test_what_was_kept_for_something_else_is_not_used(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path, interrupted: Callable[[int], Counting]
) -> None:
    whole = Counting(tiny_lm)
    evaluate(whole, benchmark, options=SHORT)

    def rerun(
        lm: LanguageModel, benchmark: Benchmark, options: GenerationOptions
    ) -> tuple[Counting, Evaluation]:
        interrupted(whole.num_batches - 1)
        counting = Counting(lm)
        return counting, evaluate(counting, benchmark, options=options, output_dir=tmp_path)

    longer = GenerationOptions(max_new_tokens=5)
    counting, _ = rerun(tiny_lm, benchmark, longer)
    assert (counting.scored, counting.num_generated) == ([], 8)  # scores do not depend on it, texts do
    fewer = {name: rows[:3] for name, rows in benchmark.splits.items()}
    other = Benchmark(name="toy", forget=benchmark.forget, retain=benchmark.retain, splits=fewer)
    counting, done = rerun(tiny_lm, other, SHORT)
    assert counting.scored  # other batches: equal rows in them are computed anew
    assert done.log == evaluate(tiny_lm, other, options=SHORT).log
    changed = tiny_lm.copied()
    parameter = next(changed.model.parameters())
    parameter.data += 1e-3
    counting, done = rerun(changed, benchmark, SHORT)
    assert len(counting.scored) == len(whole.scored)
    assert done.log == evaluate(changed, benchmark, options=SHORT).log


def test_a_model_that_does_not_say_what_it_depends_on_starts_over(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path
) -> None:
    lm = Counting(tiny_lm, dies_at=3)
    lm.kind = "edit"
    with pytest.raises(PowerCutError):
        evaluate(lm, benchmark, options=SHORT, output_dir=tmp_path)
    assert not (tmp_path / "eval").exists()


def test_progress_counts_what_remains(
    tiny_lm: LanguageModel, benchmark: Benchmark, tmp_path: Path, interrupted: Callable[[int], Counting]
) -> None:
    first = interrupted(2)
    told: list[tuple[str, int, int]] = []
    evaluate(
        tiny_lm,
        benchmark,
        options=SHORT,
        output_dir=tmp_path,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    scoring = [(done, total) for what, done, total in told if what.startswith("scoring, ")]
    rest = scoring[-1][1]
    assert scoring[-1] == (rest, rest)
    assert 0 < scoring[0][0] < rest
    kept = {int(what.split()[1]) for what, _, _ in told if what.startswith("scoring, ")}
    assert kept == {len(first.scored)}


def test_every_value_comes_back_bit_for_bit() -> None:
    values = np.array([-0.1, -1 / 3, -1e-30, -np.inf, np.nan, -(2**24) - 2], np.float32)
    scores = TokenScores(np.arange(6), values, values < -0.2, values * 2, values / 3)
    again = TokenScores.from_json(range(6), json.loads(json.dumps(scores.as_json())))
    for name in ("token_ids", "logps", "hits", "means", "variances"):
        mine, its = getattr(scores, name), getattr(again, name)
        assert mine.dtype == its.dtype
        assert mine.tobytes() == its.tobytes()
    assert (
        TokenScores.from_json(
            [7], TokenScores(*(a[:1] for a in (scores.token_ids, values, scores.hits))).as_json()
        ).means
        is None
    )


def test_files_of_all_processes_are_read_and_taken_away(tmp_path: Path) -> None:
    for rank, name, values in ((0, "a", [{"x": 1}]), (1, "b", [{"x": 2}, {"x": 3}])):
        with Partial(tmp_path, "key", rank=rank) as partial:
            partial.put(name, values)
    with Partial(tmp_path, "another") as partial:  # writes partial.jsonl anew
        assert partial.get("a", 1) is partial.get("b", 2) is None
    with Partial(tmp_path, "key", rank=2) as partial:
        assert partial.get("a", 1) is None
        assert [line["x"] for line in partial.get("b", 2) or ()] == [2, 3]
        assert partial.get("b", 3) is None
        partial.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", [b'{"batch": "b", "row": 0, "x"', b"[1]\n", b'{"row": "0"}\n', b"\xff\n"])
def test_lines_that_are_torn_or_not_ours_end_what_is_read(tmp_path: Path, line: bytes) -> None:
    with Partial(tmp_path, "key") as partial:
        partial.put("a", [{"x": 1}])
    path = tmp_path / "partial.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + line)
    with Partial(tmp_path, "key") as partial:
        assert partial.get("a", 1) == [{"batch": "a", "row": 0, "x": 1}]
        assert partial.get("b", 1) is None
    assert path.read_bytes() == whole


def test_a_batch_is_kept_before_the_next_begins(tmp_path: Path) -> None:
    seen: list[int] = []

    def work(batch: Any) -> list[int]:
        lines = (tmp_path / "partial.jsonl").read_text().splitlines()
        seen.append(len(lines) - 1)
        return [10 * row for row in batch]

    with Partial(tmp_path, "key") as partial:
        found = resumed(
            "tens",
            [[1, 2], [3]],
            work,
            name=list,
            write=lambda row, value: {"value": value},
            read=lambda row, line: line["value"],
            partial=partial,
        )
    assert found == {1: 10, 2: 20, 3: 30}
    assert seen == [0, 2]
