"""What measures ask of a model and make of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from eval.data import Benchmark, load_benchmark
from eval.data.documents import continuation, document, raw_question
from eval.errors import DataError
from eval.measures import Choices, Extraction, Generated, Membership, Perplexity
from eval.metrics import recompute
from eval.metrics.gradnorm import gradient_norms, no_gradients
from eval.models import Generation, GenerationOptions, LanguageModel
from eval.runner import evaluate
from eval.types import Example, Message

SHORT = GenerationOptions(max_new_tokens=3)


def made(splits: dict[str, Sequence[Example]], *measures: Any) -> Benchmark:
    rows = {name: tuple(given) for name, given in splits.items()}
    return Benchmark(name="toy", forget=(), retain=(), splits=rows, measures=measures)


def texts(part: str, count: int) -> list[Example]:
    places = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Dakar"]
    return [document(f"{part}{i}", f"Person {i} was born in {places[i]} as {part}.") for i in range(count)]


def test_raw_text_is_given_to_a_chat_model_as_it_stands(tiny_lm: LanguageModel) -> None:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(tiny_lm.tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = [
        continuation("0", "Person 1 was", "born in Rome."),
        raw_question("1", "Where was person 1 born?\nAnswer: ", "Rome"),
        document("2", "Person 2 was born in Lima."),
    ]
    going_on, asked, whole = tiny_lm.encode(rows, [str(row.answer) for row in rows])
    eos = tiny_lm.tokenizer.eos_token_id
    assert going_on.prompt_ids + going_on.answer_ids == ids("Person 1 was born in Rome.")
    assert asked.prompt_ids + asked.answer_ids == (
        *ids("Where was person 1 born?\nAnswer: "),
        *ids("Rome"),  # apart: " Rome" is one token, and the prompt's tokens must not depend on the answer
        eos,
    )
    assert whole.prompt_ids + whole.answer_ids == ids("Person 2 was born in Lima.")
    assert len(whole.prompt_ids) == 1
    templated = tiny_lm.encode([Example(id="3", question="Why?", answer="So.")], ["So."])[0]
    assert templated.prompt_ids == ids("Question: Why?\nAnswer:\n")
    assert Message("text", "x").is_prompt
    assert not Message("assistant", "x").is_prompt


def test_a_documents_scores_equal_those_of_the_plain_model(tiny_lm: LanguageModel) -> None:
    row = document("0", "Person 2 was born in Lima.")
    score = tiny_lm.score([row], [row.answer])[0]
    ids = torch.tensor([tiny_lm.tokenizer(row.text)["input_ids"]])
    with torch.no_grad():
        logps = tiny_lm.model(ids).logits[0, :-1].log_softmax(-1)
    expected = logps.gather(1, ids[0, 1:, None])[:, 0]
    assert score.logps.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    result = evaluate(
        tiny_lm, made({"text": [row, row.replace(id="1")]}, Perplexity("x_perplexity", split="text"))
    )
    assert result.results["x_perplexity"].value == pytest.approx(float((-expected).mean().exp()), rel=1e-5)


def test_documents_and_long_prompts_do_not_meet_in_one_huge_batch(
    tiny_lm: LanguageModel, monkeypatch: Any
) -> None:
    from eval.models import batching

    sizes: list[tuple[int, int, int]] = []
    real = tiny_lm.collate

    def collate(rows: Sequence[Any]) -> Any:
        prompts = {row.prompt_ids for row in rows}
        tokens = sum(len(row.answer_ids) for row in rows)
        sizes.append((len(rows), tokens, len(prompts) * max(map(len, prompts))))
        return real(rows)

    tiny_lm.collate = collate  # type: ignore[method-assign]
    monkeypatch.setattr(batching, "LOGITS_BYTES", 4 * tiny_lm.vocab_size * 60)
    monkeypatch.setattr(batching, "INPUT_TOKENS", 90)
    rows = [
        document(str(i), f"Person {i % 4} was born in Rome, says {'a b c d '[: 2 * (i % 4)]}.")
        for i in range(9)
    ]
    alone = [tiny_lm.score([row], [row.answer])[0].sum_logp for row in rows]
    sizes.clear()
    together = [score.sum_logp for score in tiny_lm.score(rows, [str(row.answer) for row in rows])]
    assert together == pytest.approx(alone, rel=1e-4)
    assert max(tokens for _, tokens, _ in sizes) <= 60
    sizes.clear()
    asked = [continuation(str(i), f"Question {i}: " + "where was person 1 born? " * 4, "A") for i in range(6)]
    tiny_lm.score([row for row in asked for _ in "ABCD"], list("ABCD") * 6)
    assert len(sizes) > 1
    assert {rows % 4 for rows, _, _ in sizes} == {0}  # the letters of one question stay together
    assert all(tokens <= 90 or rows == 4 for rows, _, tokens in sizes)
    sizes.clear()
    several = Example(id="0", question="Who?", answer="x")
    tiny_lm.score(
        [several] * 7, [f"A long answer, number {i}, which goes on and on and on." for i in range(7)]
    )
    assert [rows for rows, *_ in sizes] == [7]


def test_the_likeliest_letter_is_chosen(tiny_lm: LanguageModel) -> None:
    rows = [
        continuation(str(i), f"Question {i}\nA. a\nB. b\nC. c\nD. d\nAnswer:", "ABCD"[i]).replace(
            choices=tuple("abcd"), choice=i
        )
        for i in range(4)
    ]
    done = evaluate(tiny_lm, made({"mc": rows}, Choices("mc_acc", split="mc")))
    for i, item in done.log["mc_acc"]["value_by_index"].items():
        scores = tiny_lm.score([rows[int(i)]] * 4, list("ABCD"))
        best = int(np.argmax([score.sum_logp for score in scores]))
        assert item["logps"] == pytest.approx([score.sum_logp for score in scores], rel=1e-5)
        assert (item["chosen"], item["score"]) == (best, float(best == int(i)))
    chosen = [item["chosen"] for item in done.log["mc_acc"]["value_by_index"].values()]
    assert done.results["mc_acc"].value == sum(c == i for i, c in enumerate(chosen)) / 4
    absent = evaluate(tiny_lm, made({"mc": rows}, Choices("mmlu_acc", split="mmlu"))).results["mmlu_acc"]
    assert (absent.value, absent.reason) == (None, "the benchmark has no mmlu split")


def naive_extraction(lm: LanguageModel, tokens: list[int], n: int) -> tuple[float, float]:
    """TDEC's definitions, prefix by prefix, without a cache or any shortcut."""

    def best(prefix: list[int]) -> int:
        with torch.no_grad():
            return int(lm.model(torch.tensor([prefix])).logits[0, -1].argmax())

    def grams(values: list[int]) -> list[tuple[int, ...]]:
        return [tuple(values[i : i + n]) for i in range(len(values) - n + 1)]

    length, overlaps = len(tokens), 0.0
    for t in range(1, length - n + 1):
        said: list[int] = []
        while len(said) < length - t and (token := best(tokens[:t] + said)) != lm.tokenizer.eos_token_id:
            said.append(token)
        found = grams(said)
        overlaps += sum(gram in set(grams(tokens[t:])) for gram in found) / len(found) if found else 0.0
    hits = [best(tokens[:t]) == tokens[t] for t in range(1, length)]
    return overlaps / (length - n), sum(hits) / (length - 1)


