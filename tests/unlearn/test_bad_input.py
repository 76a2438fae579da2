"""Bad input: one clear sentence, exit code 2, nothing lost."""

import shutil
import subprocess
import sys

import pytest
import torch
from filelock import FileLock

from unlearn.shadow import shadowing_folder


def _refused(ran, *fragments: str) -> None:
    assert ran.code == 2, ran
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for fragment in fragments:
        assert fragment in lines[0]


def test_unknown_method(run, project):
    _refused(run("compare", *project.flags, "--methods", "nop"), "Unknown method 'nop'", "Did you mean 'npo'")
    _refused(run("train", "gaurd", *project.flags), "Unknown method 'gaurd'", "Did you mean 'guard'")


def test_unknown_command(run):
    _refused(run("comapre"), "Unknown command 'comapre'", "Did you mean 'compare'")


def test_unknown_benchmark_and_split(run, project, tmp_path):
    _refused(
        run("compare", "--benchmark", "wrold:forget05"), "Unknown benchmark 'wrold'", "Did you mean 'world'"
    )
    _refused(run("compare", "--benchmark", "world:forget7"), "Unknown split", "forget05")
    _refused(
        run("evaluate", "--benchmark", "tofu:frget01", "--data-dir", tmp_path), "Unknown split", "forget01"
    )


def test_unknown_setting(run, project, tmp_path):
    _refused(run("compare", *project.flags, "--methods", "npo", "--set", "npo.bata=1"), "bata", "beta")
    _refused(run("compare", *project.flags, "--methods", "npo", "--set", "guard.x=1"), "'guard'", "npo")
    _refused(run("compare", *project.flags, "--set", "beta"), "not key=value")
    (tmp_path / "c.yaml").write_text("modle: x\n")
    _refused(run("compare", "--config", tmp_path / "c.yaml"), "Unknown setting 'modle'", "model")
    (tmp_path / "c.yaml").write_text("seed: many\n")
    _refused(run("compare", "--config", tmp_path / "c.yaml"), "'seed'", "many")
    (tmp_path / "c.yaml").write_text("a: [\n")
    _refused(run("compare", "--config", tmp_path / "c.yaml"), "not valid YAML")
    _refused(run("compare", "--config", tmp_path / "none.yaml"), "cannot be read")


def test_model_path_that_is_not_there(run, project, tmp_path):
    _refused(run("evaluate", *project.flags, "--model", tmp_path / "none"), "There is no model folder")


def test_broken_line_in_the_forget_file(run, project):
    with project.forget.open("a") as file:
        file.write('{"question": \n')
    _refused(run("compare", *project.flags), "forget.jsonl, line 5 is not valid JSON")


def test_empty_forget_set(run, project):
    project.forget.write_text("")
    _refused(run("compare", *project.flags), "empty forget set")


def test_forget_and_retain_share_rows(run, project):
    project.retain.write_text(
        project.retain.read_text() + project.forget.read_text().splitlines()[0].replace('"0"', '"x"')
    )
    _refused(run("compare", *project.flags), "share rows", "'0'", "'x'")


def test_output_folder_that_cannot_be_written(run, project, tmp_path):
    (tmp_path / "file").write_text("in the way")
    _refused(
        run("compare", *project.flags, "--output-dir", tmp_path / "file" / "run"), "cannot be written to"
    )
    assert (tmp_path / "file").read_text() == "in the way"


