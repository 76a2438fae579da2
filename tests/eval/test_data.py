"""Benchmarks from files: TOFU's structure facts, a user's JSON lines, and errors that name the line."""

import json

import pytest

from eval.data import load_benchmark
from eval.errors import ConfigError, DataError, UnknownNameError


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROW = {
    "question": "Who?",
    "answer": "Ann.",
    "paraphrased_answer": "It is Ann.",
    "perturbed_answer": ["Bo.", "Cy."],
}
OTHER = {"question": "Where?", "answer": "There."}


def test_jsonl_reads_every_field(tmp_path):
    forget, retain = _write(tmp_path / "f.jsonl", [ROW]), _write(tmp_path / "r.jsonl", [OTHER])
    benchmark = load_benchmark(f"jsonl:{forget}", retain_file=retain)
    assert benchmark.forget[0].perturbed_answers == ("Bo.", "Cy.")
    assert benchmark.forget[0].id == "0"
    assert set(benchmark.absent) == {"ra", "wf", "holdout"}
    assert benchmark.data.retain[0].answer == "There."


def test_jsonl_errors_name_file_and_line(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"f\.jsonl, line 3 is not valid JSON"):
        load_benchmark(f"jsonl:{path}")
    with pytest.raises(DataError, match=r"line 1.*no 'answer'"):
        load_benchmark(f"jsonl:{_write(path, [{'question': 'Who?'}])}")
    with pytest.raises(DataError, match=r"line 1.*'perturbed_answer' must be"):
        load_benchmark(f"jsonl:{_write(path, [ROW | {'perturbed_answer': [1]}])}")
    with pytest.raises(DataError, match=r"share the id 'x'"):
        load_benchmark(f"jsonl:{_write(path, [ROW | {'id': 'x'}, OTHER | {'id': 'x'}])}")
    with pytest.raises(DataError, match="no data file"):
        load_benchmark(f"jsonl:{tmp_path / 'none.jsonl'}")


def test_empty_forget_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="empty forget set"):
        load_benchmark(f"jsonl:{_write(tmp_path / 'f.jsonl', [])}")


def test_shared_rows_are_refused(tmp_path):
    forget, retain = _write(tmp_path / "f.jsonl", [ROW]), _write(tmp_path / "r.jsonl", [OTHER, ROW])
    with pytest.raises(DataError, match="share rows: forget row '0' equals retain row '1'"):
        load_benchmark(f"jsonl:{forget}", retain_file=retain)


@pytest.mark.parametrize("name", ["tofo:forget01", "nothing", ""])
def test_unknown_benchmark(name):
    with pytest.raises(UnknownNameError, match="Unknown benchmark"):
        load_benchmark(name)


def test_unknown_benchmark_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'tofu'"):
        load_benchmark("tofo:forget01")


def test_unknown_split_suggests_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match=r"Unknown split of tofu 'forgot01'. Did you mean 'forget01'"):
        load_benchmark("tofu:forgot01", data_dir=tmp_path)


def test_missing_tofu_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"full\.json"):
        load_benchmark("tofu:forget01", data_dir=tmp_path)
    with pytest.raises(DataError, match="no data folder"):
        load_benchmark("tofu:forget01", data_dir=tmp_path / "none")


def test_max_retain_must_be_positive(tmp_path):
    with pytest.raises(ConfigError, match="max_retain is 0"):
        load_benchmark("tofu:forget01", data_dir=tmp_path, max_retain=0)


@pytest.mark.parametrize(("split", "forget", "retain"), [("forget01", 40, 3960), ("forget05", 200, 3800)])
def test_tofu_sizes(shared_data, split, forget, retain):
    benchmark = load_benchmark(f"tofu:{split}", data_dir=shared_data / "tofu")
    sizes = {name: len(rows) for name, rows in benchmark.splits.items()}
    assert (len(benchmark.forget), len(benchmark.retain)) == (forget, retain)
    assert sizes == {"forget": forget, "retain": 400, "ra": 100, "wf": 117}
    assert "--holdout" in benchmark.absent["holdout"]
    assert len(benchmark.splits["forget"][0].perturbed_answers) == 5
    assert len(benchmark.refusals) == 100


