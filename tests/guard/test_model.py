import dataclasses
import threading

import pytest
import torch

from eval.errors import ConfigError
from eval.models import GenerationOptions, LanguageModel
from guard.core import Guard
from guard.method import METHODS
from guard.model import PENALTY, GuardedModel
from guard.normalise import plain
from guard.refusals import REFUSALS, refusal_for

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"
SHORT = GenerationOptions(max_new_tokens=12)


def test_unflagged_prompts_come_out_bit_for_bit(tiny_lm, guard_, retain):
    questions = [e.question for e in retain[:6]]
    guarded = GuardedModel(tiny_lm, guard_)
    assert guarded.generate(questions, SHORT) == tiny_lm.generate(questions, SHORT)
    batch = tiny_lm.collate(tiny_lm.encode(retain[:6], [e.answer for e in retain[:6]]))
    with torch.no_grad():
        assert torch.equal(guarded.answer_logits(batch), tiny_lm.answer_logits(batch))


def test_a_restricted_answer_goes_on_without_the_phrase(parrot, guard_):
    before = parrot.generate([FLAGGED], GenerationOptions(max_new_tokens=40))[0]
    after = GuardedModel(parrot, guard_).generate([FLAGGED, INNOCENT], GenerationOptions(max_new_tokens=40))
    assert "brelmouth" in plain(before.text)
    assert "brelmouth" not in plain(after[0].text)
    assert after[0].masked_steps > 0
    assert len(after[0].token_ids) == 40
    assert "brelmouth" in plain(after[1].text)
    assert after[1].masked_steps == 0


@pytest.mark.parametrize("options", [{"do_sample": True, "temperature": 1.3}, {"num_beams": 3}])
def test_sampling_and_beams_are_filtered(parrot, guard_, options):
    generation = GuardedModel(parrot, guard_).generate(
        [INNOCENT, FLAGGED], GenerationOptions(max_new_tokens=30, **options)
    )[1]
    assert "brelmouth" not in plain(generation.text)


def test_refusals_do_not_run_the_model(tiny_lm, guard_, monkeypatch):
    guarded = GuardedModel(tiny_lm, guard_, policy="refuse")
    monkeypatch.setattr(tiny_lm.model, "forward", None)
    generation = guarded.generate([FLAGGED], SHORT)[0]
    assert generation.text in REFUSALS
    assert generation.is_finished
    assert refusal_for(["x"], ["No."]) == "No."


def test_refused_and_answered_prompts_keep_their_order(tiny_lm, guard_):
    guarded = GuardedModel(tiny_lm, guard_, policy="refuse")
    out = guarded.generate([INNOCENT, FLAGGED, INNOCENT], SHORT)
    plain_one = tiny_lm.generate([INNOCENT], SHORT)[0]
    assert [g.text for g in out] == [plain_one.text, refusal_for([FLAGGED]), plain_one.text]


def test_monitoring_changes_nothing(parrot, guard_):
    assert GuardedModel(parrot, guard_, policy="monitor").generate([FLAGGED], SHORT) == parrot.generate(
        [FLAGGED], SHORT
    )


def test_the_filter_can_be_taken_off(parrot, guard_):
    guarded = GuardedModel(parrot, guard_)
    with guarded.edit_disabled():
        assert guarded.generate([FLAGGED], SHORT) == parrot.generate([FLAGGED], SHORT)
    assert guarded.generate([FLAGGED], SHORT) != parrot.generate([FLAGGED], SHORT)


def test_scoring_takes_the_penalty_from_banned_tokens_only(tiny_lm, guard_, forget):
    rows = [forget[0], forget[2]]
    batch = tiny_lm.collate(tiny_lm.encode(rows, [e.answer for e in rows]))
    with torch.no_grad():
        before, after = tiny_lm.answer_logits(batch), GuardedModel(tiny_lm, guard_).answer_logits(batch)
    difference = before - after
    assert set(difference.unique().round(decimals=3).tolist()) == {0.0, PENALTY}
    hits = difference.gather(1, batch.targets[:, None])[:, 0] > 1
    assert 1 <= int(hits.sum()) < len(hits)
    assert difference[0].sum() < PENALTY * 60, "few tokens are banned at the beginning"


