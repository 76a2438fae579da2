import json

import pytest
import torch

import finetune_baselines
from eval.errors import ArtifactError, ConfigError, DataError, UnknownNameError
from eval.models import LanguageModel
from eval.types import UnlearningData, UnlearningMethod
from finetune_baselines import METHODS, RECIPES, TrainSettings, train
from finetune_baselines.configuration import configure

FAST = {
    "preset": "paper",
    "epochs": 4,
    "batch_size": 4,
    "warmup_epochs": 0.0,
    "schedule": "constant",
    "weight_decay": 0.0,
}
LEARNING_RATE = {"full": 2e-3, "last-k": 5e-3, "lora": 1e-2}


def _settings(part):
    blocks = {"blocks": 1} if part == "last-k" else {}
    return {**FAST, **blocks, "learning_rate": LEARNING_RATE[part], "parametrization": part}


def _data(examples):
    return UnlearningData(forget=tuple(examples[:4]), retain=tuple(examples[4:]))


def _prob(lm, rows, answers=None):
    scores = lm.score(rows, answers or [row.answer for row in rows])
    return sum(score.prob for score in scores) / len(scores)


def _weights(lm):
    return {name: tensor.detach().clone() for name, tensor in lm.model.state_dict().items()}


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("part", ["full", "lora"])
@pytest.mark.parametrize("name", ["ga", "idk", "npo-kl"])
def test_each_method_unlearns_saves_loads_and_leaves_the_model_alone(tiny_lm, examples, tmp_path, name, part):
    data, start = _data(examples), _weights(tiny_lm)
    lines = ("I have no idea.",)
    data = UnlearningData(forget=data.forget, retain=data.retain, refusals=lines)
    method = METHODS[name](_settings(part))
    assert isinstance(method, UnlearningMethod)
    tuned = method.unlearn(tiny_lm, data, tmp_path)
    assert isinstance(tuned, LanguageModel)
    assert tuned.kind == method.kind == "weights"
    assert _same(start, _weights(tiny_lm))
    assert all(parameter.grad is None for parameter in tuned.model.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in _weights(tuned).values())

    forget = list(data.forget)
    if RECIPES[name].answer_kinds == ("refusal",):
        assert _prob(tuned, forget, list(lines) * 4) > 1.3 * _prob(tiny_lm, forget, list(lines) * 4)
    else:
        assert _prob(tuned, forget) < 0.95 * _prob(tiny_lm, forget)

    loaded = METHODS[name]({}).load(tiny_lm, tmp_path)
    answers = [row.answer for row in forget]
    for one, other in zip(tuned.score(forget, answers), loaded.score(forget, answers), strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-6)
    assert _same(start, _weights(tiny_lm))


@pytest.mark.parametrize("part", ["last-k", "lora"])
def test_only_the_declared_parameters_change(tiny_lm, examples, part):
    tuned = train(
        tiny_lm,
        "graddiff",
        forget=examples[:4],
        retain=examples[4:],
        parametrization=part,
        overrides=_settings(part),
    )
    after = {name: p.detach() for name, p in tuned.model.named_parameters()}
    start = {name: p.detach() for name, p in tiny_lm.model.named_parameters()}
    if part == "lora":
        base = {
            name.replace("base_model.model.", "").replace("base_layer.", ""): p for name, p in after.items()
        }
        assert all(torch.equal(base[name], start[name]) for name in start)
        assert all(p.abs().sum() > 0 for name, p in after.items() if "lora_B" in name)
    else:
        changed = {name for name in start if not torch.equal(start[name], after[name])}
        assert changed
        assert all(name.startswith("model.layers.1.") for name in changed)


def test_same_seed_same_weights(tiny_lm, examples):
    def run(seed):
        options = _settings("lora") | {"dropout": 0.1}
        return _weights(train(tiny_lm, "npo-rt", forget=examples[:4], retain=examples[4:], parametrization="lora",
                              overrides=options, seed=seed))  # fmt: skip

    assert _same(run(3), run(3))
    assert not _same(run(3), run(4))


def test_descent_on_retain_keeps_more_than_ascent_alone(tiny_lm, examples):
    def kept(name):
        tuned = train(tiny_lm, name, forget=examples[:4], retain=examples[4:], overrides=_settings("full"))
        return _prob(tuned, examples[4:])

    assert kept("graddiff") > 1.5 * kept("ga")


