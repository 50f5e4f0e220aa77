"""How many requests go into a call, and how long the first of them waits."""

import asyncio
import time

import pytest

from pizero_jax.serve.batching import Batcher, fitting


@pytest.mark.parametrize(("count", "expected"), [
    (1, 1), (2, 2),
    (3, 3),  # fills three quarters of a call for 4
    (4, 4),
    (5, 4),  # one waits, rather than that three rows are computed for nothing
    (6, 6), (8, 8), (30, 8),
])  # fmt: skip
def test_calls_are_three_quarters_full(count, expected):
    assert fitting(count, [1, 2, 4, 8]) == expected


def test_a_call_that_is_too_large_is_better_than_none():
    assert fitting(1, [4, 8]) == 1


def calls_of(patience: float, expected: int, pauses: list[float], seconds: float = 0.02) -> list[int]:
    """Sizes of the calls of so many seconds when jobs come after these pauses; the first one when a call has begun."""
    calls = []

    def work(kind, requests):
        calls.append(len(requests))
        time.sleep(seconds)
        return requests

    async def ask():
        batcher = Batcher(work, sizes=[1, 2, 4], patience=patience, limit=8, expected=lambda seconds: expected)
        jobs = [asyncio.ensure_future(batcher.submit("kind", -1))]
        while not calls:
            await asyncio.sleep(0.001)
        for i, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            jobs.append(asyncio.ensure_future(batcher.submit("kind", i)))
        assert await asyncio.gather(*jobs) == list(range(-1, len(pauses)))
        await batcher.close()

    asyncio.run(ask())
    assert calls[0] == 1  # nothing is known of how long a call takes: nobody waits
    return calls[1:]


@pytest.mark.parametrize(("patience", "expected", "pause", "calls"), [
    (100.0, 2, 0.1, [2]),
    (1.0, 2, 0.5, [1, 1]),  # longer than is waited
    (100.0, 1, 0.5, [1, 1]),  # nobody else is expected
])  # fmt: skip
def test_a_job_waits_for_one_that_is_expected_by_a_share_of_a_call(patience, expected, pause, calls):
    assert calls_of(patience, expected, [0.1, pause]) == calls


def test_who_came_during_a_call_waits_for_those_whom_it_answered():
    """The first comes when a call of 0.5 s begins, the other 0.25 s after its end."""
    assert calls_of(patience=1.0, expected=2, pauses=[0.0, 0.75], seconds=0.5) == [2]
