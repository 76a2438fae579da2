import pytest
import torch

from eval.errors import ConfigError
from guard.gate import Decision
from guard.processor import GuardLogitsProcessor, MaskRecord

INNOCENT = Decision(flagged=False, score=0.1, threshold=0.5)


def forbidding(*phrases):
    return Decision(flagged=True, score=0.9, threshold=0.5, entries=(1,), phrases=phrases)


@pytest.fixture
def state(tiny_tokenizer):
    """Two rows whose next token would complete "Rome", and that token."""
    ids = tiny_tokenizer(" in Rome")["input_ids"]
    scores = torch.randn(2, len(tiny_tokenizer), generator=torch.Generator().manual_seed(0))
    scores[:, ids[-1]] = 50.0
    prompt = [1, 5, 6]
    return torch.tensor([prompt + ids[:-1]] * 2), scores, ids[-1]


def test_the_completing_token_is_masked_in_flagged_rows_only(state, tiny_tokenizer):
    input_ids, scores, last = state
    before = scores.clone()
    out = GuardLogitsProcessor([forbidding("rome"), INNOCENT], tiny_tokenizer, 3)(input_ids, scores)
    assert out[0, last] == -torch.inf
    assert torch.equal(out[1], before[1])
    assert torch.equal(scores, before), "the given scores are not changed"
    assert torch.equal(out[0][out[0] > -torch.inf], before[0][out[0] > -torch.inf])


def test_the_prompt_is_not_part_of_the_answer(state, tiny_tokenizer):
    input_ids, scores, last = state
    length = input_ids.shape[1]
    processor = GuardLogitsProcessor([forbidding("in rome")] * 2, tiny_tokenizer, length)
    assert processor(input_ids, scores)[0, last] == 50.0


def test_rows_may_be_reordered_repeated_and_dropped(state, tiny_tokenizer):
    input_ids, scores, last = state
    decisions = [forbidding("rome"), INNOCENT]
    processor = GuardLogitsProcessor(decisions, tiny_tokenizer, 3)
    whole = processor(input_ids, scores)
    assert torch.equal(processor.select([1, 0])(input_ids.flip(0), scores.flip(0))[1], whole[0])
    assert torch.equal(processor.select([1])(input_ids[1:], scores[1:])[0], whole[1])
    four = (
        torch.cat([input_ids[:1]] * 2 + [input_ids[1:]] * 2),
        torch.cat([scores[:1]] * 2 + [scores[1:]] * 2),
    )
    for beams in (GuardLogitsProcessor(decisions, tiny_tokenizer, 3, 2), processor):
        masked = beams(*four)[:, last] == -torch.inf
        assert masked.tolist() == [True, True, False, False]


def test_a_batch_of_another_size_is_refused(state, tiny_tokenizer):
    input_ids, scores, _ = state
    with pytest.raises(ConfigError, match="rows_per_prompt"):
        GuardLogitsProcessor([INNOCENT] * 3, tiny_tokenizer, 3)(input_ids, scores)
    with pytest.raises(ConfigError, match="at least 1"):
        GuardLogitsProcessor([INNOCENT], tiny_tokenizer, 3, 0)


def test_where_nothing_is_left_the_text_ends(state, tiny_tokenizer):
    input_ids, scores, last = state
    only = torch.full_like(scores, -torch.inf)
    only[:, last] = 1.0
    out = GuardLogitsProcessor([forbidding("rome"), INNOCENT], tiny_tokenizer, 3)(input_ids, only)
    assert int(out[0].argmax()) == tiny_tokenizer.eos_token_id
    assert not out.isnan().any()
    assert torch.isfinite(out[0]).sum() == 1


def test_changed_choices_are_counted_by_prefix(state, tiny_tokenizer):
    input_ids, scores, last = state
    record = MaskRecord()
    processor = GuardLogitsProcessor(
        [forbidding("rome"), INNOCENT], tiny_tokenizer, 3, record=record, keys=["a", "b"]
    )
    for _ in range(3):
        processor.select([0])(input_ids[:1], scores[:1])
    tokens = input_ids[0, 3:].tolist()
    assert record.masked_steps("a", [*tokens, 9, 9]) == 1
    assert record.masked_steps("b", tokens) == 0
    scores[:, last] = -50.0
    quiet = GuardLogitsProcessor([forbidding("rome")], tiny_tokenizer, 3)
    quiet(input_ids[:1], scores[:1])
    assert quiet.record.masked_steps(0, tokens) == 0, "banning what was not chosen changes nothing"


def test_logits_wider_than_the_tokenizer_are_fine(state, tiny_tokenizer):
    input_ids, scores, last = state
    wide = torch.cat([scores, torch.zeros(2, 7)], dim=1)
    out = GuardLogitsProcessor([forbidding("rome")] * 2, tiny_tokenizer, 3)(input_ids, wide)
    assert out.shape == wide.shape
    assert out[0, last] == -torch.inf