def test_extraction_equals_the_naive_definition(tiny_lm: LanguageModel) -> None:
    from eval.models.finetune import FinetuneSettings, finetune

    length, n = 14, 3
    rows = [
        document(str(i), f"Person {i} was born in Rome or Oslo or Lima or {i} other places.")
        for i in range(3)
    ]
    finetune(tiny_lm, rows[:2], FinetuneSettings(epochs=40, lr=5e-3))
    done = evaluate(tiny_lm, made({"t": rows}, Extraction("forget", split="t", length=length, n=n)))
    for i, row in enumerate(rows):
        tokens = tiny_lm.tokenizer(row.text)["input_ids"][:length]
        likelihood, accuracy = naive_extraction(tiny_lm, tokens, n)
        assert done.log["forget_EL3"]["value_by_index"][str(i)]["score"] == pytest.approx(likelihood), i
        assert done.log["forget_MA"]["value_by_index"][str(i)]["score"] == pytest.approx(accuracy), i
    values = [item["score"] for item in done.log["forget_EL3"]["value_by_index"].values()]
    assert 0 < min(values) < max(values)  # neither all known nor nothing
    short = evaluate(
        tiny_lm,
        made({"t": [*rows, document("s", "Short.")]}, Extraction("forget", split="t", length=length, n=n)),
    )
    assert short.results["forget_MA"].extra == {"dropped": 1.0}