def test_kl_keeps_closer_to_the_start_than_none(tiny_lm, examples):
    """At the start the KL term has no gradient, so it needs some steps to pull back."""
    far = _settings("full") | {"epochs": 30}

    def moved(name, **options):
        tuned = train(tiny_lm, name, forget=examples[:4], retain=examples[4:], overrides=far | options)
        return abs(_prob(tuned, examples[4:]) - _prob(tiny_lm, examples[4:]))

    assert moved("npo-kl", retain_weight=200.0) < 0.7 * moved("npo")


def test_the_clamp_bounds_how_far_ascent_goes(tiny_lm, examples):
    far = {"epochs": 20, "learning_rate": 5e-3}
    free = train(tiny_lm, "ga", forget=examples[:4], overrides=_settings("full") | far)
    bounded = train(
        tiny_lm, "ga", forget=examples[:4], overrides=_settings("full") | far | {"max_forget_loss": 7.0}
    )
    rows = examples[:4]
    losses = [sum(s.avg_loss for s in lm.score(rows, [r.answer for r in rows])) / 4 for lm in (free, bounded)]
    assert losses[0] > losses[1] + 3 > 10.0


def test_the_stop_ends_the_run_and_says_why(tiny_lm, examples, tmp_path, caplog):
    options = _settings("full") | {"epochs": 20, "max_forget_loss": 6.5, "on_max_forget_loss": "stop"}
    METHODS["ga"](options | {"learning_rate": 5e-3}).unlearn(tiny_lm, _data(examples), tmp_path)
    training = json.loads((tmp_path / "finetune.json").read_text())["training"]
    assert training["steps"] < 20
    assert "max_forget_loss 6.5" in training["stopped"]
    assert "stopped after" in caplog.text


# --- what is refused ---------------------------------------------------------------------------------------------


def test_bad_data_is_refused_with_a_sentence(tiny_lm, examples):
    with pytest.raises(DataError, match="forget set is empty"):
        train(tiny_lm, "npo", forget=[], retain=examples)
    with pytest.raises(DataError, match="graddiff has a retain term"):
        train(tiny_lm, "graddiff", forget=examples[:2], retain=[])
    with pytest.raises(DataError, match=r"Forget row '1' equals retain row '1'"):
        train(tiny_lm, "npo", forget=examples[:2], retain=examples[1:])
    with pytest.raises(DataError, match=r"'0' has no question"):
        train(
            tiny_lm, "npo", forget=[examples[0].replace(question=None, text="A book.")], retain=examples[1:]
        )
    same_question = examples[0].replace(answer="In another place.")
    train(
        tiny_lm,
        "npo",
        forget=[examples[0]],
        retain=[same_question],
        overrides=_settings("full") | {"epochs": 1},
    )


def test_bad_settings_are_refused_with_a_sentence():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'npo'"):
        configure("nop", {}, num_parameters=0)
    with pytest.raises(
        ConfigError, match=r"Unknown setting 'learning_rat' of npo. Did you mean 'learning_rate'"
    ):
        METHODS["npo"]({"learning_rat": 1e-4})
    with pytest.raises(ConfigError, match="beta is -1"):
        METHODS["npo"]({"beta": -1.0})
    with pytest.raises(ConfigError, match="learning_rate is 'fast'"):
        METHODS["npo"]({"learning_rate": "fast"})
    with pytest.raises(ConfigError, match=r"epochs is 2.5; it must be a whole number"):
        METHODS["npo"]({"epochs": 2.5})
    with pytest.raises(ConfigError, match="beta is True"):
        METHODS["npo"]({"beta": True})
    with pytest.raises(ConfigError, match="rank has no effect with parametrization 'full'"):
        METHODS["npo"]({"rank": 4})
    with pytest.raises(ConfigError, match="blocks has no effect with parametrization 'lora'"):
        METHODS["npo"]({"blocks": 4, "parametrization": "lora"})
    with pytest.raises(UnknownNameError, match="Unknown preset 'papr'"):
        METHODS["npo"]({"preset": "papr"})


def test_a_filtered_or_edited_model_is_refused(tiny_lm, examples):
    tiny_lm.kind = "edit"
    with pytest.raises(ConfigError, match="carries an edit"):
        train(tiny_lm, "npo", forget=examples[:2])


# --- presets -------------------------------------------------------------------------------------------------------


