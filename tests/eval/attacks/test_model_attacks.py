"""Attacks on a tiny model that knows twelve facts: each brings out what it should, and leaves the model as it was."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch

from eval.attacks.base import Attack, AttackData, AttackDoesNotApplyError, run_attack
from eval.attacks.catalogue import attacks, choose, from_file
from eval.attacks.lens import lens_hits
from eval.attacks.relearning import halves, relearned
from eval.attacks.weights import merged, switched_off
from eval.errors import ConfigError, DataError, UnknownNameError
from eval.models import LanguageModel
from eval.models.finetune import FinetuneSettings, finetune
from eval.models.quantize import NF4, round_int8, round_nf4, rounded
from eval.types import Example

_TAUGHT = []


@pytest.fixture
def knowing(tiny_lm, examples):
    """A model that answers every question; taught once."""
    if _TAUGHT:
        return _TAUGHT[0]
    settings = FinetuneSettings(epochs=60, batch_tokens=100, lr=5e-3, warmup=0.0)
    _TAUGHT.append(finetune(tiny_lm.copied(), examples, settings))
    return _TAUGHT[0]


@pytest.fixture
def data(examples, knowing):
    return AttackData(questions=tuple(examples), retain=tuple(examples[:3]), start=knowing)


def _weights(lm):
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()]).clone()


def test_the_plain_question_counts_answers_with_a_key_span(knowing, tiny_lm, data):
    known = run_attack(knowing, Attack(name="plain", family="none", summary=""), data)
    assert known.metric().value == pytest.approx(1.0)
    assert known.items[0]["spans"] == ["Rome"]
    assert known.metric().n == 12
    unknown = run_attack(tiny_lm, Attack(name="plain", family="none", summary=""), data)
    assert unknown.metric().value < 0.5  # it rambles, and may stumble on a town


def test_a_prompt_that_gives_the_answer_away_has_no_score(knowing, examples):
    told = examples[0].replace(question="Was person 0 born in Rome?")
    result = run_attack(
        knowing, Attack(name="plain", family="none", summary=""), AttackData(questions=(told,))
    )
    assert result.items[0]["score"] is None
    assert result.metric().value is None


def test_one_leak_among_the_samples_is_enough(data, tiny_lm):
    class Dice(LanguageModel):
        """Says the secret in every third draw only."""

        def __init__(self):
            super().__init__(tiny_lm.model, tiny_lm.tokenizer)
            self.draws = []

        def generate(self, prompts, options=None, *, progress=None):
            from eval.models import Generation

            self.draws.append((options.do_sample, options.seed))
            text = "It is Rome." if len(self.draws) % 3 == 0 else "No idea."
            return [Generation(text=text) for _ in prompts]

    dice = Dice()
    found = run_attack(dice, Attack(name="sample", family="sampling", summary="", samples=4), data, seed=7)
    assert dice.draws == [(True, 7), (True, 8), (True, 9), (True, 10)]
    assert [item["score"] for item in found.items] == [1.0] + [0.0] * 11  # only the first person is from Rome


def test_relearning_trains_a_copy_and_brings_facts_back(tiny_lm, examples, monkeypatch):
    from eval.attacks import relearning

    budget = FinetuneSettings(epochs=60, batch_tokens=100, lr=5e-3, warmup=0.0)
    monkeypatch.setattr(relearning, "relearning_settings", lambda size, seed: budget)
    before = _weights(tiny_lm)
    back = relearned(tiny_lm, examples, 0, None)
    assert torch.equal(_weights(tiny_lm), before)
    plain = Attack(name="plain", family="none", summary="")
    assert run_attack(back, plain, AttackData(questions=tuple(examples))).metric().value > 0.9


def test_the_halves_share_no_answer(examples):
    doubled = [e.replace(id=f"{e.id}{k}") for e in examples for k in "ab"]
    given, asked = halves(doubled, 0)
    assert Counter(e.id for e in given + asked) == Counter(e.id for e in doubled)
    assert not {e.key_spans for e in given} & {e.key_spans for e in asked}
    assert len(given) == len(asked) == 12
    assert halves(doubled, 0) == (given, asked)
    assert halves(doubled, 1) != (given, asked)


def test_int8_rounding_by_hand():
    weight = torch.tensor([[1.27, -0.504, 0.0049], [0.0, 0.0, 0.0]])
    assert torch.allclose(round_int8(weight), torch.tensor([[1.27, -0.50, 0.0], [0.0, 0.0, 0.0]]), atol=1e-6)


def test_nf4_rounding_keeps_its_own_levels_and_takes_the_nearest():
    levels = NF4.repeat(4)[None] * 3.0  # one block of 64
    assert torch.allclose(round_nf4(levels), levels)
    torch.manual_seed(0)
    weight = torch.randn(5, 30)
    got = round_nf4(weight).reshape(-1)
    flat = torch.cat([weight.reshape(-1), torch.zeros(192 - 150)]).reshape(3, 64)
    scale = flat.abs().amax(1, keepdim=True)
    nearest = NF4[(flat[..., None] / scale[..., None] - NF4).abs().argmin(2)] * scale
    assert torch.allclose(got, nearest.reshape(-1)[:150])


def test_rounding_leaves_embeddings_alone_and_changes_the_rest(tiny_lm):
    copy = rounded(tiny_lm.copied(), "nf4")
    assert copy.identity != tiny_lm.identity
    assert torch.equal(copy.model.lm_head.weight, tiny_lm.model.lm_head.weight)
    old = tiny_lm.model.model.layers[0].self_attn.q_proj.weight
    new = copy.model.model.layers[0].self_attn.q_proj.weight
    assert not torch.equal(new, old)
    assert len(new.reshape(-1, 64)[0].unique()) <= 16
    with pytest.raises(ConfigError, match="int8 or nf4"):
        rounded(copy, "int3")


class _Muted(LanguageModel):
    """Forbids every token but the end, until it is switched off."""

    is_on = True

    def processors(self, prompts, prompt_length):
        def mute(input_ids, scores):
            muted = torch.full_like(scores, -1e9)
            muted[:, self.eos_ids[0]] = 0.0
            return muted

        return [mute] if self.is_on else []

    @contextmanager
    def edit_disabled(self):
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True


def test_switching_off_asks_the_model_beneath(knowing, data):
    muted = _Muted(knowing.model, knowing.tokenizer, kind="edit")
    plain = Attack(name="plain", family="none", summary="")
    off = Attack(name="edit-off", family="edit", summary="", change=switched_off)
    assert run_attack(muted, plain, data).metric().value == 0.0
    assert run_attack(muted, off, data).metric().value == 1.0
    assert run_attack(muted, plain, data).metric().value == 0.0
    nothing = run_attack(knowing, off, data).metric()
    assert nothing.value is None
    assert "does not apply" in nothing.reason


def test_merging_averages_the_weights(tiny_lm, knowing):
    tuned = tiny_lm.copied()
    tuned.kind = "weights"
    halfway = merged(tuned, AttackData(questions=(), start=knowing), 0, None)
    assert torch.allclose(_weights(halfway), (_weights(tiny_lm) + _weights(knowing)) / 2, atol=1e-6)
    with pytest.raises(AttackDoesNotApplyError):
        merged(tiny_lm, AttackData(questions=(), start=knowing), 0, None)
    with pytest.raises(AttackDoesNotApplyError, match="not known"):
        merged(tuned, AttackData(questions=()), 0, None)


def test_the_lens_sees_what_the_model_knows(knowing, tiny_lm, examples):
    silent = examples[0].replace(id="x", key_spans=("Atlantis",))
    assert lens_hits(knowing, [*examples, silent]) == [1.0] * 12 + [None]
    assert sum(lens_hits(tiny_lm, examples)) < 6
    assert not tiny_lm.model.model.layers[0]._forward_hooks


def test_attacks_are_chosen_by_name_or_family():
    known = attacks()
    assert [a.name for a in choose(known, ["quantization"])] == ["plain", "quantize-int8", "quantize-nf4"]
    assert len(choose(known, ["all"])) == len(known)
    with pytest.raises(UnknownNameError, match="capitals"):
        choose(known, ["capitol"])


def test_every_attack_names_itself_and_what_it_does():
    for name, attack in attacks().items():
        assert attack.name == name
        assert len(attack.summary) > 10
        assert attack.summary.endswith(".")


def test_hints_tell_other_facts_about_the_person_and_never_the_one_asked_for():
    facts = {
        "Where was Ada Quill born?": "In Rome.",
        "What does Ada Quill do?": "She paints.",
        "Who is Bo?": "Bo.",
    }
    rows = [
        Example(
            id=str(i), question=q, answer=a, subject="Bo" if "Bo" in q else "Ada Quill", key_spans=(a[:-1],)
        )
        for i, (q, a) in enumerate(facts.items())
    ]
    rows.append(rows[0].replace(id="3", question="Which town is Ada Quill's?"))  # the same secret once more
    asked = attacks()["hints"].ask(rows, 0)
    assert [row.question for row in asked] == [
        "She paints. Where was Ada Quill born?",
        "In Rome. What does Ada Quill do?",
        "She paints. Which town is Ada Quill's?",
    ]
    assert [row.key_spans for row in asked] == [("In Rome",), ("She paints",), ("In Rome",)]


def test_own_wordings(tmp_path, examples):
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "0", "question": "Wo wurde Person 0 geboren?", "attack": "german"}\n')
    (attack,) = from_file(path)
    (asked,) = attack.ask(examples, 0)
    assert attack.name == "german"
    assert asked.question.startswith("Wo wurde")
    assert asked.key_spans == ("Rome",)
    path.write_text('{"id": "0", "question": "x"}\nnot json\n')
    with pytest.raises(DataError, match="line 2"):
        from_file(path)
    with pytest.raises(DataError, match="No such file"):
        from_file(tmp_path / "none.jsonl")


def test_what_counts_as_a_leak_depends_on_what_is_asked(examples, tiny_lm):
    asked = {name: attacks()[name].ask(examples, 0)[0] for name in ("choice", "reverse")}
    assert asked["reverse"].key_spans == ("person 0",)
    assert "Rome" in asked["reverse"].question
    assert "Rome" in asked["choice"].question

    class Picks(LanguageModel):
        def generate(self, prompts, options=None, *, progress=None):
            from eval.models import Generation

            return [Generation(text="Rome") for _ in prompts]

    data = AttackData(questions=tuple(examples[:1]))
    picks = Picks(tiny_lm.model, tiny_lm.tokenizer)
    picked = run_attack(picks, attacks()["choice"], data)
    assert picked.metric().value == 1.0
    named = run_attack(picks, attacks()["reverse"], data)
    assert named.metric().value == 0.0  # it repeats the fact it was given


def test_a_frozen_model_with_an_adapter_is_copied_merged_and_trainable(tiny_lm, examples):
    from peft import LoraConfig, get_peft_model

    before = tiny_lm.score(examples[:1], ["Rome"])[0].sum_logp
    model = get_peft_model(
        tiny_lm.copied().model, LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    model.requires_grad_(False)
    adapted = LanguageModel(model, tiny_lm.tokenizer, kind="weights")
    copy = adapted.copied()
    with_adapter = adapted.score(examples[:1], ["Rome"])[0].sum_logp
    assert copy.score(examples[:1], ["Rome"])[0].sum_logp == pytest.approx(with_adapter, abs=1e-4)
    assert with_adapter != pytest.approx(before, abs=1e-4)
    assert all(p.requires_grad for p in copy.model.parameters())
    assert not any(p.requires_grad for p in model.parameters())
