"""Training through the shared trainer: the gates learn, the base stays, settings are checked."""

import json
import logging

import pytest
import torch

import grun
from eval.data.augment import PromptSource
from eval.errors import ArtifactError, ConfigError, DataError, UnknownNameError
from eval.types import Example, UnlearningData
from grun.gate_fit import MIN_DRAWN, fit_gates
from grun.method import METHODS
from grun.model import new_edit
from grun.recipes import recipe_of
from grun.settings import settings_for

FAST = {
    "epochs": 6,
    "learning_rate": 3e-2,
    "min_steps": 1,
    "batch_size": 4,
    "gate_fit_steps": 200,
    "gate_rounds": 1,
}


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


def test_phrase_gates_fit_the_same_whatever_else_is_drawn(make_lm, forget, retain):
    """The second edit has another rank, so its generator has drawn other numbers before the gate's."""
    losses, gates = [], []
    for rank, variants in ((2, 4), (4, 4), (2, 150)):  # 600 rows are more than MIN_DRAWN
        edited, _ = new_edit(make_lm(), layers=(0, 2), rank=rank, gate="phrase", positions="answer")
        losses.append(fit_gates(edited, forget, retain, steps=60, variants=variants))
        gates.append(edited.gate([row.question for row in (*forget, *retain)])[:, 0])
    assert losses[0] == losses[1] != losses[2]
    assert (gates[0] == gates[1]).all()
    assert len(losses[0]) == 1
    assert gates[0][:4].min() > 0.7
    assert gates[0][4:].max() < 0.3


