import time

import numpy as np
import pytest

from pizero_jax.data.order import PERIOD, Mixed, Order, budgets


def order(counts, sizes=None, budget=1e9, seed=(0, 0)) -> Order:
    counts = np.asarray(counts)
    return Order(seed, counts, counts * 100 if sizes is None else np.asarray(sizes), budget)


COUNTS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("budget", [1e9, 1_500, 600, 100, 1], ids=lambda b: f"budget {b:g}")
def test_each_window_comes_once_in_each_epoch(budget):
    epochs = order(COUNTS, budget=budget)(np.arange(4 * 31)).reshape(4, 31)
    for epoch in epochs:
        assert sorted(epoch) == list(range(31))
    assert all((a != b).any() for a, b in zip(epochs, epochs[1:], strict=False))


def test_an_episode_without_windows_never_comes():
    found = order([2, 0, 3, 0], sizes=[10, 10, 10, 10], budget=10)(np.arange(20))
    assert set(found) == set(range(5))


def test_places_may_be_asked_for_in_any_order():
    whole = order(COUNTS, budget=900)
    at = np.random.default_rng(0).integers(0, 10**9, size=500)
    np.testing.assert_array_equal(whole(at), [order(COUNTS, budget=900)(np.array([place]))[0] for place in at])


def test_another_seed_or_data_set_has_another_order():
    orders = [order(COUNTS, seed=seed)(np.arange(31)) for seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(found) for found in orders}) == 3


def test_a_pool_is_read_once_and_fits_its_budget():
    """Between the first and the last window of an episode lie only windows of as many episodes as the budget holds."""
    counts = np.random.default_rng(0).integers(1, 50, size=400)
    budget = 0.05 * counts.sum() * 100
    found = order(counts, budget=budget)(np.arange(counts.sum()))
    episodes = np.searchsorted(np.cumsum(counts), found, side="right")
    spans = [np.flatnonzero(episodes == episode) for episode in range(400)]
    for span in spans:
        between = np.unique(episodes[span[0] : span[-1] + 1])
        assert counts[between].sum() * 100 <= budget + counts.max() * 100
    assert np.mean([span[-1] - span[0] for span in spans if len(span) > 20]) > 0.8 * 0.05 * counts.sum()


def test_episodes_of_a_pool_come_from_everywhere_and_their_windows_are_mixed():
    counts = np.full(1_000, 50)
    found = order(counts, budget=0.02 * 50_000 * 100)(np.arange(50_000)) // 50
    for pool in found.reshape(50, 1_000):
        assert len(np.unique(pool)) == 20
        assert 150 < np.unique(pool).std() < 420  # of a uniform choice of 20 out of 1,000: 289 +- 34
    batches = found.reshape(-1, 20)
    distinct = np.mean([len(np.unique(batch)) for batch in batches])
    np.testing.assert_allclose(distinct, 20 * (1 - (1 - 1 / 20) ** 20), rtol=0.02)  # of independent draws out of 20


def test_a_data_set_within_the_budget_is_shuffled_frame_by_frame():
    """As often as in a random permutation, neighbours in the order are frames of one episode."""
    found = order(np.full(100, 50))(np.arange(5_000))
    same = np.mean(found[1:] // 50 == found[:-1] // 50)
    np.testing.assert_allclose(same, 49 / 4_999, atol=4 * np.sqrt(0.0098 / 4_999))


def test_any_step_of_millions_of_episodes_is_reached_in_the_same_time():
    counts = np.full(1_000_000, 60)
    start = time.process_time()
    Mixed([order(counts, budget=1e9)], [1.0], seed=0, batch_size=256)(10**9)
    assert time.process_time() - start < 5  # it takes 0.2 s; walking there would take hours


MIXTURE = dict(shares=[0.5, 0.3, 0.2], seed=0, batch_size=32)


def mixed(**values) -> Mixed:
    return Mixed([order(COUNTS), order([40]), order([5, 5], budget=500)], **(MIXTURE | values))


def test_shares_are_exact_over_a_period_and_never_far_away():
    rows = mixed()
    sets = np.concatenate([rows(step).sets for step in range(2 * PERIOD // 32)])
    assert np.bincount(sets[:PERIOD]).tolist() == np.bincount(sets[PERIOD:]).tolist()
    np.testing.assert_allclose(np.bincount(sets[:PERIOD]) / PERIOD, MIXTURE["shares"], atol=1 / PERIOD)
    for rows in (320, 3_200, 32_000):
        share, expected = np.bincount(sets[:rows]) / rows, np.array(MIXTURE["shares"])
        assert (abs(share - expected) < 4 * np.sqrt(expected / rows)).all()  # four deviations of independent draws


def test_each_data_set_of_a_mixture_keeps_its_epochs():
    rows = mixed()
    sets, windows = (np.concatenate(column) for column in zip(*map(rows, range(100)), strict=True))
    for number, size in enumerate((31, 40, 10)):
        seen = windows[sets == number]
        for epoch in seen[: len(seen) // size * size].reshape(-1, size):
            assert sorted(epoch) == list(range(size))


def test_a_rare_data_set_comes_at_least_once_in_a_period():
    assert mixed(shares=[1.0, 1e-9, 1e-9]).quota.tolist() == [PERIOD - 2, 1, 1]


@pytest.mark.parametrize("step", [0, 7, PERIOD // 32, 10**6, 10**12])
def test_a_step_does_not_depend_on_the_steps_before(step):
    ours, theirs = mixed(), mixed()
    for before in range(5):
        ours(before)
    for a, b in zip(ours(step), theirs(step), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_size_of_the_batch_changes_only_where_it_is_cut():
    large = [np.concatenate(c) for c in zip(*map(mixed(batch_size=48), range(4)), strict=True)]
    small = [np.concatenate(c) for c in zip(*map(mixed(batch_size=16), range(12)), strict=True)]
    for a, b in zip(large, small, strict=True):
        np.testing.assert_array_equal(a, b)


def test_budgets_go_with_the_bytes_that_a_step_reads():
    shares, windows = np.array([0.5, 0.5]), np.array([1_000, 1_000])
    np.testing.assert_allclose(budgets(shares, windows, np.array([3e6, 1e6]), 1e5), [75e3, 25e3])
    np.testing.assert_allclose(budgets(shares, windows, np.array([3e6, 1e4]), 1e5), [1e5 - 1e5 / 301, 1e5 / 301])
    np.testing.assert_allclose(budgets(np.array([0.99, 0.01]), windows, np.array([3e4, 1e6]), 1e5), [3e4, 7e4])
    np.testing.assert_allclose(budgets(shares, windows, np.array([3e4, 1e4]), 1e5), [3e4, 1e4])
