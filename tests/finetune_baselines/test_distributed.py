"""Two processes on gloo train as one does: partners, shares of the loss, chunks, perturbation, sharded weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eval.errors import ConfigError
from finetune_baselines import RECIPES, train
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.sharding import check_shardable

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, os, sys
from pathlib import Path
from eval.models import load
from eval.types import Example
from finetune_baselines import RECIPES, TrainRows, TrainSettings, encode_rows, run_training
from finetune_baselines.monitoring import Monitor
from finetune_baselines.objective import RecipeObjective
from finetune_baselines.perturbation import Perturbation
from finetune_baselines.sampling import Chunks, Pairs

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
texts = json.loads((folder / "rows.json").read_text())
rows = [Example(id=str(i), question=question, answer=answer) for i, (question, answer) in enumerate(texts)]
forget, retain = rows[:5], rows[5:]
settings = TrainSettings(learning_rate=1e-3, epochs=2, batch_size=4, warmup_epochs=0.0, schedule="constant")
histories = {}
for name, sampling, rho in (
    ("pairs", Pairs(), 0.0),
    ("alternating", Pairs(alternate=True), 0.0),
    ("chunks", Chunks(chunk_size=3), 0.0),
    ("perturbed", Pairs(), 0.3),
):
    lm = load(folder / "model", device="cpu")
    gold = encode_rows(lm, forget, [r.answer for r in forget], reference=lm)
    kept = encode_rows(lm, retain, [r.answer for r in retain])
    objective = RecipeObjective(RECIPES["npo-rt"])
    objective.perturbation = Perturbation(rho=rho)

    def measure(lm, step, folder):
        return {"loss": sum(s.avg_loss for s in lm.score(forget, [r.answer for r in forget]))}

    where = out.parent / f"{out.stem}-{name}"
    result = run_training(
        lm, objective, TrainRows(forget=[(row,) for row in gold], retain=kept), settings, sampling=sampling,
        output_dir=where, monitor=Monitor(measure=measure, every=2),
    )
    histories[name] = [dict(entry) for entry in result.history]
if os.environ.get("RANK", "0") == "0":
    out.write_text(json.dumps(histories))
"""
DIVERGING = """
import os, sys
from pathlib import Path
from eval.models import load
from eval.types import Example
from finetune_baselines import RECIPES, TrainingDivergedError, TrainRows, TrainSettings, encode_rows, run_training
from finetune_baselines.objective import RecipeObjective

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
rank = os.environ["RANK"]
lm = load(folder / "model", device="cpu")
rows = [Example(id=str(i), question=f"Who is {i}?", answer=f"Person {i}.") for i in range(4)]

class Poisoned(RecipeObjective):
    def __call__(self, lm, batch, module):
        terms = super().__call__(lm, batch, module)
        poison = float("nan") if batch.step == 2 and rank == "1" else 1.0
        return {name: term * poison for name, term in terms.items()}

settings = TrainSettings(learning_rate=1e-3, epochs=4, batch_size=4, warmup_epochs=0.0)
data = TrainRows(forget=[(row,) for row in encode_rows(lm, rows, [r.answer for r in rows])])
try:
    run_training(lm, Poisoned(RECIPES["ga"]), data, settings, output_dir=out)
except TrainingDivergedError as error:
    (folder / f"said-{rank}.txt").write_text(str(error))
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _launcher() -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def _run(command, folder, code=0):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


def _save_script(folder, text):
    (folder / "script.py").write_text(text)
    return folder / "script.py"


@pytest.mark.slow
def test_two_processes_train_as_one_does(tiny_lm, examples, tmp_path):
    """T11; five forget rows and steps of four leave a process without rows in the last one."""
    tiny_lm.save(tmp_path / "model")
    rows = [[row.question, row.answer + " Yes." * i] for i, row in enumerate(examples)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    script = _save_script(tmp_path, SCRIPT)
    histories = []
    for name, launcher in (("one", [sys.executable]), ("two", _launcher())):
        _run([*launcher, script, tmp_path, tmp_path / f"{name}.json"], tmp_path)
        histories.append(json.loads((tmp_path / f"{name}.json").read_text()))
    for kind, steps in (("pairs", 3), ("alternating", 6), ("chunks", 3), ("perturbed", 3)):
        one, two = (history[kind] for history in histories)
        assert len(one) == len(two) == steps
        for first, second in zip(one, two, strict=True):
            assert first["terms"] == pytest.approx(second["terms"], rel=1e-4, abs=1e-6)
            assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-3)
        lines, values = [], []
        for name in ("one", "two"):
            folder = tmp_path / f"{name}-{kind}"
            lines.append((folder / "metrics.jsonl").read_text().splitlines())
            values.append([json.loads(line) for line in (folder / "dynamics.jsonl").read_text().splitlines()])
        assert len(lines[0]) == len(lines[1]) == steps  # one process writes
        assert [v["step"] for v in values[0]] == [v["step"] for v in values[1]]
        for first, second in zip(*values, strict=True):
            assert first["values"] == pytest.approx(second["values"], rel=1e-4)
    assert histories[0]["perturbed"][0]["grad_norm"] != pytest.approx(
        histories[0]["pairs"][0]["grad_norm"], rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_spread", [False, True])
def test_a_nan_on_one_process_stops_all_and_keeps_the_state_before_it(tiny_lm, tmp_path, is_spread):
    tiny_lm.save(tmp_path / "model")
    launcher = _accelerate(*SHARDED) if is_spread else _launcher()
    _run([*launcher, _save_script(tmp_path, DIVERGING), tmp_path, tmp_path / "out"], tmp_path)
    said = [(tmp_path / f"said-{rank}.txt").read_text() for rank in (0, 1)]
    assert all("diverged at step 3 of 4" in text for text in said)
    assert "'forget_ga'" in said[1]
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-2" / "trainable.safetensors").is_file()


def _accelerate(*flags) -> list[str]:
    """The launcher as users type it; on a CPU ``--multi_gpu`` means several processes (``--cpu`` starts one)."""
    said = ["--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    port = f"--main_process_port={_free_port()}"
    return [Path(sys.executable).parent / "accelerate", "launch", *flags, *said, port]


def _training_flags(lm, examples, folder) -> list[str]:
    lm.save(folder / "model")
    for name, part in (("forget", examples[:4]), ("retain", examples[4:])):
        lines = [json.dumps({"id": row.id, "question": row.question, "answer": row.answer}) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return ["-m", "unlearn", "train", "npo-rt", "--model", folder / "model", "--device", "cpu",
            "--benchmark", f"jsonl:{folder / 'forget.jsonl'}", "--retain-file", folder / "retain.jsonl",
            "--set", "epochs=2", "--set", "batch_size=4", "--eval-every", "1", "--json"]  # fmt: skip


SHARDED = ["--use_fsdp", "--fsdp_version=2"]
SPREAD = """
import json, os, sys
from pathlib import Path
from eval.models import load
from eval.types import Example
from finetune_baselines import RECIPES, TrainRows, TrainSettings, encode_rows, run_training, train
from finetune_baselines.monitoring import Monitor
from finetune_baselines.objective import RecipeObjective