def test_generations_are_cut_at_stops_and_limited_by_the_lower_limit(tiny_lm: LanguageModel) -> None:
    limits: list[tuple[int, int]] = []

    def generate(prompts: Sequence[Any], options: GenerationOptions, **_: Any) -> list[Generation]:
        limits.append((options.max_new_tokens, len(prompts)))
        return [Generation(text="Rome\n\nQuestion: next?", is_finished=False) for _ in prompts]

    tiny_lm.generate = generate  # type: ignore[method-assign]
    rows = [raw_question(str(i), f"Question {i}?", "Rome") for i in range(2)]
    measures = (
        Generated("a_ROUGE", split="a", max_new_tokens=32, stops=("\n\n", "Question:")),
        Generated("b_ROUGE", split="b", max_new_tokens=128, match="exact"),
        Generated("c_ROUGE", split="c", max_new_tokens=32),
    )
    benchmark = made({"a": rows, "b": rows, "c": rows}, *measures)
    done = evaluate(tiny_lm, benchmark)
    assert limits == [(32, 4), (128, 2)]
    assert done.results["a_ROUGE"].value == 1.0
    assert [s["generation"] for s in done.samples[:2]] == ["Rome", "Rome"]
    assert done.log["b_ROUGE"]["value_by_index"]["0"]["score"] == 0.0
    limits.clear()
    evaluate(tiny_lm, benchmark, options=GenerationOptions(max_new_tokens=64))
    assert limits == [(32, 4), (64, 2)]


def test_gradient_norms_are_means_over_tensors_without_the_end_token(tiny_lm: LanguageModel) -> None:
    row = Example(id="0", question="Who?", answer="Person 1 was born in Rome.")
    (encoded,) = tiny_lm.encode([row], [row.answer])
    ids = torch.tensor([encoded.prompt_ids + encoded.answer_ids])
    start, stop = len(encoded.prompt_ids), ids.shape[1] - 1
    tiny_lm.model.zero_grad()
    logps = tiny_lm.model(ids).logits[0].log_softmax(-1)
    (-torch.stack([logps[t - 1, ids[0, t]] for t in range(start, stop)]).mean()).backward()
    norms = [float(p.grad.norm()) for p in tiny_lm.model.parameters()]
    tiny_lm.model.zero_grad()
    frozen = next(iter(tiny_lm.model.parameters()))
    frozen.requires_grad_(False)
    tiny_lm.model.train()
    measured = gradient_norms(tiny_lm, [row], [row.answer])
    assert measured == [pytest.approx(sum(norms) / len(norms), rel=1e-4)]
    assert tiny_lm.model.training
    assert not frozen.requires_grad
    assert all(p.grad is None for p in tiny_lm.model.parameters())
    tiny_lm.kind = "suppression"
    assert str(no_gradients(tiny_lm)).startswith("not comparable")


def test_perplexity_under_a_filter_is_not_comparable(tiny_lm: LanguageModel) -> None:
    benchmark = made({"text": texts("in", 2)}, Perplexity("forget_perplexity", split="text"))
    plain = evaluate(tiny_lm, benchmark).results["forget_perplexity"]
    tiny_lm.kind = "suppression"
    filtered = evaluate(tiny_lm, benchmark).results
    assert plain.reason is None
    assert str(filtered["forget_perplexity"].reason).startswith("not comparable: a filter")
    assert "forget_quality" not in filtered  # what a benchmark does not measure is not mentioned either


def test_all_six_attacks_on_documents(tiny_lm: LanguageModel) -> None:
    benchmark = made({"in": texts("in", 4), "out": texts("out", 3)}, Membership(forget="in", holdout="out"))
    alone = evaluate(tiny_lm, benchmark)
    assert alone.results["mia_reference"].value is None
    assert "--reference" in str(alone.results["mia_reference"].reason)
    row = benchmark.splits["in"][1]
    score = tiny_lm.score([row], [row.answer])[0]
    items = alone.log["mia_min_k"]["forget"]["value_by_index"]
    lowest = np.sort(score.logps)[
        : int(0.4 * len(score.logps))
    ]  # a document's last token is no end token: all count
    assert items["1"]["score"] == pytest.approx(-float(lowest.mean()), rel=1e-5)
    again = evaluate(tiny_lm, benchmark, reference=alone.log, gradnorm=False)
    assert again.results["mia_reference"].value == 0.5  # the same model: every difference is 0
    assert again.results["mia_gradnorm"].value is None
    assert again.results["privleak"].value == pytest.approx(0.0)
    fewer = dict(alone.log) | {"mia_loss": {"forget": alone.log["mia_loss"]["holdout"], "holdout": {}}}
    assert "3 forget rows" in str(
        evaluate(tiny_lm, benchmark, reference=fewer).results["mia_reference"].reason
    )


LUME_TERMS = {"forget": (0.2, 0.1, 0.4, 0.0, 0.5, 0.3), "retain": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)}


