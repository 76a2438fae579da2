"""The seam: scoring and generation give the same numbers however rows are batched, padded or shared."""

import numpy as np
import pytest
import torch

from eval.data.collate import collate, encode
from eval.errors import ConfigError, DataError
from eval.models import GenerationOptions, LanguageModel
from eval.models.forward import answer_logits
from eval.models.scoring import answer_logps, token_scores
from eval.types import Example


def _pairs(examples):
    pairs = [(e, a) for e in examples for a in (e.answer, e.paraphrased_answer, *e.perturbed_answers)]
    return [e for e, _ in pairs], [a for _, a in pairs]


def _plain(lm: LanguageModel, example: Example, answer: str) -> np.ndarray:
    """One row alone, the whole logits, by hand."""
    prompt = lm.tokenizer(lm.template.render(example.conversation), add_special_tokens=False)["input_ids"]
    ids = prompt + lm.tokenizer(answer, add_special_tokens=False)["input_ids"] + [lm.tokenizer.eos_token_id]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0]
    logps = torch.log_softmax(logits, -1)
    return np.array([float(logps[t - 1, ids[t]]) for t in range(len(prompt), len(ids))])


def test_scores_equal_a_row_alone_with_full_logits(tiny_lm, examples):
    asked, answers = _pairs(examples)
    scores = tiny_lm.score(asked, answers)
    for example, answer, score in zip(asked, answers, scores, strict=True):
        np.testing.assert_allclose(score.logps, _plain(tiny_lm, example, answer), atol=2e-5)


def test_shared_prompts_change_nothing_but_the_work(tiny_lm, examples):
    asked, answers = _pairs(examples[:3])
    batch = tiny_lm.collate(tiny_lm.encode(asked, answers))
    forwards = []
    handle = tiny_lm.model.model.embed_tokens.register_forward_hook(
        lambda module, args, out: forwards.append(out.shape[0] * out.shape[1])
    )
    with torch.no_grad():
        shared = tiny_lm.answer_logits(batch)
        shared_tokens, forwards = sum(forwards), []
        whole = answer_logits(tiny_lm.model, batch, tiny_lm.forward_context(batch.prompt_end))
    handle.remove()
    torch.testing.assert_close(shared, whole, atol=2e-5, rtol=1e-4)
    assert shared_tokens < batch.input_ids.numel()


def test_gradients_flow_through_answer_logits(tiny_lm, examples):
    batch = tiny_lm.collate(tiny_lm.encode(examples[:2], [e.answer for e in examples[:2]]))
    logits = tiny_lm.answer_logits(batch)
    assert logits.shape == (len(batch.targets), tiny_lm.vocab_size)
    answer_logps(logits, batch.targets, batch.rows, len(batch)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny_lm.model.parameters())


