"""Commands under a launcher: what several processes may do, and what is refused before anything is loaded."""

import pytest


@pytest.mark.parametrize(
    ("variables", "command", "said"),
    [
        ({"WORLD_SIZE": "2"}, ("compare",), "unlearn compare runs in one process, but 2 were started"),
        ({"WORLD_SIZE": "2"}, ("train", "guard"), "guard runs in one process, but 2 were started"),
        ({"ACCELERATE_USE_FSDP": "true"}, ("train", "npo-rt"), "sharded weights (FSDP) is not supported"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, ("train", "npo-rt"), "sharded weights (DeepSpeed)"),
    ],
)
def test_what_a_launcher_may_not_start(run, project, monkeypatch, variables, command, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = run(*command, *project.flags)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err.partition("Error: ")[2]
