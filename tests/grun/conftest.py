"""Tiny random models of several families, with an edit that is loud enough to be seen."""

import pytest
import torch

from eval.models import LanguageModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma", "phi3", "gpt2", "gpt_neox")


def _config(family: str, vocab_size: int):
    import transformers as tf

    common = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    match family:
        case "llama":
            return tf.LlamaConfig(**common, num_key_value_heads=2)
        case "mistral":
            return tf.MistralConfig(**common, num_key_value_heads=2, sliding_window=8)
        case "olmo2":
            return tf.Olmo2Config(**common, num_key_value_heads=2)
        case "gemma":
            return tf.GemmaConfig(**common, num_key_value_heads=2, head_dim=16)
        case "phi3":
            return tf.Phi3Config(**common, num_key_value_heads=2)
        case "qwen2":
            return tf.Qwen2Config(**common, num_key_value_heads=2)
        case "qwen3":
            return tf.Qwen3Config(**common, num_key_value_heads=2, head_dim=16)
        case "gpt_neox":
            return tf.GPTNeoXConfig(**common)
        case "gpt2":
            return tf.GPT2Config(
                vocab_size=vocab_size,
                n_embd=32,
                n_layer=4,
                n_head=2,
                n_positions=256,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
    raise AssertionError(family)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def make_lm(tiny_tokenizer):
    """Return a function: family name -> LanguageModel around a random 4-block model."""

    def make(family: str = "llama") -> LanguageModel:
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(_config(family, len(tiny_tokenizer))).eval()
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.data.mul_(4)  # the default initialisation makes every token look the same
        return LanguageModel(model, tiny_tokenizer, name=family)

    return make


@pytest.fixture
def loud():
    """Return a function that puts an edit on a model which visibly changes what it writes."""
    from grun.gate import PhraseGate
    from grun.model import new_edit

    def make(lm, *, layers=(0, 1, 2, 3), positions="last_prompt", gate="linear", seed=3):
        edited, _ = new_edit(lm, layers=layers, positions=positions, gate=gate, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for edit in edited.edits.values():
            edit.weight.data.copy_(torch.randn(edit.weight.shape, generator=generator) * 20 / 32**0.5)
            edit.bias.data.copy_(torch.randn(edit.bias.shape, generator=generator) * 5)
            if gate == "mlp":
                edit.gate.biases[-1].data.fill_(3.0)
            elif isinstance(edit.gate, PhraseGate):
                edit.gate.out_bias.data.fill_(3.0)
            elif gate == "linear":
                edit.gate.bias.data.fill_(3.0)
                edit.gate.weight.data.copy_(torch.randn(edit.gate.weight.shape, generator=generator) * 0.1)
        return edited

    return make