def test_small_models_get_the_scratch_preset_and_large_ones_the_papers():
    small, large = (configure("npo", {}, num_parameters=size) for size in (2_000_000, 1_000_000_000))
    assert (small.preset, large.preset) == ("scratch", "paper")
    assert (large.train.learning_rate, large.train.epochs, large.train.batch_size) == (1e-5, 10, 32)
    assert large.recipe.tunables["beta"] == 0.1
    assert configure("npo", {"preset": "paper"}, num_parameters=0).train == large.train
    assert configure("npo", {"epochs": 2}, num_parameters=0).train.epochs == 2


def test_numbers_may_be_written_as_users_write_them():
    settings = configure("ga", {"learning_rate": "1e-4", "max_forget_loss": 5}, num_parameters=0)
    assert (settings.train.learning_rate, settings.recipe.tunables["max_forget_loss"]) == (1e-4, 5.0)
    unlimited = configure("ga", {"max_forget_loss": None}, num_parameters=0).recipe
    assert unlimited.tunables["max_forget_loss"] is None


def test_settings_given_as_an_object_replace_the_preset(tiny_lm, examples, tmp_path):
    settings = TrainSettings(learning_rate=1e-3, epochs=2, batch_size=2)
    train(
        tiny_lm, "npo", forget=examples[:2], settings=settings, overrides={"epochs": 1}, output_dir=tmp_path
    )
    shown = json.loads((tmp_path / "finetune.json").read_text())["settings"]
    assert (shown["learning_rate"], shown["epochs"], shown["preset"]) == (1e-3, 1, "scratch")


# --- artifacts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_lm, examples, tmp_path):
    METHODS["npo"](_settings("lora") | {"epochs": 1}).unlearn(tiny_lm, _data(examples), tmp_path)
    return tmp_path


def test_an_artifact_holds_no_pickle_and_no_checkpoints(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert {"finetune.json", "metrics.jsonl", "adapter/adapter_model.safetensors"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
    assert not (trained / "checkpoints").exists()


def test_an_artifact_of_another_base_is_refused(trained, tiny_lm):
    with torch.no_grad():
        tiny_lm.model.lm_head.weight.add_(0.1)
    other = LanguageModel(tiny_lm.model, tiny_lm.tokenizer)
    with pytest.raises(ArtifactError, match="another base model"):
        METHODS["npo"]({}).load(other, trained)


def test_an_artifact_of_another_method_is_refused(trained, tiny_lm):
    with pytest.raises(ArtifactError, match="written by 'npo', not by 'ga'"):
        METHODS["ga"]({}).load(tiny_lm, trained)


def test_a_half_written_artifact_is_refused(trained, tiny_lm):
    weights = trained / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="half-written"):
        METHODS["npo"]({}).load(tiny_lm, trained)
    (trained / "finetune.json").unlink()
    with pytest.raises(ArtifactError, match=r"holds no finetune\.json"):
        METHODS["npo"]({}).load(tiny_lm, trained)


def test_an_interrupted_unlearning_is_taken_up_again(tiny_lm, examples, tmp_path):
    settings = _settings("full") | {"epochs": 6, "save_steps": 2}

    def kill(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    steps = []
    with pytest.raises(KeyboardInterrupt):
        METHODS["npo"](settings).unlearn(tiny_lm, _data(examples), tmp_path, progress=kill)
    assert not (tmp_path / "finetune.json").exists()
    resumed = METHODS["npo"](settings).unlearn(
        tiny_lm, _data(examples), tmp_path, progress=lambda what, done, total: steps.append(done)
    )
    whole = METHODS["npo"](settings).unlearn(tiny_lm, _data(examples), tmp_path / "whole")
    assert steps == [5, 6]
    assert all(
        torch.allclose(_weights(resumed)[name], tensor, atol=1e-6) for name, tensor in _weights(whole).items()
    )


def test_checkpoints_of_another_run_are_not_taken_up(tiny_lm, examples, tmp_path):
    settings = _settings("full") | {"epochs": 6, "save_steps": 2}

    def kill(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS["npo"](settings).unlearn(tiny_lm, _data(examples), tmp_path, progress=kill)
    steps = []
    METHODS["npo"](settings | {"beta": 0.5}).unlearn(
        tiny_lm, _data(examples), tmp_path, progress=lambda what, done, total: steps.append(done)
    )
    assert steps == [1, 2, 3, 4, 5, 6]


def test_every_public_name_is_documented():
    for name in finetune_baselines.__all__:
        value = getattr(finetune_baselines, name)
        if callable(value):
            assert value.__doc__, name
