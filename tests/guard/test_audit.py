import json
import multiprocessing
import threading

import pytest

import guard
from eval.errors import ConfigError
from guard.audit import AuditLog, AuditRecord, read_audit
from guard.gate import Decision

FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"
YES = Decision(flagged=True, score=0.9, threshold=0.5, entries=(3,), phrases=("brelmouth",))
NO = Decision(flagged=False, score=0.1, threshold=0.5)


@pytest.fixture
def log(tmp_path):
    return AuditLog(tmp_path / "deep" / "audit.jsonl")


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        ("restrict", ["passed", "restricted"]),
        ("refuse", ["passed", "refused"]),
        ("monitor", ["passed", "noted"]),
    ],
)
def test_each_prompt_leaves_one_line_that_says_what_was_done(parrot, guard_, log, policy, actions):
    guard.generate(
        parrot.model,
        parrot.tokenizer,
        [INNOCENT, FLAGGED],
        guard=guard_,
        policy=policy,
        audit=log,
        request_ids=["a", "b"],
        max_new_tokens=12,
        do_sample=False,
    )
    lines = read_audit(log.path)
    assert [line["action"] for line in lines] == actions
    assert [line["request_id"] for line in lines] == ["a", "b"]
    assert [line["flagged"] for line in lines] == [False, True]
    assert lines[1]["entries"] == list(guard_.check(FLAGGED).entries)
    assert (lines[1]["masked_steps"] > 0) == (policy == "restrict")
    assert lines[1]["latency_ms"] >= lines[1]["check_ms"] > 0


def test_stream_and_wrap_say_the_same_as_generate(parrot, guard_, log):
    list(
        guard.stream(
            parrot.model,
            parrot.tokenizer,
            FLAGGED,
            guard=guard_,
            audit=log,
            max_new_tokens=12,
            do_sample=False,
        )
    )
    guard.generate(
        parrot.model, parrot.tokenizer, [FLAGGED], guard=guard_, audit=log, max_new_tokens=12, do_sample=False
    )
    keys = ("action", "flagged", "score", "entries", "masked_steps", "policy")
    first, second = ({key: line[key] for key in keys} for line in read_audit(log.path))
    assert first == second


def test_no_text_and_no_phrase_gets_into_the_log(parrot, guard_, log):
    list(guard.stream(parrot.model, parrot.tokenizer, FLAGGED, guard=guard_, audit=log, max_new_tokens=8))
    written = log.path.read_text().casefold()
    for secret in ("orla", "vantreski", "brelmouth"):
        assert secret not in written


def test_the_text_is_there_when_it_is_asked_for(tmp_path):
    from eval.types import Message

    log = AuditLog(tmp_path / "audit.jsonl", with_text=True)
    messages = [Message("system", "hidden"), Message("user", "Hi é")]
    log.record(AuditRecord(action="passed", policy="restrict", decision=NO), messages=messages, answer="Ho")
    (line,) = read_audit(log.path)
    assert (line["user"], line["answer"]) == (["Hi é"], "Ho")


def test_a_failed_check_is_never_a_pass(tiny_lm, guard_, log, monkeypatch):
    from guard.core import Guard

    def fail(self, prompts):
        raise RuntimeError("Brelmouth")

    monkeypatch.setattr(Guard, "check_many", fail)
    with pytest.raises(RuntimeError):
        guard.generate(tiny_lm.model, tiny_lm.tokenizer, [INNOCENT, FLAGGED], guard=guard_, audit=log)
    lines = read_audit(log.path)
    assert [(line["action"], line["reason"], line["score"]) for line in lines] == [
        ("failed", "RuntimeError", None)
    ] * 2
    assert "Brelmouth" not in log.path.read_text()


def test_a_record_cannot_say_what_was_not_done():
    for action in ("passed", "restricted", "refused", "noted"):
        with pytest.raises(ConfigError, match="without a decision"):
            AuditRecord(action=action, policy="restrict")
    with pytest.raises(ConfigError, match="cannot be logged as 'passed'"):
        AuditRecord(action="passed", policy="restrict", decision=YES)
    AuditRecord(action="skipped", policy="restrict", reason="switched off")


def _append(path, name):
    log = AuditLog(path)
    for i in range(50):
        record = AuditRecord(
            action="passed", policy="restrict", decision=NO, request_id=f"{name}-{i}" + "x" * 3000
        )
        log.record(record)


def test_threads_and_processes_write_whole_lines(tmp_path):
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, f"p{i}")) for i in range(3)]
    workers += [threading.Thread(target=_append, args=(path, f"t{i}")) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["request_id"] for line in lines}) == 300


def test_what_cannot_be_written_or_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        AuditLog(tmp_path)
    path = tmp_path / "cut.jsonl"
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(ConfigError, match="Line 2"):
        read_audit(path)


def test_request_ids_must_be_one_for_each_prompt(tiny_lm, guard_):
    with pytest.raises(ConfigError, match="1 request ids for 2 prompts"):
        guard.generate(tiny_lm.model, tiny_lm.tokenizer, [INNOCENT, FLAGGED], guard=guard_, request_ids=["a"])


@pytest.mark.parametrize("policy", ["restrict", "refuse", "monitor"])
def test_a_guarded_model_logs_as_generate_does(parrot, guard_, log, policy):
    from eval.models import GenerationOptions

    prompts, options = [INNOCENT, FLAGGED], GenerationOptions(max_new_tokens=12)
    guarded = guard.GuardedModel(parrot, guard_, policy=policy, audit=log)
    texts = [answer.text for answer in guarded.generate(prompts, options)]
    arguments = {"guard": guard_, "policy": policy, "audit": log, "max_new_tokens": 12, "do_sample": False}
    assert texts == guard.generate(parrot.model, parrot.tokenizer, prompts, **arguments)
    keys = ("action", "flagged", "score", "entries", "masked_steps", "policy")
    lines = [{key: line[key] for key in keys} for line in read_audit(log.path)]
    assert lines[:2] == lines[2:]


def test_a_filter_switched_off_is_logged_as_skipped(parrot, guard_, log):
    guarded = guard.GuardedModel(parrot, guard_, audit=log)
    with guarded.edit_disabled():
        guarded.generate([FLAGGED])
    (line,) = read_audit(log.path)
    assert (line["action"], line["score"], line["reason"]) == ("skipped", None, "the filter was switched off")
