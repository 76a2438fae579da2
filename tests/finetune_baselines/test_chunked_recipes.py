"""The sequential recipes start from what their papers set, and their published codes' behaviours can be asked for."""

import pytest

from eval.errors import ConfigError
from finetune_baselines.configuration import configure

LARGE = 7_000_000_000
TARGETS = "q_proj,v_proj,up_proj,down_proj"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("clausen", {"learning_rate": 1e-4, "epochs": 5, "batch_size": 1, "retain_per_forget": 7, "chunk_size": 32,
                     "schedule": "linear", "rank": 16, "alpha": 64.0, "targets": TARGETS, "beta": 0.5,
                     "renyi_alpha": 0.5, "forget_weight": 1.0, "rt_weight": 1.0, "renyi_weight": 1.0}),
        ("ails-sugd", {"learning_rate": 1e-5, "epochs": 7, "batch_size": 1, "batch_of": "rows", "chunk_size": 32,
                       "retain_per_forget": 7, "forget_weight": 1.0, "retain_weight": 0.5, "rank": 16, "alpha": 64.0}),
        ("ails-agad", {"learning_rate": 5e-5, "epochs": 3, "batch_size": 16, "chunk_size": 64,
                       "annealing_fraction": 0.25, "interleaving_factor": 1.0, "rank": 16, "alpha": 32.0,
                       "targets": TARGETS}),
        ("atyaephyra", {"learning_rate": 1e-4, "epochs": 20, "batch_size": 4, "schedule": "constant", "rank": 5,
                        "alpha": 5.0, "targets": "q_proj,v_proj", "beta": 0.5, "rt_weight": 1.0, "kl_weight": 0.5}),
    ],
)  # fmt: skip
def test_large_models_start_from_the_papers_settings(name, published):
    settings = configure(name, {}, num_parameters=LARGE).as_json()
    assert {key: settings[key] for key in published} == published
    assert (settings["preset"], settings["parametrization"]) == ("paper", "lora")


def test_the_winning_run_trained_the_last_blocks():
    settings = configure(
        "ails-sugd", {"parametrization": "last-k", "blocks": 8}, num_parameters=LARGE
    ).as_json()
    assert (settings["parametrization"], settings["blocks"], settings["learning_rate"]) == ("last-k", 8, 1e-5)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("clausen", "renyi_mode", "tokens"),
        ("clausen", "split_retain", False),
        ("atyaephyra", "kl_mode", "gold_token"),
        ("ails-agad", "agad_remainder", "final_only"),
        ("npo-rt", "partner", "fixed_by_index"),
        ("npo-rt", "partner", "modulo"),
    ],
)
def test_what_published_codes_do_is_a_setting_away(name, option, value):
    assert configure(name, {option: value}, num_parameters=LARGE).as_json()[option] == value


def test_a_setting_of_another_sampling_is_refused():
    with pytest.raises(ConfigError, match="chunk_size"):
        configure("npo", {"chunk_size": 8}, num_parameters=LARGE)
