"""Tables from the hub: ``datasets.load_dataset`` reads a folder of the dataset's name as it reads the hub's repository.

The folders are written as the hub has them: Parquet files, and a card that maps configurations and splits to files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from eval.data import load_benchmark, muse, rwku, wmdp
from eval.errors import DataError

datasets = pytest.importorskip("datasets")

Tables = Mapping[tuple[str, str], Iterable[Mapping[str, Any]]]


@pytest.fixture(autouse=True)
def _own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def publish(name: str, tables: Tables) -> None:
    """Write a dataset repository: Parquet files and the card that names them."""
    folder, configs = Path(name), dict[str, list[str]]()
    for (config, split), rows in tables.items():
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(path)
        entry = f"  - split: {split}\n    path: {config}/{path.name}\n"
        configs.setdefault(config, []).append(entry)
    lines = [f"- config_name: {config}\n  data_files:\n{''.join(files)}" for config, files in configs.items()]
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(lines)}---\n", encoding="utf-8")


def without(tables: Tables, *names: str) -> Tables:
    return {key: rows for key, rows in tables.items() if key[0] not in names}


@pytest.mark.parametrize("corpus", ["news", "books"])
def test_muse_from_the_hub(corpus: str) -> None:
    publish(f"muse-bench/MUSE-{corpus.title()}", muse.miniature(0))
    read, made = load_benchmark(f"muse:{corpus}"), load_benchmark("muse:mini")
    assert (read.splits, read.forget, read.retain) == (made.splits, made.forget, made.retain)


def test_rwku_from_the_hub() -> None:
    publish(rwku.HUB, rwku.miniature(0))
    read, made = load_benchmark("rwku:all"), load_benchmark("rwku:mini")
    assert (read.splits, read.forget) == (made.splits, made.forget)


def test_wmdp_and_mmlu_from_the_hub() -> None:
    tables = wmdp.miniature(0)
    publish(wmdp.HUB, {("wmdp-cyber", "test"): tables["wmdp-mini", "test"]})
    corpora = {
        (f"cyber-{part}-corpus", "train"): tables[f"mini-{part}-corpus", "train"]
        for part in ("forget", "retain")
    }
    publish(wmdp.CORPORA, corpora)
    general = tables["mmlu", "test"]
    publish("cais/mmlu", {("all", "test"): general, ("all", "dev"): general})
    read, made = load_benchmark("wmdp:cyber"), load_benchmark("wmdp:mini")
    assert [row.text for row in read.forget] == [row.text for row in made.forget]
    assert [row.text for row in read.retain] == [row.text for row in made.retain]
    assert read.splits["mmlu"] == made.splits["mmlu"]
    assert len(read.splits["wmdp_cyber"]) == len(made.splits["wmdp_mini"])
    shown = load_benchmark("mmlu:2").splits["mmlu"][0].messages[0].content
    assert shown.count("Answer:") == 3


def test_a_split_the_hub_lacks_is_named() -> None:
    publish("muse-bench/MUSE-News", without(muse.miniature(0), "knowmem"))
    with pytest.raises(
        DataError, match=r"muse-bench/MUSE-News has no split 'knowmem/.*huggingface.co/datasets"
    ):
        load_benchmark("muse:news")


@pytest.mark.parametrize("name", ["muse:news", "wmdp:cyber", "mmlu:0", "rwku:all"])
def test_without_network_one_sentence_says_what_to_do(name: str) -> None:
    with pytest.raises(
        DataError, match=r"could not be fetched from the hub.*connection.*--data-dir"
    ) as error:
        load_benchmark(name)
    assert "\n" not in str(error.value)


def test_a_dataset_of_which_only_a_part_is_cached_is_not_taken_for_one_without_that_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(path: str, name: str, split: str) -> None:
        raise ValueError(
            f"Couldn't find cache for {path} for config '{name}'\nAvailable configs in the cache: ['raw']"
        )

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="could not be fetched from the hub"):
        load_benchmark("muse:news")


def test_tofu_comes_file_by_file(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    fetched: list[str] = []

    def fetch(repo: str, name: str, repo_type: str) -> str:
        assert (repo, repo_type) == ("locuslab/TOFU", "dataset")
        fetched.append(name)
        if not (shared_data / "tofu" / name).is_file():
            raise EntryNotFoundError(f"{name} is not there")
        return shutil.copy(shared_data / "tofu" / name, name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    hub, local = (
        load_benchmark("tofu:forget05"),
        load_benchmark("tofu:forget05", data_dir=shared_data / "tofu"),
    )
    assert (hub.forget, hub.splits) == (local.forget, local.splits)
    assert "forget05_perturbed.json" in fetched

    def unreachable(repo: str, name: str, repo_type: str) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(DataError, match=r"forget05\.json could not be fetched.*--data-dir"):
        load_benchmark("tofu:forget05")