def test_run_folder_in_use(run, project, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        ran = run("evaluate", *project.flags, "--output-dir", tmp_path / "run")
    _refused(ran, "in use by another process")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_asked_for_and_absent(run, project):
    _refused(run("evaluate", *project.flags, "--device", "cuda"), "'cuda' was asked for", "no CUDA device")


def test_a_folder_named_eval(run, project, tmp_path):
    (tmp_path / "cwd" / "eval").mkdir()
    _refused(run("benchmarks"), "The folder 'eval' in the working directory")


def test_a_package_of_ours_hidden_from_python(tmp_path):
    (tmp_path / "guard").mkdir()
    assert shadowing_folder(tmp_path) is None
    (tmp_path / "guard" / "__init__.py").touch()
    assert "'guard'" in str(shadowing_folder(tmp_path))


def test_python_dash_m_in_such_a_folder(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "__init__.py").touch()
    ran = subprocess.run(
        [sys.executable, "-m", "unlearn", "benchmarks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: The folder 'eval'")
    assert len(ran.stderr.strip().splitlines()) == 1


def _artifact(run, project, method, folder):
    assert run("train", method, *project.flags, "--output-dir", folder).code == 0
    return folder / method


@pytest.mark.parametrize(("method", "flag"), [("grun-gd", "--grun"), ("guard", "--guard")])
def test_half_written_artifact(run, project, tmp_path, method, flag):
    artifact = _artifact(run, project, method, tmp_path / "run")
    files = sorted(
        path for path in artifact.rglob("*") if path.suffix in (".safetensors", ".faiss", ".index")
    )
    assert files
    files[0].write_bytes(files[0].read_bytes()[:40])
    _refused(run("evaluate", *project.flags, flag, artifact, "--output-dir", tmp_path / "out"))
    shutil.rmtree(artifact)
    _refused(run("evaluate", *project.flags, flag, artifact, "--output-dir", tmp_path / "out"))


def test_edit_of_another_base_model(run, project, tiny_lm, tmp_path):
    artifact = _artifact(run, project, "grun-gd", tmp_path / "run")
    with torch.no_grad():
        tiny_lm.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    tiny_lm.save(project.model)
    _refused(run("evaluate", *project.flags, "--grun", artifact, "--output-dir", tmp_path / "out"), "another")


def test_adapter_folder_that_is_none(run, project, tmp_path):
    _refused(run("evaluate", *project.flags, "--adapter", tmp_path), "not a PEFT adapter")


@pytest.mark.parametrize(
    ("flag", "value"), [("--template", "qa"), ("--dtype", "bfloat16"), ("--adapter", "a")]
)
def test_flags_that_a_model_from_nothing_cannot_follow(run, flag, value):
    _refused(
        run("evaluate", "--model", "scratch", flag, value), f"{flag} is for saved models", "unlearn prepare"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.gguf", "is a GGUF file"),
        ("prepared", "did you mean"),
        ("no-tokenizer", "no tokenizer"),
        ("pickled", "save the model as safetensors"),
    ],
)
def test_a_folder_that_is_no_usable_model(run, project, tmp_path, name, said):
    folder = tmp_path / name
    if name == "m.gguf":
        folder.write_text("GGUF")
    elif name == "prepared":
        shutil.copytree(project.model, folder / "target")
    else:
        shutil.copytree(project.model, folder)
        for file in folder.glob("token*" if name == "no-tokenizer" else "*.safetensors"):
            file.unlink()
        (folder / "pytorch_model.bin").write_text("not a pickle of tensors")
    _refused(run("compare", *project.flags, "--model", folder), said)


def test_rows_of_a_users_own(run, project, tmp_path):
    retain = ("--retain-file", project.retain)
    _refused(run("compare", "--benchmark", f"jsonl:{project.forget}"), "no retain rows", "--retain-file")
    _refused(run("compare", *retain), "world has retain rows of its own", "jsonl, text, tdec")
    _refused(run("compare", "--benchmark", f"jsonl:{tmp_path}", *retain), "cannot be read", "Is a directory")
    project.forget.write_bytes(b"\xff\xfe")
    _refused(run("compare", *project.flags), "not UTF-8 text (byte 0)")
    project.forget.write_text('{"id": "1", "question": "a?", "answer": "b"}\n' * 2)
    _refused(run("compare", *project.flags), "rows 1 and 2 share the id '1'", "give each its own")
    project.forget.write_text('{"question": "a?", "answer": 5}\n')
    _refused(run("compare", *project.flags), "line 1: 'answer' is int, not text")


def test_flags_that_would_be_ignored(run, project):
    model = ("--model", project.model)
    _refused(run("generate", "Hello?"), "needs a model", "--model")
    _refused(run("generate", *model, "--policy", "refuse", "Hello?"), "--policy refuse", "--guard")
    _refused(run("generate", *model, "--temperature", 0.5, "Hello?"), "add --sample")
    _refused(
        run("evaluate", *project.flags, "--device", "cpu", "--device-map", "auto"), "leave out the device"
    )
    _refused(run("compare", "--device-map", "auto"), "--device-map is for saved models")


def test_a_folder_without_a_report(run, tmp_path):
    _refused(run("report", tmp_path), "is no run folder", "runs/world-forget05")


def test_the_folder_of_another_run_is_left_alone(run, project, tmp_path):
    flags = ("--methods", "guard-refuse", "--max-new-tokens", 4, "--output-dir", tmp_path / "run")
    assert run("compare", *project.flags, *flags).code == 0
    before = (tmp_path / "run" / "guard-refuse" / "result.json").read_text()
    shutil.copytree(project.model, tmp_path / "other")
    _refused(run("compare", *project.flags, *flags, "--model", tmp_path / "other"), "holds a run", "other")
    shutil.copy(project.forget, tmp_path / "more.jsonl")
    more = ("--benchmark", f"jsonl:{tmp_path / 'more.jsonl'}")
    _refused(run("compare", *project.flags, *flags, *more), "holds a run with benchmark", "--output-dir")
    assert (tmp_path / "run" / "guard-refuse" / "result.json").read_text() == before


def test_windows_and_other_scripts(run, project):
    row = '{"question": "Où est né 李 Łukasz?", "answer": "à Kraków 北京 🎉."}'
    project.forget.write_bytes(f"\ufeff{row}\r\n\r\n".encode())
    ran = run("compare", *project.flags, "--methods", "guard", "--max-new-tokens", 4, "--json")
    assert ran.code == 0, ran.err
    assert (
        "北京"
        in (project.forget.parent / "cwd").glob("runs/*/target/eval/samples.jsonl").__next__().read_text()
    )