def test_lume_scores_by_hand(tiny_lm: LanguageModel, tmp_path: Any) -> None:
    benchmark = load_benchmark("lume:mini")
    done = evaluate(tiny_lm, benchmark, options=SHORT, output_dir=tmp_path)
    terms = {}
    for part in ("forget", "retain"):
        for task in ("Task1", "Task2", "Task3"):
            sc = [s["rougeL_recall"] for s in done.samples if s["split"] == f"{part}_{task}_regurgitation"]
            qa = [
                float(s["generation"].strip().lower() == s["ground_truth"].strip().lower())
                for s in done.samples
                if s["split"] == f"{part}_{task}_knowledge"
            ]
            terms |= {f"{part}_{task}_regurgitation": np.mean(sc), f"{part}_{task}_knowledge": np.mean(qa)}
    for name, value in terms.items():
        assert done.results[name].value == pytest.approx(value), name
    assert done.results["lume_task_aggregate"].value == 0.0  # nothing is answered exactly
    area = done.results["mia_loss"].value
    assert done.results["lume_mia_score"].value == pytest.approx(1 - 2 * abs(area - 0.5))
    parts = [done.results[name].value for name in ("lume_task_aggregate", "lume_mia_score", "mmlu_acc")]
    assert done.results["lume_final_score"].value == pytest.approx(sum(parts) / 3)
    values = {name: result.value for name, result in done.results.items()}
    assert recompute(tmp_path) == values
    assert "## forget_Task2_knowledge (9)" in (tmp_path / "eval" / "samples.md").read_text()


def test_a_retain_log_of_another_benchmark_is_refused_before_the_model_runs(tiny_lm: LanguageModel) -> None:
    benchmark = load_benchmark("muse:mini")
    tiny_lm.score_batch = None  # type: ignore[method-assign, assignment]
    entry = {"value_by_index": {"0": {"rougeL_recall": 1.0, "ground_truth": "x", "generation": "x"}}}
    with pytest.raises(DataError, match="holds none of what muse:mini asks"):
        evaluate(tiny_lm, benchmark, reference={"forget_Q_A_ROUGE": entry})
    with pytest.raises(DataError, match="1 rows of forget_knowmem_ROUGE where this evaluation has 40"):
        evaluate(tiny_lm, benchmark, reference={"forget_knowmem_ROUGE": entry})
    rows = {str(i): {"ground_truth": "x", "generation": ""} for i in range(40)}
    with pytest.raises(DataError, match="Only 0 of 40 forget rows"):
        evaluate(tiny_lm, benchmark, reference={"forget_knowmem_ROUGE": {"value_by_index": rows}})


def test_lume_on_its_real_rows_equals_the_official_scorers_steps(
    tiny_lm: LanguageModel, shared_data: Any
) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    benchmark = load_benchmark("lume:12", data_dir=shared_data / "lume")
    benchmark = replace(benchmark, measures=tuple(m for m in benchmark.measures if isinstance(m, Generated)))
    truth = {row.messages: str(row.answer) for rows in benchmark.splits.values() for row in rows}

    def says(text: str, number: int) -> str:  # right, right but for case, cut short, or with a word more
        half = " ".join(text.split()[: max(1, len(text.split()) // 2)])
        return (text, text.upper(), half, f"{text} indeed")[number % 4]

    said = {messages: says(text, i) for i, (messages, text) in enumerate(truth.items())}

    def generate(prompts: Sequence[Example], *_: Any, **__: Any) -> list[Generation]:
        return [Generation(text=said[row.messages]) for row in prompts]

    tiny_lm.generate = generate  # type: ignore[method-assign]
    results = evaluate(tiny_lm, benchmark).results

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    terms = []
    for part in ("forget", "retain"):
        for task in ("Task1", "Task2", "Task3"):
            regurgitated = [
                scorer.score(str(row.answer), said[row.messages])["rougeL"].recall
                for row in benchmark.splits[f"{part}_{task}_sc"]
            ]
            known = [
                said[row.messages].strip().lower() == str(row.answer).strip().lower()
                for row in benchmark.splits[f"{part}_{task}_qa"]
            ]
            for values in (regurgitated, known):
                mean = sum(values) / len(values)
                terms.append(1 - mean if part == "forget" else mean)
    assert len(terms) == 12
    assert min(terms) > 0
    assert results["lume_task_aggregate"].value == pytest.approx(
        12 / sum(1 / term for term in terms), rel=1e-9
    )
    assert results["lume_final_score"].value is None
    assert "missing: lume_mia_score, mmlu_acc" in str(results["lume_final_score"].reason)
