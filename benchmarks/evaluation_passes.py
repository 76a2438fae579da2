"""One scoring pass for all metrics against one pass for each: rows as they come, 32 at a time, no prompt shared.

Both sides read the same model through the same output head (logits at answer positions only) and turn logits into
scores with the same function, so the ratio is that of the passes alone. The list of passes is that of an evaluator in
which each metric asks the model for what it needs; truth ratios and normalised probabilities read what other metrics
asked for, as in OpenUnlearning. The gradient-norm attack is the same work on both sides and is left out; generation is
a row of its own, against Hugging Face's ``generate``, 32 prompts at a time. Times are processor seconds of
one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from harness import RESULTS, SHARED, millions, report

from eval.artifacts import read_json

T = TypeVar("T")

NAMES = ("forget01", "forget10")
BATCH = 32
TOLERANCE = 1e-5
TEMPLATE = r"Question: {question}\nAnswer:\n"
GOLD_METRICS = {
    "forget": (
        "Q_A_Prob",
        "exact_memorization",
        "extraction_strength",
        "loss",
        "zlib",
        "min_k",
        "min_k_plus_plus",
    ),
    "holdout": ("loss", "zlib", "min_k", "min_k_plus_plus"),
    "retain": ("Q_A_Prob",),
    "ra": ("Q_A_Prob",),
    "wf": ("Q_A_Prob",),
}
"""Metrics that pass over the true answers of a split."""


def passes(splits: dict[str, Sequence[Any]]) -> Iterator[tuple[str, list[Any], list[str]]]:
    """Yield the name, rows and answers of each metric's pass."""
    for split, rows in splits.items():
        for metric in GOLD_METRICS[split]:
            yield f"{split} {metric}", list(rows), [row.answer for row in rows]
        if split == "holdout":
            continue
        if all(row.paraphrased_answer for row in rows):
            yield f"{split} Q_A_PARA_Prob", list(rows), [row.paraphrased_answer for row in rows]
        wrong = [(row, answer) for row in rows for answer in row.perturbed_answers]
        yield f"{split} Q_A_PERT_Prob", [row for row, _ in wrong], [answer for _, answer in wrong]


def one_pass(lm: Any, rows: Sequence[Any], answers: Sequence[str], *, moments: bool) -> list[Any]:
    """Score rows in the order they come, ``BATCH`` at a time, each with its own prompt."""
    from eval.models.forward import evaluating
    from eval.models.scoring import token_scores

    encoded = lm.encode(rows, answers)
    scores: list[Any] = []
    with evaluating(lm.model):
        for start in range(0, len(encoded), BATCH):
            chunk = encoded[start : start + BATCH]
            batch = replace(lm.collate(chunk), prompt_group=None)
            lengths = [len(row.answer_ids) for row in chunk]
            scores += token_scores(lm.answer_logits(batch), batch.targets, lengths, moments=moments)
    return scores


