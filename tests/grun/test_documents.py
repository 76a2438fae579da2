"""Documents in WMDP's form: cut into beginnings and continuations, and steered by grun-rmu."""

import pytest
import torch

import grun
from eval.data.documents import document
from eval.data.wmdp import load
from eval.types import Example
from grun.documents import with_prompts


def test_a_document_is_cut_at_20_50_and_80_percent():
    """Ten words w0..w9: prompts of 2, 5 and 8 words, each followed by 2."""
    text = "  ".join(f"w{i}" for i in range(10))
    question = Example(id="q", question="Who?", answer="She.")
    rows = with_prompts([document("d", text, subject="S"), question])
    assert [(row.conversation[-1].content.split(), row.answer.split()) for row in rows[:3]] == [
        ([f"w{i}" for i in range(n)], [f"w{n}", f"w{n + 1}"]) for n in (2, 5, 8)
    ]
    assert rows[0].conversation[-1].content == "w0  w1  "  # joined again, it is the document
    assert [row.id for row in rows] == ["d@0.2", "d@0.5", "d@0.8", "q"]
    assert rows[3] is question
    assert [row.answer for row in with_prompts([document("s", "only three words")])] == ["three"]


@pytest.mark.slow
def test_rmu_on_the_miniature_steers_its_corpus_and_opens_on_its_questions(make_lm):
    from eval.data.registry import BenchmarkOptions

    bench = load("mini", BenchmarkOptions())
    lm = make_lm()
    edited = grun.train(
        lm,
        forget=bench.forget,
        retain=bench.retain,
        loss="rmu",
        overrides={
            "epochs": 3,
            "min_steps": 1,
            "batch_size": 4,
            "gate_fit_steps": 150,
            "learning_rate": 3e-2,
        },
    )
    rows = with_prompts(bench.forget)

    def losses(model, some):
        return torch.tensor(
            [score.avg_loss for score in model.score(some, [str(row.answer) for row in some])]
        )

    assert (losses(edited, rows) - losses(lm, rows)).abs().mean() > 0.05
    kept = with_prompts(bench.retain)
    assert (losses(edited, kept) - losses(lm, kept)).abs().mean() < 0.02
    asked, general = (edited.gate(bench.splits[name])[:, 0] for name in ("wmdp_mini", "mmlu"))
    assert asked.mean() > general.mean() + 0.5
