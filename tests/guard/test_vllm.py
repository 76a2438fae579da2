"""The parts of the vLLM adapter that do not need vLLM, which is not installed here: nothing below runs an engine."""

import random
from types import SimpleNamespace

import pytest
import torch

from eval.errors import ConfigError
from guard.refusals import REFUSALS
from guard.restriction import restriction_for
from guard.vllm import ARGUMENT, Gatekeeper, decision_of
from guard.vllm_engine import BatchBook, SlotBook, Step, _parts, _validate

KEY = b"a secret of 16 b"
FLAGGED = "Where was Orla Vantreski born?"
INNOCENT = "Where was Neva Holcroft born?"
PROMPT = [5, 6, 7]


@pytest.fixture
def keeper(guard_):
    return Gatekeeper(guard_, KEY)


def decide(guard_, ticket, prompt=PROMPT, key=KEY):
    return decision_of(ticket, prompt, key=key, entries=guard_.store.entries)


def test_a_ticket_names_the_phrases_without_their_text(keeper, guard_):
    admission = keeper.admit(FLAGGED, PROMPT)
    ticket = admission.extra_args[ARGUMENT]
    assert admission.refusal is None
    assert set(decide(guard_, ticket).phrases) == set(guard_.check(FLAGGED).phrases)
    assert not any(word in ticket.casefold() for word in ("brelmouth", "orla", "vantreski"))
    free = decide(guard_, keeper.admit(INNOCENT, PROMPT).extra_args[ARGUMENT])
    assert not free.flagged


@pytest.mark.parametrize(
    ("ticket", "prompt", "key"),
    [
        (None, PROMPT, KEY),
        ("", PROMPT, KEY),
        ("good", [5, 6], KEY),
        ("good", PROMPT, b"another secret!!"),
        ("bad", PROMPT, KEY),
    ],
    ids=["none", "empty", "another prompt's", "another key", "changed"],
)
def test_what_is_no_valid_ticket_closes_the_row(keeper, guard_, tiny_tokenizer, ticket, prompt, key):
    good = keeper.admit(INNOCENT, PROMPT).extra_args[ARGUMENT]
    given = {"good": good, "bad": good.replace("false", "true")}.get(ticket, ticket)
    decision = decide(guard_, given, prompt, key)
    assert restriction_for(decision, tiny_tokenizer).bans_all


def test_an_older_store_in_the_engine_closes_the_row(keeper):
    ticket = keeper.admit(FLAGGED, PROMPT).extra_args[ARGUMENT]
    decision = decision_of(ticket, PROMPT, key=KEY, entries={})
    assert decision.flagged
    assert decision.phrases == ()


def test_refusals_do_not_reach_the_engine(guard_):
    admission = Gatekeeper(guard_, KEY, policy="refuse").admit(FLAGGED, PROMPT)
    assert admission.refusal in REFUSALS
    assert admission.extra_args == {}
    passes = Gatekeeper(guard_, KEY, policy="monitor").admit(FLAGGED, PROMPT)
    assert not decide(guard_, passes.extra_args[ARGUMENT]).flagged


def test_a_short_key_is_refused(guard_):
    with pytest.raises(ConfigError, match="at least 16"):
        Gatekeeper(guard_, b"short")


def test_rows_of_a_changing_batch_are_masked_as_if_alone(keeper, guard_, tiny_tokenizer):
    """Requests come, go and move at random; each step equals a book that holds the request alone."""
    draw = random.Random(0)
    book = BatchBook(KEY, guard_.store.entries, tiny_tokenizer)
    rows, width = {}, len(tiny_tokenizer)
    spelling = tiny_tokenizer(" Brelmouth Brelmouth")["input_ids"]
    for step in range(60):
        for row in [r for r in rows if draw.random() < 0.15]:
            book.remove(row)
            del rows[row]
        while len(rows) < 4:
            row = next(i for i in range(8) if i not in rows)
            kind = draw.choice(["flagged", "innocent", "none"])
            prompt = [draw.randrange(99)]
            question = {"flagged": FLAGGED, "innocent": INNOCENT}.get(kind)
            ticket = keeper.admit(question, prompt).extra_args[ARGUMENT] if question else None
            output = spelling[: draw.randrange(len(spelling))]
            book.add(row, ticket, prompt, output)
            rows[row] = (ticket, prompt, output)
        for source in sorted(rows)[::-1]:  # as the engine condenses a batch: the last row moves into a gap
            gap = next((i for i in range(source) if i not in rows), None)
            if gap is not None:
                book.move(source, gap, swaps=False)
                rows[gap] = rows.pop(source)
        first, second = draw.sample(sorted(rows), 2)
        book.move(first, second, swaps=True)
        rows[first], rows[second] = rows[second], rows[first]
        logits = torch.randn(4, width, generator=torch.Generator().manual_seed(step))
        before, masked = logits.clone(), book.apply(logits)
        for row, (ticket, prompt, output) in rows.items():
            alone = BatchBook(KEY, guard_.store.entries, tiny_tokenizer)
            alone.add(0, ticket, prompt, output)
            assert torch.equal(masked[row], alone.apply(before[row : row + 1])[0])
            if ticket is None:
                assert torch.isfinite(masked[row]).nonzero().flatten().tolist() == [
                    tiny_tokenizer.eos_token_id
                ]
            output.append(draw.choice(spelling))


