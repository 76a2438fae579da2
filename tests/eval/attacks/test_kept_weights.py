"""Relearned weights are trained once for all they depend on, and an attack that was killed goes on where it was."""

import pytest
import torch
from safetensors import safe_open

from eval.attacks import relearning
from eval.attacks.base import Attack, AttackData, run_attack
from eval.attacks.catalogue import attacks
from eval.attacks.relearning import relearned
from eval.models import GenerationOptions, LanguageModel, batching
from eval.partial import Partial

SHORT = GenerationOptions(max_new_tokens=3)


@pytest.fixture
def trained(monkeypatch):
    """How many rows each training was given."""
    counts: list[int] = []
    finetune = relearning.finetune

    def counting(lm, rows, settings, **options):
        counts.append(len(rows))
        return finetune(lm, rows, settings, **options)

    monkeypatch.setattr(relearning, "finetune", counting)
    return counts


def _weights(lm):
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()]).clone()


class _Edited(LanguageModel):
    """Something put on weights."""

    def with_base(self, base):
        return _Edited(base.model, base.tokenizer, kind="edit")


def test_the_same_weights_are_trained_once_whatever_is_put_on_them(tiny_lm, examples, tmp_path, trained):
    first = relearned(tiny_lm, examples, 0, None, keep=tmp_path / "w")
    again = relearned(tiny_lm, examples, 0, None, keep=tmp_path / "w")
    edited = _Edited(tiny_lm.model, tiny_lm.tokenizer, kind="edit")
    beneath = relearned(edited, examples, 0, None, keep=tmp_path / "w")
    assert trained == [12]
    assert torch.equal(_weights(again), _weights(first))
    assert again.state_digest == first.state_digest != tiny_lm.state_digest
    assert isinstance(beneath, _Edited)
    assert torch.equal(_weights(beneath), _weights(first))


def test_what_training_depends_on_trains_anew(tiny_lm, examples, tmp_path, trained):
    relearned(tiny_lm, examples, 0, None, keep=tmp_path / "w")
    relearned(tiny_lm, examples[:6], 0, None, keep=tmp_path / "w")
    assert trained == [12, 6]
    relearned(tiny_lm, examples[:6], 1, None, keep=tmp_path / "w")
    relearned(tiny_lm, [*examples[:5], examples[5].replace(answer="In Ulm.")], 1, None, keep=tmp_path / "w")
    assert trained == [12, 6, 6, 6]
    other = tiny_lm.copied()
    with torch.no_grad():
        other.model.lm_head.weight.mul_(1.5)
    relearned(other, [*examples[:5], examples[5].replace(answer="In Ulm.")], 1, None, keep=tmp_path / "w")
    assert len(trained) == 5
    relearned(tiny_lm, examples[:6], 0, None)
    assert len(trained) == 6
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["weights.safetensors"]


def test_a_damaged_file_is_trained_anew(tiny_lm, examples, tmp_path, trained):
    first = relearned(tiny_lm, examples, 0, None, keep=tmp_path / "w")
    file = tmp_path / "w" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    again = relearned(tiny_lm, examples, 0, None, keep=tmp_path / "w")
    assert trained == [12, 12]
    assert torch.equal(_weights(again), _weights(first))
    with safe_open(file, framework="pt") as stored:
        assert len(stored.keys()) == len(list(tiny_lm.model.named_parameters()))


def test_an_attack_keeps_each_training_under_its_name(tiny_lm, examples, tmp_path, trained):
    data = AttackData(questions=tuple(examples), retain=tuple(examples[:3]), keep=tmp_path)
    for name in ("relearn-forget", "relearn-half", "relearn-benign", "relearn-half"):
        run_attack(tiny_lm, attacks()[name], data, options=SHORT)
    assert trained == [12, 6, 3]
    assert {path.name for path in tmp_path.iterdir()} == {
        "relearned-all",
        "relearned-half",
        "relearned-benign",
    }


class PowerCutError(Exception):
    """What stands for a kill within one process."""


@pytest.mark.parametrize("name", ["plain", "relearn-forget", "sample-8"])
def test_no_answer_of_a_killed_attack_is_asked_for_twice(
    tiny_lm, examples, tmp_path, monkeypatch, trained, name
):
    monkeypatch.setattr(batching, "GENERATED_TOKENS", 80)  # a few questions in a batch
    one, data = attacks()[name], AttackData(questions=tuple(examples), keep=tmp_path / "keep")

    def attacked(folder):
        return run_attack(tiny_lm, one, data, options=SHORT, partial_dir=tmp_path / folder)

    whole = attacked("whole")
    batches: list[str] = []
    put = Partial.put

    def put_or_die(self, batch, values):
        put(self, batch, values)
        batches.append(batch)
        if len(batches) == 2:
            raise PowerCutError

    monkeypatch.setattr(Partial, "put", put_or_die)
    with pytest.raises(PowerCutError):
        attacked("killed")
    done = attacked("killed")
    assert done == whole
    assert len(batches) == len(set(batches)) > 2
    assert len(trained) <= 1
    batches.clear()
    attacked("killed")
    assert batches == []


def test_one_attack_does_not_read_what_another_found(tiny_lm, examples, tmp_path):
    plain = Attack(name="plain", family="none", summary="")
    off = Attack(name="off", family="edit", summary="", change=lambda lm, *_: lm)
    data = AttackData(questions=tuple(examples))
    run_attack(tiny_lm, plain, data, options=SHORT, partial_dir=tmp_path)
    before = (tmp_path / "partial.jsonl").read_text().splitlines()
    run_attack(tiny_lm, off, data, options=SHORT, partial_dir=tmp_path)
    after = (tmp_path / "partial.jsonl").read_text().splitlines()
    assert before[0] != after[0]  # the key
    assert len(after) == len(before) == 13
