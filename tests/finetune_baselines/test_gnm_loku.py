"""The recipes gnm and loku: terms and weights, start values, defaults, what they leave behind."""

import json
import math

import pytest
import torch

from eval.errors import ConfigError, DataError
from eval.types import UnlearningData
from finetune_baselines.configuration import configure
from finetune_baselines.method import FineTuning, train
from finetune_baselines.recipes import recipe

QUICK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0, "targets": "mlp"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _gnm(lm, examples, folder, negatives=None, **changes):
    forget = examples[:4]
    return train(
        lm,
        "gnm",
        forget=forget,
        retain=examples[4:],
        negatives={row.id: negatives or (row.answer,) for row in forget},
        parametrization="lora",
        overrides={**QUICK, "max_forget_loss": None, **changes},
        output_dir=folder,
    )


ALL = {f"{name}_weight": 1.0 for name in ("ga", "gd", "rm", "gnm", "klr", "klf")}


def test_the_default_is_ascent_negatives_and_closeness_with_the_published_weights():
    active = {use.name: use.weight for use in recipe("gnm").active}
    assert active == {"ga": 0.5, "gnm": 0.04, "klr": 5.0}
    settings = configure("gnm", {}, num_parameters=10**9)
    assert settings.parametrization.name == "adalora"
    assert settings.parametrization.settings.rank == 8
    assert settings.train.learning_rate == 1e-4


def test_all_six_terms_are_finite_and_the_divergences_start_at_zero(tiny_lm, examples, tmp_path):
    _gnm(tiny_lm, examples, tmp_path, **ALL)
    first = _lines(tmp_path)[0]["terms"]
    assert set(first) == {"ga", "gd", "rm", "gnm", "klr", "klf"}
    assert all(math.isfinite(value) for value in first.values())
    assert first["klr"] == pytest.approx(0, abs=1e-6)
    assert first["klf"] == pytest.approx(0, abs=1e-6)
    assert first["ga"] < 0 < first["gd"]


def test_with_the_gold_answer_as_the_only_level_the_term_is_its_cross_entropy(tiny_lm, examples, tmp_path):
    _gnm(tiny_lm, examples, tmp_path, gnm_weight=1.0, ga_weight=1.0)
    first = _lines(tmp_path)[0]["terms"]
    assert first["gnm"] == pytest.approx(-first["ga"], rel=1e-5)


def test_every_term_can_be_switched_off(tiny_lm, examples, tmp_path):
    _gnm(tiny_lm, examples, tmp_path, ga_weight=0.0, klr_weight=0.0, gnm_weight=1.0)
    assert set(_lines(tmp_path)[0]["terms"]) == {"gnm"}


def test_the_alternating_mode_takes_a_step_for_each_side(tiny_lm, examples, tmp_path):
    off = {"rm_weight": 0.0, "gnm_weight": 0.0}
    _gnm(tiny_lm, examples, tmp_path / "both", **{**ALL, **off})
    _gnm(tiny_lm, examples, tmp_path / "turns", alternate=True, **{**ALL, **off})
    both, turns = _lines(tmp_path / "both"), _lines(tmp_path / "turns")
    assert len(turns) == 2 * len(both)
    # the first half-step sees the start model, as the first whole step does
    for name in ("ga", "klf"):
        assert turns[0]["terms"][name] == pytest.approx(both[0]["terms"][name], abs=1e-6)
    assert turns[0]["terms"]["gd"] == turns[0]["terms"]["klr"] == 0
    assert turns[1]["terms"]["ga"] == turns[1]["terms"]["klf"] == 0
    assert turns[1]["terms"]["gd"] > 0


def test_rows_without_negatives_keep_their_other_terms(tiny_lm, examples, tmp_path):
    forget = examples[:4]
    train(
        tiny_lm,
        "gnm",
        forget=forget,
        retain=examples[4:],
        negatives={forget[0].id: ("Nobody was born there.",)},
        parametrization="lora",
        overrides={**QUICK, "batch_size": 1, "gnm_weight": 1.0, "max_forget_loss": None},
        output_dir=tmp_path,
    )
    values = [line["terms"]["gnm"] for line in _lines(tmp_path)]
    assert sum(value > 0 for value in values) == 1


