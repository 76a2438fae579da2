"""`unlearn stack`, as a user calls it."""

import json

import pytest

QUICK = ["--set", "epochs=1", "--set", "min_steps=1", "--set", "gate_fit_steps=20"]


def _list(run, folder):
    ran = run("stack", "list", "--stack", folder, "--json")
    assert ran.code == 0, ran.err
    return [row["name"] for row in json.loads(ran.out)]


def test_two_requests_come_and_one_goes(run, project, tmp_path):
    folder = tmp_path / "edits"
    for request in ("request-1", "request-2"):
        ran = run("stack", "train", request, *project.flags, "--stack", folder, *QUICK, "--json")
        assert ran.code == 0, ran.err
        row = json.loads(ran.out)
        assert (row["name"], row["training"]["settings"]["loss"]) == (request, "idk")
    assert _list(run, folder) == ["request-1", "request-2"]
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"grun_stack.json", "edits"}
    ran = run("generate", "--model", project.model, "--grun", folder, "Where was person 1 born?", "--json")
    assert ran.code == 0, ran.err

    ran = run("stack", "train", "request-2", *project.flags, "--stack", folder, *QUICK)
    assert ran.code == 2
    assert "holds a request 'request-2' already" in ran.err
    ran = run("stack", "train", "x", *project.flags, "--stack", folder, "--method", "npo")
    assert (ran.code, "npo makes no GRUN edit" in ran.err) == (2, True)

    ran = run("stack", "remove", "request-1", "--stack", folder)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("request-2: blocks 0, 1, rank ")
    assert _list(run, folder) == ["request-2"]
    ran = run("stack", "remove", "request-1", "--stack", folder)
    assert ran.code == 2
    assert "Unknown request 'request-1'. Did you mean 'request-2'?" in ran.err
    assert _list(run, folder) == ["request-2"]


def test_an_edit_trained_alone_is_added(run, project, tmp_path):
    ran = run("train", "grun-npo", *project.flags, "--output-dir", tmp_path / "run", *QUICK)
    assert ran.code == 0, ran.err
    folder = tmp_path / "edits"
    for name in ("first", "second"):
        ran = run("stack", "add", name, "--edit", tmp_path / "run", "--stack", folder)
        assert ran.code == 0, ran.err
    assert _list(run, folder) == ["first", "second"]
    ran = run("stack", "add", "second", "--edit", tmp_path / "run", "--stack", folder)
    assert (ran.code, "holds a request 'second' already" in ran.err) == (2, True)
    ran = run("stack", "add", "third", "--edit", tmp_path, "--stack", folder)
    assert (ran.code, "not a whole GRUN edit" in ran.err) == (2, True)
    other = next((folder / "edits").glob("first-*")) / "grun_config.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"base_identity": "0" * 64}))
    ran = run("stack", "add", "third", "--edit", tmp_path / "run", "--stack", folder)
    assert (ran.code, "another base model" in ran.err) == (2, True)


def test_no_stack_is_said(run, tmp_path):
    ran = run("stack", "list", "--stack", tmp_path / "nothing")
    assert (ran.code, "grun_stack.json" in ran.err) == (2, True)


def test_any_base_is_handed_to_the_edit_and_means_nothing_without_one(tiny_lm, tmp_path, caplog):
    """The same architecture with one weight changed is another base: refused, then attached with a warning."""
    from copy import deepcopy

    import grun.model
    from eval.errors import ArtifactError, ConfigError
    from eval.models import LanguageModel
    from unlearn.cli.options import attach
    from unlearn.config import GenerateConfig

    with pytest.raises(ConfigError, match="--any-base is an edit's"):
        attach(tiny_lm, GenerateConfig(model="m", any_base=True))
    grun.model.new_edit(tiny_lm, layers=(0,))[0].save(tmp_path)
    other = LanguageModel(deepcopy(tiny_lm.model), tiny_lm.tokenizer, template=tiny_lm.template)
    other.model.get_input_embeddings().weight.data[5] += 1
    with pytest.raises(ArtifactError, match="--any-base"):
        attach(other, GenerateConfig(model="m", grun=tmp_path))
    assert attach(other, GenerateConfig(model="m", grun=tmp_path, any_base=True)).kind == "edit"
    assert "WARNING" in caplog.text
