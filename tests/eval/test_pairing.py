from collections import Counter

import pytest
import torch

from eval.data.pairing import RandomPairs, draw
from eval.errors import ConfigError


def test_every_forget_row_comes_once_an_epoch_in_another_order():
    pairs = RandomPairs(num_forget=7, num_retain=5, epochs=3, seed=1)
    epochs = [[pair.forget for pair in pairs if pair.epoch == epoch] for epoch in range(3)]
    assert all(sorted(order) == list(range(7)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3


def test_every_retain_row_gets_its_turn_before_any_comes_again():
    pairs = RandomPairs(num_forget=4, num_retain=10, epochs=5, seed=3)
    dealt = [index for pair in pairs for index in pair.retain]
    assert sorted(dealt[:10]) == list(range(10))
    assert sorted(dealt[10:20]) == list(range(10))
    assert dealt[:10] != dealt[10:20]


def test_partners_change_from_epoch_to_epoch():
    pairs = RandomPairs(num_forget=20, num_retain=200, epochs=2, seed=0)
    partner = [{pair.forget: pair.retain for pair in pairs if pair.epoch == epoch} for epoch in range(2)]
    assert all(partner[0][i] != partner[1][i] for i in range(20))


def test_several_partners_are_dealt_without_replacement():
    pairs = RandomPairs(num_forget=3, num_retain=21, epochs=1, retain_per_forget=7)
    counts = Counter(index for pair in pairs for index in pair.retain)
    assert counts == Counter(range(21))


def test_an_item_depends_on_seed_and_index_alone():
    """T11: any process, in any order, with any global random state, sees the same items."""
    pairs = RandomPairs(num_forget=6, num_retain=9, epochs=4, seed=5)
    in_order = list(pairs)
    torch.manual_seed(123)
    torch.rand(3)
    shards = [RandomPairs(num_forget=6, num_retain=9, epochs=4, seed=5) for _ in range(3)]
    assert [shards[i % 3][i] for i in reversed(range(24))] == in_order[::-1]
    assert list(RandomPairs(num_forget=6, num_retain=9, epochs=4, seed=6)) != in_order


def test_it_leaves_the_global_generators_alone():
    state = torch.random.get_rng_state()
    list(RandomPairs(num_forget=6, num_retain=9, epochs=2))
    assert torch.equal(state, torch.random.get_rng_state())


def test_no_retain_rows_means_no_partners():
    assert all(pair.retain == () for pair in RandomPairs(num_forget=3, num_retain=0, epochs=1))


@pytest.mark.parametrize("change", [{"num_forget": 0}, {"epochs": 0}, {"retain_per_forget": 0}])
def test_numbers_out_of_range_are_named(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        RandomPairs(**{"num_forget": 1, "num_retain": 1, "epochs": 1, **change})


def test_draw_is_even_enough():
    counts = Counter(draw(4, 0, "x", i) for i in range(4000))
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) < 1150  # mean 1000, standard deviation 27