def test_a_round_whose_states_do_not_fit_is_split(make_lm, forget, retain, monkeypatch):
    drawn = []
    opening = PromptSource.opening
    monkeypatch.setattr(PromptSource, "opening", lambda *args: drawn.append(args[1:]) or opening(*args))
    edited, _ = new_edit(make_lm(), layers=(0, 2), gate="phrase", positions="answer")
    words = sum(len(row.question.split()) for row in forget) / len(forget)
    needed = 3 * MIN_DRAWN * 2 * words * 4 * edited.config.hidden_size
    monkeypatch.setattr("grun.gate_fit.MAX_STATES_BYTES", needed / 2)
    fit_gates(edited, forget, retain, steps=6, variants=1)
    assert drawn == [(MIN_DRAWN // 2, "fit", i) for i in range(2)]


def test_what_stands_beside_a_subject_changes_no_decision(make_lm, forget, retain):
    """Fitted on questions alone, without drawn prompts, a gate still decides the same behind an innocent question."""
    edited, _ = new_edit(make_lm(), layers=(0, 2), gate="phrase", positions="answer")
    fit_gates(edited, forget, retain, steps=200)
    before = [f"{retain[0].question} {row.question}" for row in (*forget, *retain)]
    values = edited.gate(before)[:, 0]
    assert values[: len(forget)].min() > 0.5
    assert values[len(forget) :].max() < 0.5


@pytest.mark.parametrize("loss", ["rmu", "simnpo", "dpo"])
def test_other_losses_reach_every_tensor(loss, make_lm, forget, retain):
    lm = make_lm()
    before = _logps(lm, forget)
    edited = grun.train(
        lm, forget=forget, retain=retain, loss=loss, overrides={**FAST, "epochs": 2, "layers": "1,2"}
    )
    fresh, _ = new_edit(lm, layers=(1, 2), rank=16, gate="phrase", positions="answer")
    for layer, edit in edited.interventions.items():
        for name in ("basis", "weight", "bias"):
            assert not torch.equal(getattr(edit, name), getattr(fresh.interventions[layer], name)), name
    assert not torch.equal(_logps(edited, forget), before)


def test_a_parameter_that_the_loss_does_not_reach_is_named(make_lm, forget, retain, monkeypatch):
    """An edit behind the block RMU reads would stay random; without our check nobody would see it."""
    monkeypatch.setattr("grun.training.recipe_of", lambda settings, layers: recipe_of(settings, layers[:1]))
    with pytest.raises(ConfigError, match=r"does not reach 2\.basis, 2\.weight, 2\.bias"):
        grun.train(
            make_lm(),
            forget=forget,
            retain=retain,
            loss="rmu",
            overrides={**FAST, "layers": "1,2", "retain_weight": 0.0},
        )


def test_open_retain_keeps_an_open_gate_harmless(make_lm, forget, retain):
    """Forced open on retain rows, an edit trained with open_retain=1 changes their answers less."""
    harm = []
    for share in (0.0, 1.0):
        overrides = {**FAST, "epochs": 10, "open_retain": share, "retain_weight": 1.0}
        edited = grun.train(make_lm(), forget=forget, retain=retain, loss="gd", overrides=overrides)
        batch = edited.collate(edited.encode(retain, [row.answer for row in retain]))
        logits, _ = edited.answer_and_gate_logits(batch, open_rows=torch.ones(len(retain), dtype=torch.bool))
        harm.append(torch.nn.functional.cross_entropy(logits, batch.targets).item())
    assert harm[1] < harm[0] - 0.1


def test_the_paper_preset_is_the_papers():
    gd, idk, npo, rmu = (settings_for(loss, num_blocks=32) for loss in ("gd", "idk", "npo", "rmu"))
    assert {(s.learning_rate, s.rank, s.positions, s.gate_fit_steps) for s in (gd, idk, npo)} == {
        (4e-3, 4, "last_prompt", 0)
    }
    assert (gd.retain_weight, gd.margin, npo.forget_weight, npo.beta) == (2.0, None, 100.0, 0.1)
    assert (gd.gate_weight, rmu.gate_weight, rmu.loss_options["coefficient"]) == (10.0, 100.0, 300.0)


@pytest.mark.parametrize(
    ("gate", "positions"), [("phrase", "answer"), ("mlp", "answer"), ("linear", "last_prompt")]
)
def test_every_round_of_a_gate_fit_draws_anew(gate, positions, make_lm, forget, retain, monkeypatch):
    """Seven steps in three rounds are 2, 2 and 3; without variants nothing is drawn and there is one round."""
    drawn: list[tuple[object, ...]] = []
    opening = PromptSource.opening
    monkeypatch.setattr(PromptSource, "opening", lambda *args: drawn.append(args[1:]) or opening(*args))
    edited, _ = new_edit(make_lm(), layers=(0, 2), gate=gate, positions=positions)
    before = {name: value.clone() for name, value in edited.edits.state_dict().items()}
    nats = fit_gates(edited, forget, retain, steps=7, variants=1, rounds=3)
    assert len(nats) == (1 if gate == "phrase" else 2)
    assert drawn == [(MIN_DRAWN, "fit", i) for i in range(3)]
    changed = {
        name for name, value in edited.edits.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all(".gate." in name for name in changed)
    drawn.clear()
    assert fit_gates(edited, forget, retain, steps=7) != nats
    assert [call[0] for call in drawn] == [0]


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
    method.examine(edited, data, {}, tmp_path)
    table = json.loads((tmp_path / "sections.json").read_text())[0]
    rows = {row["split"]: row for row in table["data"]["rows"]}
    assert rows["forget"]["fires_0"] > rows["retain"]["fires_0"]
    assert set(rows) == {"forget", "forget, unseen wordings", "retain", "others, unseen wordings"}
    tested = [
        forget[0].replace(paraphrased_question="So, who?"),
        forget[1].replace(paraphrased_question=None),
    ]
    method.examine(edited, data, {"forget": tested, "retain": retain[:3], "empty": []}, tmp_path)
    table = json.loads((tmp_path / "sections.json").read_text())[0]
    counts = {row["split"]: row["n"] for row in table["data"]["rows"]}
    assert (counts["forget"], counts["forget, paraphrased"], counts["retain"]) == (2, 1, 3)
    assert "others, unseen wordings" in counts
    assert "empty" not in counts
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
    assert settings_for("gd", {"layers": 3}, num_blocks=4).layers == (3,)


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
        grun.train(lm, forget=[Example(id="d", question="Who?")], retain=retain)
