"""``unlearn guard`` as a user types it: build, look, add, remove, verify, check, and what is refused."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from guard.refusals import REFUSALS


@pytest.fixture
def store(run, project, tmp_path):
    folder = tmp_path / "store"
    ran = run(
        "guard",
        "build",
        "--benchmark",
        f"jsonl:{project.forget}",
        "--retain-file",
        project.retain,
        "--store",
        folder,
        "--json",
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["num_entries"] == 4
    return folder


def as_json(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def refused(ran, *fragments):
    assert ran.code == 2, ran
    assert ran.out == ""
    assert "Traceback" not in ran.err
    for fragment in fragments:
        assert fragment in ran.err


def test_a_guard_lives_through_its_commands(run, store, project, tmp_path):
    questions = [json.loads(line)["question"] for line in project.forget.read_text().splitlines()]
    decision = as_json(run("guard", "check", questions[0], "--store", store, "--json"))
    assert set(decision) >= {"flagged", "score", "evidence", "entries"}
    assert decision["flagged"]
    assert 1 in decision["entries"]
    both = as_json(
        run("guard", "check", questions[0], "What is the capital of Norway?", "--guard", store, "--json")
    )
    assert [d["flagged"] for d in both] == [True, False]

    page = tmp_path / "page.txt"
    page.write_text("Jane Roewick keeps bees in Quillmarsh, where nobody visits her. " * 3)
    added = as_json(
        run(
            "guard",
            "add",
            "r2",
            "--subject",
            "Jane Roewick",
            "--alias",
            "J. Quistgard",
            "--document",
            page,
            "--store",
            store,
            "--json",
        )
    )
    assert len(added["ids"]) == 3
    assert "weakly" in added["notices"][0]
    assert as_json(run("guard", "check", "What did J. Quistgard do?", "--store", store, "--json"))["flagged"]
    listed = as_json(run("guard", "list", "--store", store, "--json"))
    assert listed == [{"request": "request-1", "num_entries": 4}, {"request": "r2", "num_entries": 3}]
    assert as_json(run("guard", "remove", "r2", "--store", store, "--json")) == {
        "request": "r2",
        "num_removed": 3,
    }
    verified = as_json(run("guard", "verify", "--store", store, "--json"))
    assert verified["ok"]
    assert verified["requests"] == {"request-1": 4}
    assert verified["generation"] == 3

    chat = tmp_path / "chat.json"
    chat.write_text(
        json.dumps([{"role": "system", "content": questions[0]}, {"role": "user", "content": "Hello!"}])
    )
    assert not as_json(run("guard", "check", "--chat", chat, "--store", store, "--json"))["flagged"]

    text = run("guard", "check", questions[0], "--store", store)
    assert text.out.startswith("flagged: score ")
    assert "entries: " in text.out
    assert "is whole" in run("guard", "verify", "--store", store).out


def test_bad_input_is_refused_in_one_sentence(run, store, project, tmp_path):
    nowhere = tmp_path / "nowhere"
    for words in (("list",), ("verify",), ("check", "Hi"), ("add", "x", "--subject", "Y"), ("remove", "x")):
        refused(run("guard", *words, "--store", nowhere), "There is no guard store")
    assert not nowhere.exists()
    refused(run("guard", "remove", "request-9", "--store", store), "no request 'request-9'", "request-1")
    refused(run("guard", "add", "request-1", "--subject", "Y", "--store", store), "already")
    refused(run("guard", "add", "new", "--store", store), "no examples, no subject and no document")
    refused(run("guard", "add", "new", "--document", nowhere, "--store", store), "cannot be read")
    (tmp_path / "chat.json").write_text('{"role": "user"}')
    refused(run("guard", "check", "--chat", tmp_path / "chat.json", "--store", store), "list of messages")
    refused(
        run("guard", "build", "--benchmark", f"jsonl:{project.forget}", "--store", store),
        "already",
        "--replace",
    )
    refused(
        run(
            "guard",
            "build",
            "--benchmark",
            f"jsonl:{project.forget}",
            "--false-positive-rate",
            "2",
            "--store",
            nowhere,
        ),
        "between 0 and 0.5",
    )
    index = next(store.glob("forget-*"))
    index.write_bytes(index.read_bytes()[:-8])
    refused(run("guard", "verify", "--store", store), "checksum")
    refused(run("guard", "check", "Hi", "--store", store), "checksum")


def test_a_guard_on_hidden_states_goes_with_its_model(run, store, project, tmp_path):
    own, flags = tmp_path / "own", ("--features", "hidden", "--model", project.model)
    words = ("build", "--benchmark", f"jsonl:{project.forget}", "--retain-file", project.retain)
    built = as_json(run("guard", *words, *flags, "--store", own, "--json"))
    assert built["num_entries"] == 4
    question = json.loads(project.forget.read_text().splitlines()[0])["question"]
    asked = ("check", question, "--store", own, "--json")
    assert as_json(run("guard", *asked, "--model", project.model))["flagged"]
    answered = as_json(
        run("generate", question, "--model", project.model, "--guard", own, "--policy", "refuse", "--json")
    )
    assert answered[0]["text"] in REFUSALS
    added = run("guard", "add", "r2", "--subject", "Jane Roewick", "--store", own, "--model", project.model)
    assert added.code == 0, added.err
    assert as_json(run("guard", "list", "--store", own, "--json"))[1]["request"] == "r2"

    refused(run("guard", *asked), "hidden states", "--model")
    other = shutil.copytree(project.model, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 0.1}, other / "model.safetensors", {"format": "pt"})
    refused(run("guard", *asked, "--model", other), "hidden states of another model")
    refused(run("generate", question, "--model", other, "--guard", own), "hidden states of another model")
    refused(run("guard", "check", "Hi", "--store", store, "--model", project.model), "needs no model")
    refused(run("guard", *words, "--store", tmp_path / "x", "--features", "hidden"), "--model")
    refused(run("guard", *words, "--store", tmp_path / "x", "--model", project.model), "--features hidden")
    refused(run("guard", *words, *flags, "--encoder", "E", "--store", tmp_path / "x"), "--encoder")
    assert not (tmp_path / "x").exists()
    text = run("guard", "build", "--help").out
    for word in ("--features hidden", "no sentence encoder", "fits that model alone"):
        assert word in " ".join(text.split())


def test_help_names_the_commands_with_examples(run):
    text = run("guard", "--help").out
    for word in ("build", "add", "remove", "list", "verify", "check", "unlearn guard check", "suppresses"):
        assert word in text


def test_the_allowlist_is_kept_and_shown(run, store, project):
    question = json.loads(project.forget.read_text().splitlines()[0])["question"]
    allowed = as_json(
        run("guard", "allow", "--prompt", question, "--phrase", "Port 1", "--store", store, "--json")
    )
    assert allowed["phrases"] == ["port 1"]
    decision = as_json(run("guard", "check", question, "--store", store, "--json"))
    assert (decision["flagged"], decision["allowed"]) == (False, True)
    assert run("guard", "check", question, "--store", store).out.startswith("passes (allowed): score ")
    rows = as_json(run("guard", "list", "--store", store, "--json"))
    assert {"allowed": "phrase", "text": "port 1"} in rows
    assert "allowed phrase\tport 1" in run("guard", "list", "--store", store).out
    gone = run("guard", "allow", "--prompt", question, "--remove", "--store", store)
    assert "0 prompts, 1 phrases" in gone.out
    assert as_json(run("guard", "check", question, "--store", store, "--json"))["flagged"]
    refused(run("guard", "allow", "--store", store), "nothing to allow")
    refused(run("guard", "allow", "--phrase", "x y", "--remove", "--store", store), "not on the allowlist")


def test_generate_logs_decisions_without_text(run, store, project, tmp_path):
    question = json.loads(project.forget.read_text().splitlines()[0])["question"]
    log = tmp_path / "logs" / "audit.jsonl"
    words = ("generate", question, "What is a tide?", "--model", project.model, "--max-new-tokens", 4)
    refused(run(*words, "--audit", log), "--audit", "--guard")
    assert not log.exists()
    ran = run(*words, "--guard", store, "--policy", "refuse", "--audit", log, "--json")
    answers = as_json(ran)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["action"] for line in lines] == ["refused", "passed"]
    assert all(line["score"] is not None and line["latency_ms"] > 0 for line in lines)
    assert question not in log.read_text()
    assert answers[0]["text"] not in log.read_text()
    refused(run(*words, "--guard", store, "--audit", tmp_path), "--audit")
