"""FILA's identities (arXiv:2408.06621, section 3.3), its three exports, and what it refuses."""

import json

import pytest
import torch

from eval.errors import ConfigError, DataError
from eval.models import LanguageModel
from eval.types import UnlearningData
from finetune_baselines.parametrization import Fila, Lora
from finetune_baselines.parametrization.fila import factorize, merged, row_weights
from finetune_baselines.recipes import LoraSettings

SMALL = LoraSettings(rank=4, alpha=8.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(examples):
    return UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))


def _logits(lm, examples):
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(examples[:4], [row.answer for row in examples[:4]])))


def _matrix(seed=0, shape=(12, 7)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_row_weights_by_hand():
    forget = torch.tensor([[4.0, 0.0], [0.0, 9.0]])
    retain = torch.tensor([[1.0, 1.0], [1.0, 4.0]])
    expected = torch.tensor([(4 / (1 + 1e-5)) ** 0.5, (9 / (4 + 1e-5)) ** 0.5])
    torch.testing.assert_close(row_weights(forget, retain), expected)
    floor = 0.01 * 7 / 4
    relative = torch.tensor([(4 / (1 + floor)) ** 0.5, (9 / (4 + floor)) ** 0.5])
    torch.testing.assert_close(row_weights(forget, retain, eps="relative"), relative)


def test_small_information_makes_the_published_epsilon_hide_the_retain_set():
    """Per-weight information is far below 1e-5, so F_rel is about 1e5 F_f whatever is retained."""
    forget = torch.full((2, 3), 1e-8)
    retain = torch.tensor([[1e-7] * 3, [1e-9] * 3])
    paper = row_weights(forget, retain)
    relative = row_weights(forget, retain, eps="relative")
    assert float(paper[1] / paper[0]) == pytest.approx(1, abs=0.01)
    assert float(relative[1] / relative[0]) > 5


def test_a_matrix_that_the_forget_set_does_not_need_is_weighed_evenly():
    assert torch.equal(row_weights(torch.zeros(3, 2), torch.ones(3, 2)), torch.ones(3))


def test_the_product_is_the_weighted_low_rank_approximation():
    """s B A = diag(1/(w+1e-5)) (diag(w) W)_r."""
    weight, rows = _matrix(), torch.linspace(0.5, 2.0, 12)
    down, up = factorize(weight, rows, rank=3, scale=2.0)
    left, values, right = torch.linalg.svd(rows[:, None] * weight, full_matrices=False)
    expected = (left[:, :3] * values[:3] @ right[:3]) / (rows + 1e-5)[:, None]
    torch.testing.assert_close(2.0 * up @ down, expected, rtol=1e-3, atol=1e-4)
    assert down.shape == (3, 7)
    assert up.shape == (12, 3)


def test_no_other_product_of_its_rank_is_nearer_in_the_weighted_norm():
    weight, rows = _matrix(), torch.linspace(0.5, 2.0, 12)
    down, up = factorize(weight, rows, rank=3, scale=2.0)

    def error(product):
        return float((rows[:, None] * (weight - product)).norm())

    best = error(2.0 * up @ down)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        noise = 0.05 * torch.randn(up.shape, generator=generator)
        assert error(2.0 * (up + noise) @ down) > best


def test_constant_weights_give_the_truncated_svd_and_their_size_does_not_matter():
    weight = _matrix()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    expected = left[:, :3] * values[:3] @ right[:3]
    for size in (1.0, 50.0):
        down, up = factorize(weight, torch.full((12,), size), rank=3, scale=2.0)
        torch.testing.assert_close(2.0 * up @ down, expected, rtol=1e-3, atol=1e-3)


def test_full_rank_leaves_nothing_in_the_residual():
    weight, rows = _matrix(), torch.linspace(0.5, 2.0, 12)
    down, up = factorize(weight, rows, rank=7, scale=0.5)
    torch.testing.assert_close(0.5 * up @ down, weight, rtol=1e-3, atol=1e-3)


def test_rows_that_weigh_nothing_stay_in_the_base():
    rows = torch.ones(12)
    rows[3], rows[5] = 0.0, 1e-7
    _, up = factorize(_matrix(), rows, rank=3, scale=2.0)
    assert not up[3].any()
    assert not up[5].any()
    assert float(up.abs().max()) < 10


def _prepared(lm, data, **options):
    return Fila(settings=SMALL, **options).prepare(lm, seed=0, data=data)


def test_residual_and_adapter_give_the_weights_back_at_the_start(tiny_lm, examples, data):
    tuned = _prepared(tiny_lm, data)
    layers = [(n, m) for n, m in tuned.model.base_model.model.named_modules() if hasattr(m, "lora_A")]
    assert len(layers) == 14
    for name, layer in layers:
        original = tiny_lm.model.get_submodule(name).weight
        residual = layer.get_base_layer().weight
        torch.testing.assert_close(
            residual + layer.get_delta_weight("default"), original, rtol=1e-4, atol=1e-6
        )
        assert not torch.allclose(residual, original, atol=1e-3)
        assert residual.data_ptr() != original.data_ptr()
    torch.testing.assert_close(_logits(tuned, examples), _logits(tiny_lm, examples), rtol=1e-4, atol=1e-5)
    trained = {name for name, p in tuned.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_the_adapter_cannot_simply_be_switched_off(tiny_lm, examples, data):
    """T9: what is left then is the residual, so a live reference by adapter-off would be wrong."""
    part = Fila(settings=SMALL)
    assert not part.starts_at_base
    tuned = part.prepare(tiny_lm, seed=0, data=data)
    with tuned.edit_disabled():
        assert not torch.allclose(_logits(tuned, examples), _logits(tiny_lm, examples), atol=1e-3)


def _trained(lm, data):
    part = Fila(settings=SMALL)
    tuned = part.prepare(lm, seed=0, data=data)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return part, tuned


def test_afterwards_it_is_an_ordinary_adapter_of_twice_the_rank(tiny_lm, examples, data):
    part, tuned = _trained(tiny_lm, data)
    before = _logits(tuned, examples)
    count = sum(p.numel() for p in tuned.model.parameters() if p.requires_grad)
    done = part.finish(tiny_lm, tuned)
    torch.testing.assert_close(_logits(done, examples), before, rtol=1e-3, atol=1e-5)
    assert done.model.peft_config["default"].r == 8
    assert done.trainable_parameters == count
    with done.edit_disabled():
        assert torch.equal(_logits(done, examples), _logits(tiny_lm, examples))


@pytest.mark.parametrize("form", ["adapter", "merged", "residual"])
def test_all_three_exports_compute_the_same(tiny_lm, examples, data, tmp_path, form):
    part, tuned = _trained(tiny_lm, data)
    done = part.finish(tiny_lm, tuned)
    expected = _logits(done, examples)
    assert not torch.allclose(expected, _logits(tiny_lm, examples), atol=1e-3)
    folder = tmp_path / "export"
    folder.mkdir()
    Fila(settings=SMALL, fila_export=form).save(done, folder)
    loaded = Fila().load(tiny_lm, folder)
    torch.testing.assert_close(_logits(loaded, examples), expected, rtol=1e-3, atol=1e-5)
    assert not list(folder.rglob("*.bin"))
    if form == "adapter":
        assert torch.equal(_logits(loaded, examples), expected)
    if form == "residual":
        config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == 4
        base = LanguageModel(
            type(tiny_lm.model).from_pretrained(folder / "base"),
            tiny_lm.tokenizer,
            template=tiny_lm.template,
        )
        assert not torch.allclose(_logits(base, examples), _logits(tiny_lm, examples), atol=1e-3)
        assert "NOT the original model" in (folder / "README.md").read_text()


def test_merging_changes_nothing_and_leaves_the_adapter_alone(tiny_lm, examples, data):
    part, tuned = _trained(tiny_lm, data)
    done = part.finish(tiny_lm, tuned)
    expected = _logits(done, examples)
    torch.testing.assert_close(_logits(merged(done), examples), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(_logits(done, examples), expected)


def test_the_start_depends_on_the_seed_alone(tiny_lm, data):
    states = [_prepared(tiny_lm, data).model.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_half_precision_start_is_computed_from_the_stored_factors(tiny_lm, examples, data):
    tiny_lm.model.to(torch.bfloat16)
    tuned = _prepared(tiny_lm, data)
    layer = tuned.model.base_model.model.model.layers[0].mlp.up_proj
    original = tiny_lm.model.model.layers[0].mlp.up_proj.weight.float()
    residual = layer.get_base_layer().weight.float()
    error = (residual + layer.get_delta_weight("default").float() - original).detach()
    # one rounding of the residual: 2^-8 of its largest value bounds it
    assert float(error.abs().max()) <= 2**-8 * float(residual.abs().max())


def test_tied_weights_are_refused(tiny_lm, data):
    blocks = tiny_lm.model.model.layers
    blocks[1].mlp.up_proj.weight = blocks[0].mlp.up_proj.weight
    with pytest.raises(ConfigError, match=r"cannot split .*up_proj.*same matrix"):
        _prepared(tiny_lm, data)


def test_quantized_weights_are_refused(tiny_lm, data):
    layer = tiny_lm.model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match=r"up_proj is quantized.*qlora"):
        _prepared(tiny_lm, data)


def test_a_rank_above_a_matrix_is_refused(tiny_lm, data):
    with pytest.raises(ConfigError, match=r"Rank 33 is above the smaller side of .* \(32\)"):
        Fila(settings=LoraSettings(rank=33)).prepare(tiny_lm, seed=0, data=data)


def test_targets_that_match_nothing_name_those_there_are(tiny_lm, data):
    with pytest.raises(ConfigError, match=r"c_attn match no linear layer.*down_proj"):
        Fila(settings=LoraSettings(targets="c_attn")).prepare(tiny_lm, seed=0, data=data)


def test_retain_rows_are_needed(tiny_lm, data):
    with pytest.raises(DataError, match="needs both"):
        Fila().prepare(tiny_lm, seed=0, data=UnlearningData(forget=data.forget, retain=()))


@pytest.mark.parametrize("wrong", [{"fila_eps": "big"}, {"fila_export": "zip"}, {"fisher_batch_size": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Fila(**wrong)


def test_plain_lora_has_no_such_settings():
    assert "fila_eps" in Fila.options()
    assert Lora.options() == {}
