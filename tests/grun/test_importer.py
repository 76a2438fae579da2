"""Checkpoints of pyreft and the published GRUN: built here by hand in their format, computed by their formula."""

import pytest
import torch
from torch import nn

from eval.errors import ArtifactError
from grun.importer import import_checkpoint
from grun.loading import attach

NAMES = {
    "old": "intkey_layer.{}.comp.block_output.unit.pos.nunit.1#0.bin",
    "new": "intkey_layer_{}_comp_block_output_unit_pos_nunit_1#0.bin",
    "path": "intkey_comp_model_layers[{}]_output_unit_pos_nunit_1#0.bin",
}


def _state(gate: str | None, seed: int, width: int = 32, rank: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    state = {"weight": random(rank, width).bfloat16(), "bias": random(rank).bfloat16()}
    match gate:
        case "linear":
            state |= {"gate_func.weight": random(1, width) / 4, "gate_func.bias": random(1)}
        case "mlp":
            for i, (width_in, width_out) in ((0, (width, 256)), (2, (256, 64)), (4, (64, 1))):
                state |= {
                    f"gate_func.{i}.weight": random(width_out, width_in) / width_in**0.5,
                    f"gate_func.{i}.bias": random(width_out),
                }
    return state | {"rotate_layer": -torch.linalg.qr(random(width, rank)).Q}


def _published(state, gate, hidden):
    """h + sigmoid(g(h)) (W h + b - h R) R' with the checkpoint's own tensors."""
    state = {name: value.float() for name, value in state.items()}
    if gate == "linear":
        logit = hidden @ state["gate_func.weight"].T + state["gate_func.bias"]
    elif gate == "mlp":
        logit = hidden
        for i in (0, 2, 4):
            logit = nn.functional.linear(
                logit.relu() if i else logit, state[f"gate_func.{i}.weight"], state[f"gate_func.{i}.bias"]
            )
    else:
        logit = torch.tensor(torch.inf)
    rotate = state["rotate_layer"]
    added = (hidden @ state["weight"].T + state["bias"] - hidden @ rotate) @ rotate.T
    return hidden + torch.sigmoid(logit) * added


@pytest.mark.parametrize("gate", [None, "linear", "mlp"])
@pytest.mark.parametrize("naming", NAMES)
def test_an_imported_edit_computes_what_it_was_trained_to(naming, gate, make_lm, tmp_path):
    states = {layer: _state(gate, layer) for layer in (1, 3)}
    for layer, state in states.items():
        torch.save(state, tmp_path / NAMES[naming].format(layer))
    lm = make_lm()
    edited = import_checkpoint(lm, tmp_path)
    assert edited.config.layers == (1, 3)
    assert (edited.config.rank, edited.config.gate) == (3, gate or "linear")
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(9)) * 3
    for layer, state in states.items():
        found = edited.interventions[layer](hidden).output
        torch.testing.assert_close(found, _published(state, gate, hidden), rtol=1e-4, atol=1e-4)
        assert (found - hidden).abs().max() > 0.1
    edited.save(tmp_path / "ours")
    again = attach(make_lm(), tmp_path / "ours")
    assert again.config.gate_input == "raw"
    for layer, edit in again.interventions.items():
        assert torch.equal(edit(hidden).output, edited.interventions[layer](hidden).output)


def test_a_checkpoint_of_the_trainer_is_found(make_lm, tmp_path):
    folder = tmp_path / "checkpoint-50" / "intervenable_model"
    folder.mkdir(parents=True)
    torch.save(_state(None, 0), folder / NAMES["old"].format(2))
    assert import_checkpoint(make_lm(), folder.parent, positions="all").config.positions == "all"


def _evil():
    class Evil:
        def __reduce__(self):
            return (print, ("this must never run",))

    return {"weight": Evil()}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no intkey"),
        ({"old": [40]}, "blocks 0 to 3"),
        ({"old": [1], "new": [1]}, "two edits of block 1"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(files, says, make_lm, tmp_path):
    for naming, layers in files.items():
        for layer in layers:
            torch.save(_state("linear", layer), tmp_path / NAMES[naming].format(layer))
    with pytest.raises(ArtifactError, match=says):
        import_checkpoint(make_lm(), tmp_path)


def test_damaged_and_foreign_files_are_refused(make_lm, tmp_path, capsys):
    lm = make_lm()
    file = tmp_path / NAMES["old"].format(1)
    whole = _state("linear", 1)
    for state, says in (
        (_state("linear", 1, width=64), "hidden size 64"),
        ({**whole, "rotate_layer": whole["rotate_layer"] * 2}, "not orthonormal"),
        ({name: value for name, value in whole.items() if name != "bias"}, "lacks rotate_layer"),
        ({**whole, "gate_func.6.weight": torch.ones(1)}, "gate of"),
        (_evil(), "plain tensors"),
    ):
        torch.save(state, file)
        with pytest.raises(ArtifactError, match=says):
            import_checkpoint(lm, tmp_path)
    torch.save(whole, file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="half-written"):
        import_checkpoint(lm, tmp_path)
    file.rename(tmp_path / "intkey_embeddings.bin")
    with pytest.raises(ArtifactError, match="names no block"):
        import_checkpoint(lm, tmp_path)
    assert "never run" not in capsys.readouterr().out
    for name, gate in ((NAMES["old"].format(1), "linear"), (NAMES["old"].format(2), "mlp")):
        torch.save(_state(gate, 1), tmp_path / name)
    (tmp_path / "intkey_embeddings.bin").unlink()
    with pytest.raises(ArtifactError, match="mixes ranks or kinds"):
        import_checkpoint(lm, tmp_path)