class Interrupted(Exception):
    pass

def interrupt(what, done, total):
    if what == "training" and done == 3:
        raise Interrupted

def measure(lm, step, folder):
    texts = [generation.text for generation in lm.generate([row.question for row in forget])]
    scores = lm.score(forget, [row.answer for row in forget])
    return {"loss": sum(s.avg_loss for s in scores), "letters": sum(map(len, texts)), "nearness": -abs(step - 2)}

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
texts = json.loads((folder / "rows.json").read_text())
rows = [Example(id=str(i), question=question, answer=answer) for i, (question, answer) in enumerate(texts)]
forget, retain = rows[:5], rows[5:]
settings = TrainSettings(
    learning_rate=1e-3, epochs=2, batch_size=4, accumulation=2, warmup_epochs=0.0, schedule="constant", save_steps=1
)
found = {}
for name, method, parametrization in (
    ("full", "npo-rt", "full"), ("lora", "npo-rt", "lora"), ("kl", "npo-kl", "full"), ("lora-kl", "npo-kl", "lora")
):
    lm = load(folder / "model", device="cpu")
    def run(**options):
        return train(
            lm, method, forget=forget, retain=retain, settings=settings, parametrization=parametrization,
            output_dir=out / name, monitor=Monitor(measure=measure, every=1, criterion="nearness"), **options
        )
    try:
        run(progress=interrupt)
    except Interrupted:
        newest = max((out / name / "checkpoints").glob("checkpoint-*"))
    tuned = run()
    found[name] = {
        "resumed from": newest.name,
        "scores": [s.avg_loss for s in tuned.score(forget, [row.answer for row in forget])],
    }

