"""Fisher information: against a naive reference, interrupted, cached, refused."""

import pytest
import torch

from eval.errors import DataError
from finetune_baselines.fisher import SUMS, fisher_information
from finetune_baselines.parametrization.base import matched_targets

LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")


def _encoded(lm, examples):
    return lm.encode(examples, [row.answer for row in examples])


def _naive(lm, rows, layer, batch_size):
    """Sum over batches of n_b times the squared gradient of the mean cross-entropy, over all n_b."""
    weight = lm.model.get_submodule(layer).weight
    total, tokens = torch.zeros_like(weight), 0
    for start in range(0, len(rows), batch_size):
        batch = lm.collate(rows[start : start + batch_size])
        logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        losses = [
            -torch.log_softmax(logits[i, t - 1], -1)[batch.labels[i, t]]
            for i, t in (batch.labels != -100).nonzero().tolist()
        ]
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), weight)
        total += len(losses) * gradient**2
        tokens += len(losses)
    return total / tokens


def test_it_is_the_token_weighted_mean_of_squared_batch_gradients(tiny_lm, examples, tmp_path):
    rows = _encoded(tiny_lm, examples[:5])
    found = fisher_information(tiny_lm, rows, LAYERS, batch_size=2, cache_dir=tmp_path)
    for layer in LAYERS:
        torch.testing.assert_close(found[layer], _naive(tiny_lm, rows, layer, 2), rtol=1e-4, atol=1e-12)
        assert (found[layer] >= 0).all()
        assert found[layer].dtype == torch.float32
    assert all(parameter.grad is None for parameter in tiny_lm.model.parameters())
    assert all(parameter.requires_grad for parameter in tiny_lm.model.parameters())


def test_the_batch_size_is_part_of_the_definition(tiny_lm, examples, tmp_path):
    rows = _encoded(tiny_lm, examples[:4])
    one, two = (
        fisher_information(tiny_lm, rows, LAYERS, batch_size=b, cache_dir=tmp_path)[LAYERS[0]] for b in (1, 2)
    )
    assert not torch.allclose(one, two)


class _Stop(Exception):
    pass


def test_an_interrupted_pass_goes_on_where_it_was(tiny_lm, examples, tmp_path):
    rows = _encoded(tiny_lm, examples[:6])
    whole = fisher_information(tiny_lm, rows, LAYERS, cache_dir=tmp_path / "whole")

    def stop_after_four(what, done, total):
        if done > 4:
            raise _Stop

    options = {"cache_dir": tmp_path / "cut", "save_seconds": 0.0}
    with pytest.raises(_Stop):
        fisher_information(tiny_lm, rows, LAYERS, progress=stop_after_four, **options)
    seen = []
    again = fisher_information(
        tiny_lm, rows, LAYERS, progress=lambda what, done, total: seen.append(done), **options
    )
    assert seen == [6]  # rows 1 to 4 were saved, 5 and 6 were not
    assert all(torch.equal(again[layer], whole[layer]) for layer in LAYERS)


def test_it_is_computed_once_for_a_model_and_its_data(tiny_lm, examples, tmp_path):
    rows = _encoded(tiny_lm, examples[:4])
    first = fisher_information(tiny_lm, rows, LAYERS, cache_dir=tmp_path)
    seen = []
    again = fisher_information(tiny_lm, rows, LAYERS, cache_dir=tmp_path, progress=lambda *a: seen.append(a))
    assert seen == []
    assert again.folder == first.folder
    assert (first.folder / SUMS).is_file()
    others = _encoded(tiny_lm, examples[1:5])
    other = fisher_information(tiny_lm, others, LAYERS, cache_dir=tmp_path)
    assert other.folder != first.folder
    with torch.no_grad():
        tiny_lm.model.model.layers[0].self_attn.q_proj.weight.add_(0.01)
    tiny_lm._identity = None
    assert fisher_information(tiny_lm, rows, LAYERS, cache_dir=tmp_path).folder != first.folder


def test_dropout_is_off_while_it_measures(tiny_lm, examples, tmp_path):
    for layer in tiny_lm.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    rows = _encoded(tiny_lm, examples[:2])
    tiny_lm.model.train()
    found = fisher_information(tiny_lm, rows, LAYERS, cache_dir=tmp_path)
    assert tiny_lm.model.training
    tiny_lm.model.eval()
    torch.testing.assert_close(found[LAYERS[0]], _naive(tiny_lm, rows, LAYERS[0], 2), rtol=1e-4, atol=1e-12)


def test_no_rows_are_refused(tiny_lm, tmp_path):
    with pytest.raises(DataError, match="at least one row"):
        fisher_information(tiny_lm, [], matched_targets(tiny_lm.model, "mlp"), cache_dir=tmp_path)