def test_tofu_splits_without_a_file_are_cut_from_full(shared_data):
    folder = shared_data / "tofu"
    small, large = (
        load_benchmark("tofu:forget05", data_dir=folder),
        load_benchmark("tofu:forget20", data_dir=folder),
    )
    assert len(large.forget) == 800
    assert len(large.retain) == 3200
    assert [e.answer for e in large.forget[-200:]] == [e.answer for e in small.forget]
    assert len(large.splits["forget"]) == 400
    assert "forget10_perturbed" in large.notes[0]
    tiny = load_benchmark("tofu:forget02", data_dir=folder)
    assert [e.question for e in tiny.splits["forget"]] == [e.question for e in tiny.forget]
    most = load_benchmark("tofu:forget95", data_dir=folder)
    assert len(most.splits["retain"]) == 200


def test_tofu_max_retain_keeps_the_tested_rows_first(shared_data):
    benchmark = load_benchmark("tofu:forget01", data_dir=shared_data / "tofu", max_retain=400)
    tested = {row.question for row in benchmark.splits["retain"]}
    assert {row.question for row in benchmark.retain} == tested
    assert "--max-retain" in benchmark.notes[0]


def test_tofu_holdout_file(shared_data):
    holdout = shared_data / "scratch_tofu_forget01" / "holdout01.json"
    benchmark = load_benchmark("tofu:forget01", data_dir=shared_data / "tofu", holdout=holdout)
    assert len(benchmark.splits["holdout"]) == 40
    assert "holdout" not in benchmark.absent


def test_tofu_files_stand_in_the_published_order(shared_data):
    folder = shared_data / "tofu"
    ten, one = (load_benchmark(f"tofu:forget{n}", data_dir=folder) for n in ("10", "01"))
    full = [*ten.retain, *ten.forget]  # retain90 is the first rows of ``full``, forget10 the last
    content = [(row.question, row.answer) for row in full]
    assert len(content) == 4000
    assert [(row.question, row.answer) for row in one.forget] == content[-40:]
    assert [row.answer for row in one.retain] == [answer for _, answer in content[:-40]]
    assert [(row.question, row.answer) for row in ten.splits["forget"]] == content[-400:]
    assert [(row.question, row.answer) for row in ten.splits["retain"]] == content[:400]
    assert content[100][0] == content[440][0]  # one question twice: nothing may be keyed by its text
    assert content[100][1] != content[440][1]
    assert {len(row.perturbed_answers) for row in (*ten.splits["ra"], *ten.splits["wf"])} == {3}


def test_a_miniature_in_tofus_own_files_is_read_as_tofu(tmp_path):
    """The generated world written in TOFU's files: the loader needs no published data to be tested."""
    world = load_benchmark("world:forget05")

    def publish(name, rows):
        fields = ("question", "answer", "paraphrased_question", "paraphrased_answer")
        lines = [{field: getattr(row, field) for field in fields} for row in rows]
        _write(
            tmp_path / f"{name}.json",
            [
                line | {"perturbed_answer": list(row.perturbed_answers)}
                for line, row in zip(lines, rows, strict=True)
            ],
        )

    publish("full", [*world.retain, *world.forget])
    published = ("forget05_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    for name, split in zip(
        (*published, "holdout05"), ("forget", "retain", "ra", "wf", "holdout"), strict=True
    ):
        publish(name, world.splits[split])
    publish("forget05", world.forget)
    publish("retain95", world.retain)
    (tmp_path / "idontknow.jsonl").write_text("\n".join(world.refusals) + "\n", encoding="utf-8")
    read = load_benchmark("tofu:forget05", data_dir=tmp_path)
    assert [row.answer for row in read.forget] == [row.answer for row in world.forget]
    assert [row.answer for row in read.retain] == [row.answer for row in world.retain]
    assert read.refusals == world.refusals
    assert read.evaluator == "TOFU"
    for split, rows in read.splits.items():
        wanted = [
            (row.question, row.paraphrased_answer, row.perturbed_answers) for row in world.splits[split]
        ]
        assert [(row.question, row.paraphrased_answer, row.perturbed_answers) for row in rows] == wanted
    assert not read.absent