lm = load(folder / "model", device="cpu")
sizes = []
data = TrainRows(forget=[(row,) for row in encode_rows(lm, forget, [r.answer for r in forget])])
count = lambda *_: sizes.append(sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in lm.model.parameters()))
run_training(lm, RecipeObjective(RECIPES["ga"]), data, settings, progress=count)
found["held"] = [sizes[0], sum(p.numel() for p in lm.model.parameters())]
if os.environ.get("RANK", "0") == "0":
    (out / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_spread_weights_train_pause_and_come_back_as_one_processs(tiny_lm, examples, tmp_path):
    """Interrupted after the second of three steps, taken up again; the second step's weights are the best."""
    tiny_lm.save(tmp_path / "model")
    rows = [[row.question, row.answer + " Yes." * i] for i, row in enumerate(examples)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    script = _save_script(tmp_path, SPREAD)
    found = []
    for name, launcher in (("one", [sys.executable]), ("two", _accelerate(*SHARDED))):
        (tmp_path / name).mkdir()
        _run([*launcher, script, tmp_path, tmp_path / name], tmp_path)
        found.append(json.loads((tmp_path / name / "found.json").read_text()))
    one, two = found
    assert one["held"][0] == one["held"][1] == two["held"][1]
    assert two["held"][0] <= 0.55 * two["held"][1]
    for kind in ("full", "lora", "kl", "lora-kl"):
        assert one[kind]["resumed from"] == two[kind]["resumed from"] == "checkpoint-2"
        assert one[kind]["scores"] == pytest.approx(two[kind]["scores"], rel=1e-5)
        for file, keys in (("metrics.jsonl", ("loss", "grad_norm")), ("dynamics.jsonl", ("values",))):
            lines = [
                [json.loads(line) for line in (tmp_path / name / kind / file).read_text().splitlines()]
                for name in ("one", "two")
            ]
            assert len(lines[0]) == len(lines[1]) == (3 if file == "metrics.jsonl" else 4)
            for first, second in zip(*lines, strict=True):
                for key in keys:
                    assert first[key] == pytest.approx(second[key], rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("launch", [["--multi_gpu"], SHARDED], ids=["whole", "sharded"])
def test_accelerate_launch_with_two_processes_gives_one_processs_losses_and_artifact(
    tiny_lm, examples, tmp_path, launch
):
    """Each of the two sees half of every batch of 4; the one process sees it whole."""
    from safetensors.torch import load_file

    flags = _training_flags(tiny_lm, examples, tmp_path)
    weights, losses, measured = [], [], []
    for name, command in (
        ("one", [sys.executable, *flags]),
        ("two", [*_accelerate(*launch), *flags]),
    ):
        done = _run([*command, "--output-dir", tmp_path / name], tmp_path)
        assert json.loads(done.stdout[done.stdout.index("{") :])["method"] == "npo-rt"  # printed once
        steps = (tmp_path / name / "npo-rt" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in steps])
        weights.append(load_file(tmp_path / name / "npo-rt" / "model" / "model.safetensors"))
        lines = (tmp_path / name / "npo-rt" / "dynamics.jsonl").read_text().splitlines()
        measured.append([json.loads(line) for line in lines])
        assert [record["step"] for record in measured[-1]] == [0, 1, 2]
        assert not (tmp_path / name / "npo-rt" / "checkpoints").exists()
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        assert value.sub(weights[1][key]).abs().max() < 1e-4, key
    assert len(losses[0]) == 2
    for one, two in zip(*measured, strict=True):
        assert one["values"]["forget_Q_A_Prob"] == pytest.approx(two["values"]["forget_Q_A_Prob"], rel=1e-3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_launch_with_the_first_version_of_fsdp_is_refused_in_one_sentence(tiny_lm, examples, tmp_path):
    """It is what accelerate takes where no version is said."""
    flags = _training_flags(tiny_lm, examples, tmp_path)
    done = _run([*_accelerate("--use_fsdp"), *flags, "--output-dir", tmp_path / "out"], tmp_path, code=1)
    assert "sharded weights (FSDP) is not supported but for FSDP version 2" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("sam-npo", {}, "an inner perturbation"),
        ("npo-rt", {"parametrization": "adalora"}, r"\(adalora\)"),
    ],
)
def test_what_does_not_go_together_with_spread_weights(tiny_lm, examples, monkeypatch, method, change, said):
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("finetune_baselines.method.join", lambda device: None)
    with pytest.raises(
        ConfigError, match=rf"\(FSDP\) does not go together with .*{said}.*; launch with plain"
    ):
        train(tiny_lm, method, forget=examples[:4], retain=examples[4:], overrides={"epochs": 1, **change})


def test_quantized_weights_and_interventions_are_not_spread(tiny_lm):
    lm, objective = tiny_lm.copied(), RecipeObjective(RECIPES["ga"])
    check_shardable(lm, objective, None)
    with pytest.raises(ConfigError, match="together with an intervention"):
        check_shardable(lm, objective, torch.nn.Linear(2, 2))
    codes = torch.zeros(2, dtype=torch.int8)
    lm.model.register_parameter("codes", torch.nn.Parameter(codes, requires_grad=False))
    with pytest.raises(ConfigError, match=r"together with quantized weights \(qlora\)"):
        check_shardable(lm, objective, None)