def test_a_file_of_negatives_is_used(tiny_lm, examples, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"id": r.id, "negatives": ["No."]}) + "\n" for r in examples[:4]))
    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    method = FineTuning("gnm", {**QUICK, "negatives_file": str(path), "max_forget_loss": 50.0})
    method.unlearn(tiny_lm, data, tmp_path / "run")
    sections = json.loads((tmp_path / "run" / "sections.json").read_text())
    assert [section["id"] for section in sections] == ["gnm-negatives", "gnm-ranks"]
    assert sections[0]["data"]["rows"][0]["kept"] == 4


def test_without_negatives_it_says_how_to_make_them(tiny_lm, examples, tmp_path):
    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    with pytest.raises(DataError, match="unlearn negatives --kind negatives"):
        FineTuning("gnm", QUICK).unlearn(tiny_lm, data, tmp_path)
    with pytest.raises(DataError, match="unlearn negatives --kind alternates"):
        FineTuning("altpo", {}).unlearn(tiny_lm, data, tmp_path)


def test_wrong_settings_of_the_negatives_are_refused():
    with pytest.raises(ConfigError, match="similarity"):
        FineTuning("gnm", {"similarity": "bleu"})
    with pytest.raises(ConfigError, match="subsample"):
        FineTuning("gnm", {"subsample": 0.0})


def test_loku_is_the_inverted_hinge_from_a_fisher_weighted_start(tiny_lm, examples, tmp_path):
    settings = configure("loku", {}, num_parameters=10**9)
    assert settings.parametrization.name == "fila"
    assert settings.parametrization.settings.alpha == 2 * settings.parametrization.settings.rank
    tuned = train(
        tiny_lm,
        "loku",
        forget=examples[:4],
        retain=examples[4:],
        parametrization="fila",
        overrides={**QUICK, "epochs": 3, "rank": 4, "alpha": 8.0},
        output_dir=tmp_path,
    )
    first = _lines(tmp_path)[0]["terms"]
    assert set(first) == {"forget_ihl", "retain_ce"}
    assert 0 <= first["forget_ihl"] <= 2
    loaded = FineTuning("loku", {"rank": 4, "targets": "mlp"}).load(tiny_lm, tmp_path)
    rows, answers = examples[:4], [row.answer for row in examples[:4]]
    for mine, theirs in zip(loaded.score(rows, answers), tuned.score(rows, answers), strict=True):
        assert (mine.logps == theirs.logps).all()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 8


def test_a_loss_with_a_reference_starts_at_it_under_fila(tiny_lm, examples, tmp_path):
    """T9: the reference is residual and initial adapter, so NPO starts at (2 / beta) ln 2, and the KL at 0."""
    for name, term, value in (("npo", "forget_npo", 13.8629), ("kl-min", "retain_kl", 0.0)):
        train(
            tiny_lm,
            name,
            forget=examples[:4],
            retain=examples[4:],
            parametrization="fila",
            overrides={**QUICK, "rank": 4, "alpha": 8.0} | ({"beta": 0.1} if name == "npo" else {}),
            output_dir=tmp_path / name,
        )
        assert _lines(tmp_path / name)[0]["terms"][term] == pytest.approx(value, abs=2e-3)


@pytest.mark.slow
def test_a_resumed_fila_run_ends_at_the_same_adapter(tiny_lm, examples, tmp_path):
    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    method = FineTuning("loku", {**QUICK, "epochs": 4, "rank": 4, "alpha": 8.0, "save_steps": 2})
    whole = method.unlearn(tiny_lm, data, tmp_path / "whole", seed=1)

    class Stop(Exception):
        pass

    def stop(what, done, total):
        if what == "training" and done == 3:
            raise Stop

    with pytest.raises(Stop):
        method.unlearn(tiny_lm, data, tmp_path / "cut", seed=1, progress=stop)
    again = method.unlearn(tiny_lm, data, tmp_path / "cut", seed=1)
    first, second = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
