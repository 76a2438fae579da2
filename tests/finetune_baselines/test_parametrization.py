import pytest
import torch

from eval.errors import ConfigError, UnknownNameError
from finetune_baselines.parametrization import Full, LastBlocks, Lora, parametrization
from finetune_baselines.recipes import LoraSettings


def _storage(model):
    return {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def _trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _logits(lm, examples):
    with torch.no_grad():
        return lm.answer_logits(lm.collate(lm.encode(examples[:4], [row.answer for row in examples[:4]])))


def test_full_trains_a_copy_of_everything(tiny_lm):
    tuned = Full().prepare(tiny_lm, seed=0)
    own, theirs = _storage(tiny_lm.model), _storage(tuned.model)
    assert own.keys() == theirs.keys() == _trained(tuned.model)
    assert not set(own.values()) & set(theirs.values())


def test_last_blocks_copies_only_what_it_trains(tiny_lm):
    tuned = LastBlocks(blocks=1).prepare(tiny_lm, seed=0)
    trained = _trained(tuned.model)
    assert trained == {name for name in _storage(tiny_lm.model) if name.startswith("model.layers.1.")}
    own, theirs = _storage(tiny_lm.model), _storage(tuned.model)
    assert {name for name in own if own[name] != theirs[name]} == trained


def test_lora_shares_every_base_tensor_and_trains_only_the_adapter(tiny_lm):
    tuned = Lora().prepare(tiny_lm, seed=0)
    own = set(_storage(tiny_lm.model).values())
    adapter = _trained(tuned.model)
    assert adapter
    assert all("lora_" in name for name in adapter)
    assert own <= set(_storage(tuned.model).values())
    assert all(parameter.requires_grad for parameter in tiny_lm.model.parameters())
    assert not any("lora" in name for name, _ in tiny_lm.model.named_modules())
    assert not any("lm_head" in name or "embed" in name for name in adapter)


@pytest.mark.parametrize("part", [Full(), LastBlocks(blocks=2), Lora()])
def test_a_prepared_model_starts_at_the_base(tiny_lm, examples, part):
    tuned = part.prepare(tiny_lm, seed=0)
    assert tuned.kind == "weights"
    assert torch.equal(_logits(tuned, examples), _logits(tiny_lm, examples))


def test_switching_a_trained_adapter_off_gives_the_base_back(tiny_lm, examples):
    """T9: valid for plain LoRA, because B starts at zero and the base is never written."""
    tuned = Lora().prepare(tiny_lm, seed=0)
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    assert not torch.allclose(_logits(tuned, examples), _logits(tiny_lm, examples))
    with tuned.edit_disabled():
        assert torch.equal(_logits(tuned, examples), _logits(tiny_lm, examples))


def test_adapter_initialisation_depends_on_the_seed_alone(tiny_lm):
    state = torch.random.get_rng_state()
    first, again, other = (Lora().prepare(tiny_lm, seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    names = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], again[name]) for name in names)
    assert not any(torch.equal(first[name], other[name]) for name in names)


def test_tied_embeddings_stay_tied_in_the_copy(tiny_lm):
    tiny_lm.model.config.tie_word_embeddings = True
    tiny_lm.model.lm_head.weight = tiny_lm.model.model.embed_tokens.weight
    tuned = Full().prepare(tiny_lm, seed=0)
    assert tuned.model.lm_head.weight is tuned.model.model.embed_tokens.weight
    assert tuned.model.lm_head.weight is not tiny_lm.model.lm_head.weight


def test_an_adapter_already_there_is_merged_into_the_copy(tiny_lm, examples):
    first = Lora().prepare(tiny_lm, seed=0)
    with torch.no_grad():
        for name, parameter in first.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    second = Lora().prepare(first, seed=1)
    assert torch.allclose(_logits(second, examples), _logits(first, examples), atol=1e-5)
    with second.edit_disabled():  # the start of the second run, not of the first
        assert torch.allclose(_logits(second, examples), _logits(first, examples), atol=1e-5)


def test_targets_that_match_nothing_name_those_there_are(tiny_lm):
    part = Lora(settings=LoraSettings(targets="q_proj,c_attn"))
    with pytest.raises(ConfigError, match=r"c_attn match no linear layer.*down_proj.*q_proj"):
        part.prepare(tiny_lm, seed=0)


def test_named_targets_are_the_only_ones(tiny_lm):
    tuned = Lora(settings=LoraSettings(targets="q_proj, v_proj")).prepare(tiny_lm, seed=0)
    assert {name.split(".")[-4] for name in _trained(tuned.model)} == {"q_proj", "v_proj"}


def test_mlp_means_the_feed_forward_layers(tiny_lm):
    tuned = Lora(settings=LoraSettings(targets="mlp")).prepare(tiny_lm, seed=0)
    assert {name.split(".")[-4] for name in _trained(tuned.model)} == {"gate_proj", "up_proj", "down_proj"}


def test_too_many_blocks_are_refused(tiny_lm):
    with pytest.raises(ConfigError, match="has 2 blocks"):
        LastBlocks(blocks=3).prepare(tiny_lm, seed=0)


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'lora'"):
        parametrization("lroa")
