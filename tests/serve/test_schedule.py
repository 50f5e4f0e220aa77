"""How many requests go into a call and how long they wait for others, against all that could be done."""

import itertools

import pytest

from pizero_jax.serve.schedule import SHARE, Times, patience, plans

SIZES = [1, 2, 4, 8]
FLAT = dict.fromkeys(SIZES, 1.0)
PROPORTIONAL = {size: float(size) for size in SIZES}
BETWEEN = {1: 1.0, 2: 1.2, 4: 1.9, 8: 3.9}
TIMES = (FLAT, PROPORTIONAL, BETWEEN)


def cost(count, calls, seconds, more):
    """Seconds waited if these calls answer `count` requests in turn, with `more` who have to wait for all of them."""
    now = total = 0.0
    for size in calls:
        now += seconds[size]
        total += now * min(size, count)
        count -= min(size, count)
    return total + now * more


@pytest.mark.parametrize("seconds", TIMES)
def test_plans_are_the_best_of_all_sequences_of_calls(seconds):
    found = plans(6, SIZES, seconds.get)
    for count in range(1, 7):
        sequences = (
            calls for n in range(1, count + 1) for calls in itertools.product(SIZES, repeat=n) if sum(calls) >= count
        )
        assert found[count].cost == pytest.approx(min(cost(count, calls, seconds, 6) for calls in sequences))


@pytest.mark.parametrize(("seconds", "first"), [
    (FLAT, [1, 2, 4, 4, 8, 8]),  # all at once
    (PROPORTIONAL, [1, 1, 1, 1, 1, 1]),  # nobody waits for the rows of others
    (BETWEEN, [1, 2, 4, 4, 4, 4]),
])  # fmt: skip
def test_how_many_go_into_the_first_call(seconds, first):
    assert [plan.first for plan in plans(6, SIZES, seconds.get)][1:] == first


@pytest.mark.parametrize(("arrival", "waits"), [(0.01, True), (0.74, True), (0.76, False), (1.5, False)])
def test_where_a_call_of_two_takes_no_longer_it_is_waited_for_three_quarters_of_it(arrival, waits):
    """Together 3 arrival + 4: one and two who come after wait for it, then all four a second. Apart 7 - arrival."""
    assert patience(1, [arrival], plans(2, SIZES, FLAT.get)) == (arrival if waits else 0)


@pytest.mark.parametrize("arrivals", [[0.01], [0.3], [0.0, 0.01, 0.02]])
def test_where_a_call_of_two_takes_twice_as_long_nobody_waits(arrivals):
    assert patience(1, arrivals, plans(4, SIZES, PROPORTIONAL.get)) == 0


def test_three_who_come_soon_are_waited_for_though_the_first_alone_would_not_be():
    best = plans(5, SIZES, {1: 1.0, 2: 2.0, 4: 2.0, 8: 2.0}.get)
    assert patience(1, [0.1], best) == 0
    assert patience(1, [0.1, 0.1, 0.1], best) == 0.1


def test_times_are_those_of_the_latest_calls_and_what_was_not_tried_costs_nothing_more():
    times = Times()
    assert times(4) == 0
    times.note(2, 1.0)
    assert [times(size) for size in SIZES] == [0, 1, 1, 1]
    times.note(4, 3.0)
    times.note(4, 2.0)
    assert times(4) == pytest.approx(3 - SHARE)
    for _ in range(50):
        times.note(4, 2.0)
    assert times(4) == pytest.approx(2, abs=1e-4)
    assert times(8) == times(4)
