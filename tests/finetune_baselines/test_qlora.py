"""QLoRA: a 4-bit copy of the weights beneath an adapter, where bitsandbytes is installed."""

import importlib.util

import pytest
import torch

from eval.errors import ConfigError
from eval.models import LanguageModel
from finetune_baselines.method import FineTuning, train
from finetune_baselines.parametrization import QLora
from finetune_baselines.recipes import LoraSettings

QUICK = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup_epochs": 0, "targets": "all-linear"}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture
def wide_lm(tiny_tokenizer):
    """Rows of whole quantization blocks of 64 values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(LlamaForCausalLM(config).eval(), tiny_tokenizer, name="wide")


def _logits(lm, examples):
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(examples[:4], [row.answer for row in examples[:4]])))


def test_without_bitsandbytes_it_says_what_to_do(wide_lm, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(ConfigError, match=r"needs bitsandbytes.*pip install .*quantization.*lora"):
        QLora().prepare(wide_lm, seed=0)


@needs_bitsandbytes
def test_the_base_is_a_four_bit_copy_and_the_start_is_near_the_model(wide_lm, examples):
    tuned = QLora(settings=LoraSettings(rank=4)).prepare(wide_lm, seed=0)
    weights = [m.get_base_layer().weight for m in tuned.model.modules() if hasattr(m, "lora_A")]
    assert len(weights) == 14
    assert all(weight.dtype == torch.uint8 for weight in weights)
    assert all(p.dtype == torch.float32 for p in wide_lm.model.parameters())
    near = _logits(wide_lm, examples)
    assert 0 < float((_logits(tuned, examples) - near).abs().max()) < 0.2 * float(near.abs().max())


@needs_bitsandbytes
def test_it_trains_the_adapter_alone_and_comes_back_from_disk(wide_lm, examples, tmp_path):
    tuned = train(
        wide_lm,
        "npo-rt",
        forget=examples[:4],
        retain=examples[4:],
        parametrization="qlora",
        overrides=QUICK,
        output_dir=tmp_path,
    )
    assert all("lora_" in name for name, p in tuned.model.named_parameters() if p.requires_grad)
    with tuned.edit_disabled():
        off = _logits(tuned, examples)
    assert not torch.equal(off, _logits(tuned, examples))
    loaded = FineTuning("npo-rt", {**QUICK, "parametrization": "qlora"}).load(wide_lm, tmp_path)
    assert torch.equal(_logits(loaded, examples), _logits(tuned, examples))


@needs_bitsandbytes
def test_the_reference_is_the_quantized_start(wide_lm, examples, tmp_path):
    """At the first step policy and reference are equal, so NPO is (2 / beta) ln 2 exactly."""
    import json

    overrides = {**QUICK, "beta": 0.1, "forget_weight": 1.0}
    train(
        wide_lm, "npo", forget=examples[:4], parametrization="qlora", overrides=overrides, output_dir=tmp_path
    )
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["terms"]["forget_npo"] == pytest.approx(13.8629, abs=1e-3)
