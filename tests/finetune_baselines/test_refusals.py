"""What fine-tuning refuses, in one sentence and before anything is lost."""

from dataclasses import replace

import pytest

from eval.errors import ArtifactError, ConfigError
from finetune_baselines.method import METHODS, train

# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_another_method_is_refused_with_a_sentence(tiny_lm, examples, tmp_path):
    from eval.types import UnlearningData

    data = UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))
    options = {"epochs": 6, "save_steps": 2, "batch_size": 4}

    def kill(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS["npo"](options).unlearn(tiny_lm, data, tmp_path, progress=kill)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(ArtifactError, match="unfinished run of 'npo', which 'graddiff' cannot take up"):
        METHODS["graddiff"](options).unlearn(tiny_lm, data, tmp_path)
    assert kept == sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    checkpoint = tmp_path / "checkpoints" / "checkpoint-4"
    with pytest.raises(ArtifactError, match="unfinished run of 'npo'"):
        train(tiny_lm, "ga", forget=examples[:4], overrides=options, resume_from=checkpoint)
    with pytest.raises(ArtifactError, match="There is no checkpoint"):
        train(tiny_lm, "npo", forget=examples[:4], overrides=options, resume_from=tmp_path / "nothing")
    steps = []
    train(tiny_lm, "npo", forget=examples[:4], retain=examples[4:], overrides=options, resume_from=checkpoint,
          progress=lambda what, done, total: steps.append(done))  # fmt: skip
    assert steps == [5, 6]


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_sharded_training_is_refused_before_anything_happens(tiny_lm, examples, monkeypatch, variable, runs):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match="sharded weights"):
        runs.npo(tiny_lm, runs.rows(tiny_lm, examples))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("graddiff", {"forget_weight": 0}, "graddiff has no forget term left: forget_weight is 0"),
        ("ails-agad", {"forget_weight": 0}, "ails-agad has no forget term left"),
        ("clausen", {"forget_weight": 0}, "clausen has no forget term left"),
        ("gnm", {"ga_weight": 0, "gnm_weight": 0}, "ga_weight, rm_weight, gnm_weight and klf_weight are 0"),
    ],
)
def test_a_method_that_would_forget_nothing(tiny_lm, examples, name, change, said):
    """Whatever the order of rows: phases of forget rows alone would have nothing to compute."""
    with pytest.raises(ConfigError, match=said):
        train(tiny_lm, name, forget=examples[:4], retain=examples[4:], overrides=change)


def test_a_reporter_that_is_not_installed_is_named(tiny_lm, examples, runs, monkeypatch):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["wandb"])
    with pytest.raises(ConfigError, match=r"'tensorboard', whose package is not installed; .* none, wandb\."):
        runs.npo(tiny_lm, runs.rows(tiny_lm, examples), replace(runs.settings, report_to="wandb,tensorboard"))