def test_moments_are_those_of_the_models_own_distribution():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator)
    targets = torch.tensor([0, 6, 3, 2, 1])
    (first, second) = token_scores(logits.clone(), targets, [2, 3], moments=True)
    log_probs = torch.log_softmax(logits, -1)
    mean = (log_probs.exp() * log_probs).sum(-1)
    variance = (log_probs.exp() * (log_probs - mean[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(np.concatenate([first.means, second.means]), mean, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([first.variances, second.variances]), variance, atol=1e-5)
    without = token_scores(logits.clone(), targets, [2, 3])
    np.testing.assert_allclose(without[1].logps, second.logps, atol=1e-6)
    assert without[0].means is None


def test_generation_equals_hugging_face_row_by_row(tiny_lm, examples):
    questions = [e.question for e in examples] + ["Where?", "Who was that, and where was she born, and when?"]
    answers = tiny_lm.generate(questions, GenerationOptions(max_new_tokens=12))
    for question, answer in zip(questions, answers, strict=True):
        prompt = tiny_lm.tokenizer(tiny_lm.template.render(Example(id="0", question=question).conversation))
        ids = torch.tensor([prompt["input_ids"]])
        out = tiny_lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        new = out[0, ids.shape[1] :].tolist()
        assert answer.token_ids == tuple(t for t in new if t != tiny_lm.tokenizer.eos_token_id)


def test_finished_rows_leave_the_batch(tiny_lm, examples):
    """Every second row ends at once: later forwards carry the others only, and no text changes."""
    sizes = []

    class EndEven:
        def __init__(self, rows):
            self.rows = rows

        def __call__(self, input_ids, scores):
            sizes.append(len(scores))
            scores = scores.clone()
            for i, row in enumerate(self.rows):
                if row % 2 == 0:
                    scores[i] = -torch.inf
                    scores[i, 2] = 0.0
                else:
                    scores[i, 2] = -torch.inf
            return scores

        def select(self, keep):
            return EndEven([self.rows[i] for i in keep])

    tiny_lm.processors = lambda prompts, length: [EndEven(list(range(len(prompts))))]
    answers = tiny_lm.generate([e.question for e in examples], GenerationOptions(max_new_tokens=6))
    assert sizes == [12, 6, 6, 6, 6, 6]
    lengths = sorted(len(a.token_ids) for a in answers)
    assert lengths == [0] * 6 + [6] * 6


def test_sampling_is_seeded_and_leaves_the_global_generator_alone(tiny_lm):
    options = GenerationOptions(max_new_tokens=8, do_sample=True, seed=3)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = tiny_lm.generate(["Where was person 1 born?"], options)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(9)
    assert tiny_lm.generate(["Where was person 1 born?"], options) == first


def test_real_eos_in_the_prompt_stays_visible_unless_ou_compat(tiny_lm, examples):
    """Pad == eos: length-based masks keep the prompt's own eos; the compatibility switch hides it."""
    rows = encode(tiny_lm.tokenizer, tiny_lm.template, examples[:2], [e.answer for e in examples[:2]])
    rows = [type(r)(r.messages, (2, *r.prompt_ids), r.answer_ids) for r in rows]
    assert collate(rows, 2).attention_mask[:, 0].tolist() == [1, 1]
    hidden = collate(rows, 2, ou_compat=True).attention_mask
    assert hidden[:, 0].tolist() == [0, 0]
    last = [len(r) - 1 for r in rows]
    assert [int(hidden[i, t]) for i, t in enumerate(last)] == [0, 0]


def test_labels_are_the_answer_and_its_end_only(tiny_lm, examples):
    batch = tiny_lm.collate(tiny_lm.encode(examples[:3], [e.answer for e in examples[:3]]))
    for i, example in enumerate(examples[:3]):
        labels = batch.labels[i][batch.labels[i] != -100]
        assert tiny_lm.tokenizer.decode(labels[:-1]) == example.answer
        assert int(labels[-1]) == tiny_lm.tokenizer.eos_token_id
        assert int((batch.labels[i] != -100).nonzero()[0]) == int(batch.prompt_end[i])


def test_empty_answer_is_refused(tiny_lm):
    example = Example(id="7", question="Where?", answer="")
    tiny_lm.template = type("T", (), {"render": lambda s, m: "Q", "completion": lambda s, m, a: a})()
    tiny_lm.template.add_special_tokens, tiny_lm.template.appends_eos = False, False
    with pytest.raises(DataError, match="'7' has an empty answer"):
        tiny_lm.score([example], [""])


@pytest.mark.parametrize(
    "bad", [{"max_new_tokens": 0}, {"temperature": 0.0}, {"top_p": 1.5}, {"num_beams": 0}], ids=str
)
def test_generation_options_are_checked(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        GenerationOptions(**bad)


def test_identity_follows_the_weights(tiny_lm):
    before = LanguageModel(tiny_lm.model, tiny_lm.tokenizer).identity
    assert LanguageModel(tiny_lm.model, tiny_lm.tokenizer, name="other").identity == before
    with torch.no_grad():
        tiny_lm.model.model.layers[1].mlp.down_proj.weight.add_(1e-3)
    assert LanguageModel(tiny_lm.model, tiny_lm.tokenizer).identity != before


def test_the_state_digest_is_never_stale(tiny_lm):
    before = tiny_lm.state_digest
    assert LanguageModel(tiny_lm.model, tiny_lm.tokenizer, name="other").state_digest == before
    assert LanguageModel(tiny_lm.model, tiny_lm.tokenizer, ou_compat=True).state_digest != before
    assert tiny_lm.identity
    with torch.no_grad():
        tiny_lm.model.model.layers[1].mlp.down_proj.weight.add_(1e-3)
    assert tiny_lm.state_digest != before
    assert LanguageModel(tiny_lm.model, tiny_lm.tokenizer, kind="edit").state_digest is None


def test_training_mode_comes_back(tiny_lm, examples):
    tiny_lm.model.train()
    tiny_lm.score(examples[:1], [examples[0].answer])
    assert tiny_lm.model.training
    assert tiny_lm.model.model.layers[0].training