def once_per_metric(lm: Any, splits: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {
        name: one_pass(lm, rows, answers, moments=name.endswith("plus_plus"))
        for name, rows, answers in passes(splits)
    }


def answers_of(splits: dict[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Return every answer of each split: what is scored once."""
    return {
        split: [a for row in rows for a in (row.answer, row.paraphrased_answer, *row.perturbed_answers) if a]
        if split != "holdout"
        else [row.answer for row in rows]
        for split, rows in splits.items()
    }


def once(lm: Any, splits: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Plan every answer once, as the runner does, and hand the scores to the passes' names."""
    from eval.measures.plan import Plan

    plan = Plan()
    for split, rows in splits.items():
        plan.score(
            f"{split} gold", rows, [[row.answer] for row in rows], moments=split in ("forget", "holdout")
        )
        if split != "holdout":
            others = [[a for a in (row.paraphrased_answer, *row.perturbed_answers) if a] for row in rows]
            plan.score(f"{split} others", rows, others)
    found = plan.scores(lm)
    scores: dict[str, list[Any]] = {}
    for name, rows, _ in passes(splits):
        split, metric = name.split()
        others = found.get(f"{split} others", [])
        if metric == "Q_A_PARA_Prob":
            scores[name] = [row[0] for row in others]
        elif metric == "Q_A_PERT_Prob":
            skipped = 1 if f"{split} Q_A_PARA_Prob" in scores else 0
            scores[name] = [score for row in others for score in row[skipped:]]
        else:
            scores[name] = [row[0] for row in found[f"{split} gold"]]
        assert len(scores[name]) == len(rows)
    return scores


def largest_difference(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> float:
    """Return the largest difference of any answer's probability or mean loss; hits must be equal."""
    assert ours.keys() == theirs.keys()
    worst = 0.0
    for name, scores in ours.items():
        for own, other in zip(scores, theirs[name], strict=True):
            assert (own.hits == other.hits).all(), name
            worst = max(worst, abs(own.prob - other.prob), abs(own.avg_loss - other.avg_loss))
    return worst


def by_hugging_face(lm: Any, rows: Sequence[Any], *, batch: int = BATCH) -> list[str]:
    """Answer prompts as they come, ``batch`` at a time, until the last of a batch has ended."""
    import torch

    from eval.data.collate import encode_prompts, pad_left, pad_token_id

    prompts = encode_prompts(lm.tokenizer, lm.template, [row.conversation for row in rows])
    texts: list[str] = []
    for start in range(0, len(prompts), batch):
        ids, mask = pad_left(prompts[start : start + batch], pad_token_id(lm.tokenizer))
        with torch.no_grad():
            out = lm.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=200,
                do_sample=False,
                pad_token_id=pad_token_id(lm.tokenizer),
                eos_token_id=list(lm.eos_ids),
            )
        texts += lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the processor seconds of one call and what it returned."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def measure(name: str) -> list[dict[str, Any]]:
    """Compare both sides on one forget set: scoring, then generation."""
    from eval.data import load_benchmark
    from eval.models import load

    folder = SHARED / "scratch_tofu_forget01"
    lm = load(folder / "target", template=TEMPLATE, device="cpu")
    holdout = folder / "holdout01.json"  # 40 rows nobody was taught, whatever the forget set
    splits = dict(load_benchmark(f"tofu:{name}", data_dir=SHARED / "tofu", holdout=holdout).splits)
    asked = [row for split, members in splits.items() if split != "holdout" for row in members]
    warm = {"forget": splits["forget"][:8]}
    once(lm, warm), once_per_metric(lm, warm)
    scoring, ours = timed(lambda: once(lm, splits))
    scoring_passes, theirs = timed(lambda: once_per_metric(lm, splits))
    worst = largest_difference(ours, theirs)
    assert worst <= TOLERANCE, f"the numbers differ by {worst}"
    generating, said = timed(lambda: [answer.text for answer in lm.generate(asked)])
    generating_alike, others = timed(lambda: by_hugging_face(lm, asked))
    equal = sum(a == b for a, b in zip(said, others, strict=True))

    def row(what: str, seconds: float, other: float, agreement: str) -> dict[str, Any]:
        model = f"{millions(lm.model):.1f}M"
        return {
            "benchmark": f"tofu:{name}",
            "what": what,
            "model": model,
            "seconds": seconds,
            "other seconds": other,
            "ratio": seconds / other,
            "agreement": agreement,
        }

    num_answers, num_passed = (
        sum(len(texts) for texts in answers_of(splits).values()),
        sum(len(rows) for _, rows, _ in passes(splits)),
    )
    return [
        row(
            f"scoring {num_answers} answers, {num_passed} passed",
            scoring,
            scoring_passes,
            f"within {worst:.1e}",
        ),
        row("generating", generating, generating_alike, f"{equal} of {len(asked)} texts equal"),
        row("both", scoring + generating, scoring_passes + generating_alike, ""),
    ]


def main(names: list[str]) -> None:
    import torch

    if not (SHARED / "scratch_tofu_forget01").is_dir():
        print("skipped: the shared data folder is not beside this checkout")
        return
    torch.set_num_threads(1)
    before = RESULTS / "evaluation_passes.json"
    rows = read_json(before)["rows"] if names and before.is_file() else []
    for name in names or NAMES:
        rows = [row for row in rows if row["benchmark"] != f"tofu:{name}"] + measure(name)
    report("evaluation_passes", rows, note="processor seconds of one thread; other: one pass for each metric")


if __name__ == "__main__":
    main(sys.argv[1:])