def test_a_row_that_nobody_announced_is_closed(guard_, tiny_tokenizer):
    book = BatchBook(KEY, guard_.store.entries, tiny_tokenizer)
    masked = book.apply(torch.zeros(1, len(tiny_tokenizer)))
    assert torch.isfinite(masked).sum() == 1
    book.add(0, None, None, [])
    assert torch.isfinite(book.apply(torch.zeros(1, len(tiny_tokenizer)))).sum() == 1


def test_rows_of_slots_are_masked_as_if_alone(keeper, guard_, tiny_tokenizer):
    """Slots are used again, rows come in any order, and some requests have rows for drafted tokens."""
    draw = random.Random(0)
    table, prompts, tickets = {}, {}, {}
    entries = guard_.store.entries
    book = SlotBook(
        KEY,
        entries,
        tiny_tokenizer,
        lambda slot, n: (prompts[slot] + table[slot])[:n],
        lambda s: len(prompts[s]),
    )
    spelling = tiny_tokenizer(" Brelmouth Brelmouth")["input_ids"]
    bans = 0
    for step in range(60):
        for slot in range(4):
            if slot not in table or draw.random() < 0.2:
                kind = draw.choice(["flagged", "innocent", "none"])
                prompts[slot] = [draw.randrange(99) for _ in range(draw.randint(1, 4))]
                question = {"flagged": FLAGGED, "innocent": INNOCENT}.get(kind)
                admission = keeper.admit(question, prompts[slot]) if question else None
                tickets[slot] = admission.extra_args[ARGUMENT] if admission else None
                table[slot] = []
                book.add(slot, tickets[slot])
        rows = []
        for slot in draw.sample(range(4), 3):
            said = len(table[slot])
            drafted = [spelling[(said + k) % len(spelling)] for k in range(draw.randint(0, 3))]
            done = (prompts[slot] + table[slot])[-1]
            place = len(prompts[slot]) + said - 1
            rows += [(slot, k, place + k, token) for k, token in enumerate([done, *drafted])]
        logits = torch.randn(len(rows), len(tiny_tokenizer), generator=torch.Generator().manual_seed(step))
        slots, offsets, positions, fed = (list(column) for column in zip(*rows, strict=True))
        masked = book.apply(logits, Step(slots=slots, offsets=offsets, positions=positions, fed=fed))
        for row, (slot, offset, _, _) in enumerate(rows):
            alone = BatchBook(KEY, entries, tiny_tokenizer)
            alone.add(0, tickets[slot], prompts[slot], table[slot] + fed[row - offset + 1 : row + 1])
            assert torch.equal(masked[row], alone.apply(logits[row : row + 1])[0])
            bans += tickets[slot] is not None and not torch.isfinite(masked[row]).all()
        for slot in set(slots):
            table[slot].append(spelling[len(table[slot]) % len(spelling)])
    assert bans > 5, "phrases were about to be completed"


def test_a_slot_that_nobody_announced_is_closed(guard_, tiny_tokenizer):
    book = SlotBook(KEY, guard_.store.entries, tiny_tokenizer, lambda slot, n: [1] * n, lambda slot: 1)
    step = Step(slots=[3], offsets=[0], positions=[0], fed=[1])
    assert torch.isfinite(book.apply(torch.zeros(1, len(tiny_tokenizer)), step)).sum() == 1


def test_the_engine_does_not_start_unguarded_unless_told_to(monkeypatch):
    monkeypatch.delenv("GUARD_STORE", raising=False)
    with pytest.raises(ConfigError, match=r"GUARD_STORE is not set.*GUARD_STORE=off"):
        _parts(None)
    without = SimpleNamespace(extra_args=None)
    with pytest.raises(ValueError, match="admitted"):
        _validate(without)
    monkeypatch.setenv("GUARD_STORE", "off")
    assert _parts(None) is None
    _validate(without)
    monkeypatch.setenv("GUARD_STORE", "store")
    monkeypatch.delenv("GUARD_KEY", raising=False)
    with pytest.raises(ConfigError, match="GUARD_KEY"):
        _parts(None)


def test_the_engines_class_needs_vllm():
    import guard.vllm

    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError):
            guard.vllm.GuardProcessor  # noqa: B018
    else:
        pytest.skip("vLLM is installed; this test is about its absence")
    with pytest.raises(AttributeError, match="nothing"):
        guard.vllm.nothing  # noqa: B018
