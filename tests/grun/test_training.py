"""Training through the shared trainer: the gates learn, the base stays, settings are checked."""

import logging

import pytest
import torch

import grun
from eval.errors import ArtifactError, ConfigError, DataError, UnknownNameError
from eval.types import Example, UnlearningData
from grun.gate_fit import fit_gates
from grun.method import METHODS
from grun.model import new_edit
from grun.recipes import recipe_of
from grun.settings import settings_for

FAST = {"epochs": 6, "learning_rate": 3e-2, "min_steps": 1, "batch_size": 4, "gate_fit_steps": 200}


@pytest.fixture
def forget(examples):
    return examples[:4]


@pytest.fixture
def retain():
    return [
        Example(id=f"r{i}", question=f"What colour is the {thing}?", answer=f"The {thing} is blue.")
        for i, thing in enumerate(["door", "house", "hat", "ship", "tree", "book", "sea", "sky"])
    ]


def _logps(lm, rows):
    return torch.tensor([score.avg_loss for score in lm.score(rows, [row.answer for row in rows])])


@pytest.mark.parametrize("positions", ["last_prompt", "prompt"])
@pytest.mark.parametrize("loss", ["gd", "idk", "npo"])
def test_training_moves_forget_and_spares_retain(loss, positions, make_lm, forget, retain):
    lm = make_lm()
    before_forget, before_retain = _logps(lm, forget), _logps(lm, retain)
    weights = {name: value.clone() for name, value in lm.model.state_dict().items()}
    random_state = torch.get_rng_state()
    edited = grun.train(
        lm,
        forget=forget,
        retain=retain,
        loss=loss,
        overrides={
            **FAST,
            "positions": positions,
            "margin": 9.0,
            "forget_weight": 3.0,
            "epochs": 12,
            "rank": 4,
        },
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, weights[name]) for name, value in lm.model.state_dict().items())
    assert torch.equal(_logps(lm, forget), before_forget)
    gates_forget, gates_retain = (
        edited.gate([row.question for row in rows]).mean() for rows in (forget, retain)
    )
    assert gates_forget > 0.8
    assert gates_retain < 0.2
    moved = (_logps(edited, forget) - before_forget).abs().mean()
    kept = (_logps(edited, retain) - before_retain).clamp(min=0).mean()
    assert moved > 0.05
    assert moved > 3 * kept
    assert edited.training["settings"]["loss"] == loss
    assert edited.training["trainable_parameters"] == edited.trainable_parameters
    assert not any(p.requires_grad for p in edited.edits.parameters())
    assert all(p.requires_grad for p in lm.model.parameters())


