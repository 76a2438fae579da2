"""A check that is late or dies: refused, raised or passed as chosen, and never logged as judged (complaint 3)."""

import threading
import time

import pytest

import guard
from eval.errors import ConfigError
from eval.models import GenerationOptions
from guard.audit import AuditLog, AuditRecord, read_audit
from guard.deadline import Deadline
from guard.gate import Decision
from guard.refusals import REFUSALS

INNOCENT = "Where was Neva Holcroft born?"


class Slow:
    """Answers only when it is let go."""

    refusals = ()
    encoder = None

    def __init__(self):
        self.go = threading.Event()

    def check_many(self, prompts):
        self.go.wait(10)
        return [Decision(flagged=False, score=0.1, threshold=0.5)] * len(prompts)


class Dead(Slow):
    def check_many(self, prompts):
        raise MemoryError("Brelmouth")


@pytest.fixture
def slow():
    judge = Slow()
    yield judge
    judge.go.set()


def run(lm, judge, log=None, **arguments):
    arguments = {"max_new_tokens": 8, "do_sample": False} | arguments
    return guard.generate(
        lm.model, lm.tokenizer, [INNOCENT], guard=judge, audit=log, request_ids=["r"], **arguments
    )


def test_a_check_in_time_decides_as_without_a_deadline(guard_):
    limited = Deadline(guard_, 60_000)
    prompts = [INNOCENT, "Where was Orla Vantreski born?"]
    assert limited.check_many(prompts) == guard_.check_many(prompts)
    assert limited.check(INNOCENT) == guard_.check(INNOCENT)


def test_a_late_check_is_refused_within_the_deadline_and_logged_with_its_reason(tiny_lm, slow, tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    start = time.perf_counter()
    (text,) = run(tiny_lm, Deadline(slow, 30), log)
    assert time.perf_counter() - start < 5
    assert text in REFUSALS
    (line,) = read_audit(log.path)
    assert (line["action"], line["flagged"], line["score"]) == ("refused", None, None)
    assert "30 ms" in line["reason"]


def test_a_dead_encoder_is_refused_and_its_message_is_not_logged(tiny_lm, tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    judge = Deadline(Dead(), 10_000)
    assert run(tiny_lm, judge, log)[0] in REFUSALS
    assert "".join(guard.stream(tiny_lm.model, tiny_lm.tokenizer, INNOCENT, guard=judge)) in REFUSALS
    assert read_audit(log.path)[0]["reason"] == "MemoryError"
    assert "Brelmouth" not in log.path.read_text()


def test_an_operator_may_choose_an_error_or_an_unjudged_answer(tiny_lm, slow, tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    with pytest.raises(guard.CheckError, match="within 30 ms"):
        run(tiny_lm, Deadline(slow, 30, on_failure="raise"), log)
    slow.go.set()
    expected = run(tiny_lm, slow)
    assert run(tiny_lm, Deadline(Dead(), 30, on_failure="pass"), log) == expected
    assert [line["action"] for line in read_audit(log.path)] == ["failed", "skipped"]


def test_monitoring_answers_and_says_that_nothing_was_judged(tiny_lm, tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    assert run(tiny_lm, Deadline(Dead(), 30), log, policy="monitor")[0] not in REFUSALS
    assert read_audit(log.path)[0]["action"] == "skipped"


def test_a_guarded_model_fails_closed_too(tiny_lm, slow, tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    options = GenerationOptions(max_new_tokens=8)
    plain = tiny_lm.generate([INNOCENT], options)[0].text
    for judge, reason in (
        (Deadline(slow, 30), "no decision within 30 ms"),
        (Deadline(Dead(), 30), "MemoryError"),
    ):
        start = time.perf_counter()
        (answer,) = guard.GuardedModel(tiny_lm, judge, audit=log).generate([INNOCENT], options)
        assert time.perf_counter() - start < 5
        assert answer.text in REFUSALS
        assert (read_audit(log.path)[-1]["action"], read_audit(log.path)[-1]["reason"]) == ("refused", reason)
    unjudged = guard.GuardedModel(tiny_lm, Deadline(Dead(), 30, on_failure="pass"), audit=log)
    assert unjudged.generate([INNOCENT], options)[0].text == plain
    assert read_audit(log.path)[-1]["action"] == "skipped"
    with pytest.raises(guard.CheckError, match="within 30 ms"):
        guard.GuardedModel(tiny_lm, Deadline(slow, 30, on_failure="raise")).generate([INNOCENT], options)


def test_a_guarded_model_judges_a_prompt_once_and_as_without_a_deadline(parrot, guard_):
    class Once:
        """In time at its first call, late ever after."""

        refusals = ()
        calls = 0

        def check_many(self, prompts):
            self.calls += 1
            if self.calls > 1:
                raise TimeoutError
            return guard_.check_many(prompts)

    prompts, options = [INNOCENT, "Where was Orla Vantreski born?"], GenerationOptions(max_new_tokens=30)
    limited = guard.GuardedModel(parrot, Deadline(Once(), 60_000))
    found = limited.generate(prompts, options)
    assert found == guard.GuardedModel(parrot, guard_).generate(prompts, options)
    assert found[1].masked_steps > 0


def test_scores_never_depend_on_a_deadline(tiny_lm, guard_, forget, tmp_path):
    rows = forget[:2]
    answers = [row.answer for row in rows]
    in_time = guard.GuardedModel(tiny_lm, Deadline(guard_, 60_000))
    expected = guard.GuardedModel(tiny_lm, guard_).score(rows, answers)
    assert [s.sum_logp for s in in_time.score(rows, answers)] == [s.sum_logp for s in expected]
    assert in_time.state_digest is None
    for choice in ("refuse", "pass"):
        late = guard.GuardedModel(tiny_lm, Deadline(Dead(), 60_000, on_failure=choice))
        with pytest.raises(guard.CheckError, match=r"MemoryError.*without a deadline"):
            late.score(rows, answers)
    in_time.save(tmp_path / "saved")
    assert guard.Guard.load(tmp_path / "saved" / "guard").check_many(answers) == guard_.check_many(answers)
    with pytest.raises(ConfigError, match="filtered by a Dead"):
        late.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_late_checks_do_not_pile_up(slow):
    limited = Deadline(slow, 5, max_waiting=2)
    before = threading.active_count()
    reasons = [limited.check(INNOCENT).failure for _ in range(6)]
    assert threading.active_count() <= before + 2
    assert reasons[:2] == ["no decision within 5 ms"] * 2
    assert set(reasons[2:]) == {"too many checks are late already"}
    slow.go.set()
    limited.milliseconds = 5000
    while (decision := limited.check(INNOCENT)).failure:
        time.sleep(0.01)
    assert not decision.flagged


def test_an_unjudged_prompt_cannot_be_logged_as_passed():
    decision = Decision(flagged=False, score=0.0, threshold=1.0, failure="late")
    with pytest.raises(ConfigError, match="not judged"):
        AuditRecord(action="passed", policy="restrict", decision=decision)


def test_values_out_of_range_are_refused(slow):
    for values in ({"milliseconds": 0}, {"milliseconds": 5, "max_waiting": 0}):
        with pytest.raises(ConfigError, match="above 0"):
            Deadline(slow, **values)
    with pytest.raises(ConfigError, match="on_failure"):
        Deadline(slow, 5, on_failure="open")