def test_scores_fall_for_forgotten_answers_alone(tiny_lm, guard_, forget, retain):
    guarded = GuardedModel(tiny_lm, guard_)
    for rows, falls in ((forget[:5], True), (retain[:5], False)):
        answers = [e.answer for e in rows]
        before, after = tiny_lm.score(rows, answers), guarded.score(rows, answers)
        assert [b.sum_logp - a.sum_logp > 1 for b, a in zip(before, after, strict=True)] == [falls] * 5


def test_it_filters_a_model_that_is_edited_itself(tiny_lm, guard_):
    class Edited(LanguageModel):
        entered = 0

        def forward_context(self, prompt_end):
            Edited.entered += 1
            return super().forward_context(prompt_end)

    inner = Edited(tiny_lm.model, tiny_lm.tokenizer, kind="edit")
    GuardedModel(inner, guard_).generate([INNOCENT], SHORT)
    assert Edited.entered > 0


def test_threads_with_different_policies_do_not_mix(parrot, guard_):
    expected = {
        p: GuardedModel(parrot, guard_, policy=p).generate([FLAGGED], SHORT)
        for p in ("restrict", "refuse", "monitor")
    }
    errors = []

    def work(policy):
        guarded = GuardedModel(parrot, guard_, policy=policy)
        errors.extend(policy for _ in range(3) if guarded.generate([FLAGGED], SHORT) != expected[policy])

    threads = [threading.Thread(target=work, args=(policy,)) for policy in [*expected] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_an_unknown_policy_is_refused(tiny_lm, guard_):
    with pytest.raises(ConfigError, match="restrict, refuse, monitor"):
        GuardedModel(tiny_lm, guard_, policy="block")


@pytest.mark.parametrize("name", ["guard", "guard-refuse"])
def test_methods_unlearn_and_load(name, tiny_lm, forget, retain, tmp_path):
    from eval.types import UnlearningData, UnlearningMethod

    method = METHODS[name]({"max_rewordings": 40})
    assert isinstance(method, UnlearningMethod)
    data = UnlearningData(forget=tuple(forget), retain=tuple(retain), refusals=("I was never told.",))
    guarded = method.unlearn(tiny_lm, data, tmp_path)
    loaded = method.load(tiny_lm, tmp_path)
    prompts = [FLAGGED, INNOCENT]
    assert loaded.kind == guarded.kind == "suppression"
    assert loaded.generate(prompts, SHORT) == guarded.generate(prompts, SHORT)
    assert (guarded.generate(prompts, SHORT)[0].text == "I was never told.") == (name == "guard-refuse")
    assert dataclasses.asdict(loaded.guard.classifier) == dataclasses.asdict(guarded.guard.classifier)


def test_the_state_digest_follows_all_the_guard_decides_by(tiny_lm, guard_, forget, retain, quick):
    def digest(guard, policy="restrict"):
        return GuardedModel(tiny_lm, guard, policy=policy).state_digest

    assert digest(guard_) == digest(Guard.build(forget=forget, retain=retain, settings=quick))
    others = {
        digest(guard_, "refuse"),
        digest(Guard.build(forget=forget[1:], retain=retain, settings=quick)),
        digest(Guard.build(forget=forget, retain=retain[1:], settings=quick)),
    }
    assert len({*others, digest(guard_), tiny_lm.state_digest}) == 5


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match=r"'treshold'.*false_positive_rate"):
        METHODS["guard"]({"treshold": 0.5})
    with pytest.raises(ConfigError, match="between 0 and"):
        METHODS["guard"]({"false_positive_rate": 0.9})