def test_pyvene_and_hooks_train_the_same_edit(make_lm, forget, retain):
    results = []
    for through_pyvene in (True, False):
        edited = grun.train(
            make_lm(),
            forget=forget,
            retain=retain,
            loss="npo",
            overrides={**FAST, "through_pyvene": through_pyvene},
        )
        results.append(torch.cat([p.flatten() for p in edited.edits.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_gates_fit_alone(make_lm, forget, retain):
    edited, _ = new_edit(make_lm(), layers=(0, 2))
    losses = fit_gates(edited, forget, retain, steps=200)
    assert len(losses) == 2
    assert max(losses) < 0.1
    assert edited.gate([row.question for row in forget]).min() > 0.7
    assert edited.gate([row.question for row in retain]).max() < 0.3


def test_unanswered_background_only_teaches_the_gate(make_lm, forget, retain):
    background = [Example(id="b", question="Tell me something about the weather.")]
    edited = grun.train(
        make_lm(), forget=forget, retain=retain, background=background, loss="npo", overrides=FAST
    )
    assert edited.gate([background[0].question]).max() < 0.3


def test_a_method_runs_and_loads(make_lm, forget, retain, tmp_path):
    data = UnlearningData(forget=tuple(forget), retain=tuple(retain))
    assert set(METHODS) == {"grun-gd", "grun-idk", "grun-npo", "grun-rmu"}
    method = METHODS["grun-npo"](FAST)
    lm = make_lm()
    seen: list[tuple[str, int, int]] = []
    edited = method.unlearn(lm, data, tmp_path, progress=lambda *args: seen.append(args))
    assert (method.name, method.kind, edited.kind) == ("grun-npo", "edit", "edit")
    assert seen[-1] == ("training", 6, 6)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"grun", "metrics.jsonl"}
    again = method.load(make_lm(), tmp_path)
    assert torch.equal(_logps(again, forget), _logps(edited, forget))
    with pytest.raises(ArtifactError, match="edit of grun-npo, not of grun-gd"):
        METHODS["grun-gd"]({}).load(lm, tmp_path)
    with pytest.raises(ArtifactError, match="GRUN edit"):
        method.load(lm, tmp_path / "nothing")


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match=r"no setting 'rnak'; allowed: preset, layers, rank"):
        METHODS["grun-gd"]({"rnak": 3})
    with pytest.raises(ConfigError, match="rank is 'many'"):
        METHODS["grun-gd"]({"rank": "many"})
    with pytest.raises(ConfigError, match="rank is 0"):
        METHODS["grun-gd"]({"rank": 0})
    with pytest.raises(UnknownNameError, match="Did you mean 'scratch'"):
        METHODS["grun-gd"]({"preset": "scrach"})
    with pytest.raises(UnknownNameError, match="Did you mean 'npo'"):
        recipe_of(settings_for("nop", num_blocks=4), (0, 1))
    with pytest.raises(ConfigError, match="open_retain holds gates open"):
        METHODS["grun-gd"]({"positions": "prompt", "open_retain": 0.5})
    with pytest.raises(ConfigError, match="never learn"):
        METHODS["grun-gd"]({"gate_weight": 0, "gate_fit_steps": 0})
    with pytest.raises(ConfigError, match="block 2 is edited too"):
        recipe_of(settings_for("rmu", {"loss_options": {"rmu_layer": 1}}, num_blocks=4), (0, 2))
    with pytest.raises(ConfigError, match="more than a sum"):
        recipe_of(settings_for("pdu", num_blocks=4), (0, 1))


def test_text_from_a_command_line_is_converted():
    settings = settings_for("gd", {"layers": "0, 0.5,1", "rank": "8", "margin": "2.5"}, num_blocks=4)
    assert settings.layers == (0, 0.5, 1)
    assert [type(layer) for layer in settings.layers] == [int, float, int]
    assert (settings.rank, settings.margin) == (8, 2.5)


def test_presets_follow_the_depth():
    assert settings_for("npo", num_blocks=32).preset == "paper"
    assert settings_for("npo", num_blocks=3).preset == "scratch"
    assert settings_for("npo", num_blocks=1).layers == (0,)
    assert settings_for("npo", {"preset": "paper"}, num_blocks=3).layers[-1] == 1.0


def test_merged_layers_are_told(make_lm, forget, retain, caplog):
    with caplog.at_level(logging.WARNING, logger="grun"):
        edited = grun.train(
            make_lm(), forget=forget, retain=retain, overrides={**FAST, "preset": "paper", "epochs": 1}
        )
    assert edited.config.layers == (2, 3)
    assert "names already" in caplog.text


def test_bad_data_is_refused(make_lm, forget, retain):
    lm = make_lm()
    with pytest.raises(DataError, match="forget set is empty"):
        grun.train(lm, forget=[], retain=retain)
    with pytest.raises(DataError, match="needs retain rows"):
        grun.train(lm, forget=forget, retain=[])
    with pytest.raises(DataError, match="equals retain row"):
        grun.train(lm, forget=forget, retain=[*retain, forget[0].replace(id="same")])
    with pytest.raises(DataError, match="no question with an answer"):
        grun.train(lm, forget=[Example(id="d", text="A document.")], retain=retain)
