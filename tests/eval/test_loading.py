"""One loader: saved folders, devices, precisions, and a clear sentence when something is not there."""

import pytest
import torch

from eval.errors import ArtifactError, ConfigError
from eval.models import load
from eval.models.loading import resolve_device, resolve_dtype


@pytest.fixture
def saved(tiny_lm, tmp_path):
    tiny_lm.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_folder_comes_back_with_the_same_scores(saved, tiny_lm, examples):
    lm = load(saved, device="cpu")
    assert lm.identity == tiny_lm.identity
    answers = [e.answer for e in examples]
    before, after = tiny_lm.score(examples, answers), lm.score(examples, answers)
    assert [s.avg_loss for s in before] == [s.avg_loss for s in after]


def test_dtype_is_honoured(saved):
    assert load(saved, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16


def test_adapter_is_loaded_and_switched_off(saved, tiny_lm, examples, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load(saved, device="cpu").model, LoraConfig(target_modules=["q_proj"], r=2))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    lm = load(saved, adapter=tmp_path / "adapter", device="cpu")
    assert lm.kind == "weights"
    answers = [e.answer for e in examples]
    edited = lm.score(examples, answers)
    with lm.edit_disabled():
        plain = lm.score(examples, answers)
    assert [s.avg_loss for s in plain] == [s.avg_loss for s in tiny_lm.score(examples, answers)]
    assert edited[0].avg_loss != plain[0].avg_loss


def test_missing_things_are_named(saved, tmp_path):
    with pytest.raises(ArtifactError, match="There is no model folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"holds no config\.json"):
        load(tmp_path / "empty")
    with pytest.raises(ArtifactError, match="not a PEFT adapter"):
        load(saved, adapter=tmp_path / "empty")


def test_a_half_written_model_is_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ArtifactError, match="could not be loaded"):
        load(saved, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_absent_cuda_is_refused():
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        resolve_device("cuda")


def test_unknown_device_and_dtype_are_refused():
    with pytest.raises(ConfigError, match="Unknown device"):
        resolve_device("gpu7x")
    with pytest.raises(ConfigError, match="Unknown dtype"):
        resolve_dtype("float12", torch.device("cpu"))


def test_unknown_quantization_is_refused(saved):
    with pytest.raises(ConfigError, match="Unknown quantization 'int3'"):
        load(saved, quantization="int3")  # type: ignore[arg-type]
