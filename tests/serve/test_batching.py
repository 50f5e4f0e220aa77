"""Which requests share a call when clients ask again and again."""

import asyncio
import gc
import math
import threading
import time

import pytest

from pizero_jax.serve import batching
from pizero_jax.serve.batching import Batcher, Gone, Pace
from pizero_jax.serve.schedule import Times


class Known(dict):
    """Seconds of a call by its size, known beforehand."""

    __call__ = dict.__getitem__

    def note(self, size, seconds):
        pass


def calls_of(clients: int, rounds: int, times: Known) -> list[int]:
    """Sizes of the calls for clients that all ask at the same moment, and again 10 ms after each answer."""
    calls = []

    def work(kind, requests):
        calls.append(len(requests))
        time.sleep(0.05)
        return [2 * request for request in requests]

    async def ask(batcher, number):
        pace = Pace()
        for i in range(rounds):
            assert await batcher.submit("kind", 10 * i + number, pace) == 2 * (10 * i + number)
            await asyncio.sleep(0.01)

    async def all_ask():
        batcher = Batcher(work, sizes=list(times), limit=8, times=lambda kind: times)
        await asyncio.gather(*(ask(batcher, number) for number in range(clients)))
        batcher.close()

    asyncio.run(all_ask())
    assert sum(calls) == clients * rounds
    return calls


def test_where_calls_take_as_long_for_many_all_come_into_one():
    calls = calls_of(clients=4, rounds=6, times=Known({1: 1.0, 2: 1.0, 4: 1.0}))
    assert calls.count(4) >= 4  # nothing was known of the clients when the first asked


def test_where_calls_take_longer_for_many_each_goes_by_itself():
    assert calls_of(clients=4, rounds=4, times=Known({1: 1.0, 2: 2.5, 4: 6.0})) == [1] * 16


def test_what_calls_take_is_noted_for_the_size_that_they_were_filled_up_to():
    times = Times()

    async def ask():
        batcher = Batcher(lambda kind, requests: time.sleep(0.05) or requests, sizes=[2, 4], limit=8,
                          times=lambda kind: times)  # fmt: skip
        await batcher.submit("kind", 1, Pace())
        batcher.close()

    asyncio.run(ask())
    assert times(1) == 0
    assert times(2) >= 0.05


@pytest.mark.parametrize(("answered", "pause", "asks", "arrival"), [
    (-0.1, 0.25, False, 0.15),
    (-0.5, 0.2, False, 0.3),  # it is late
    (-0.1, 0.2, True, math.inf),  # its request is there
    (math.inf, math.inf, False, math.inf),  # it has never asked
])  # fmt: skip
def test_when_a_client_comes(answered, pause, asks, arrival):
    assert Pace(answered, pause, asks).arrival(now=0.0) == pytest.approx(arrival)


def test_the_pause_of_a_client_is_from_its_answer_to_its_next_request(monkeypatch):
    pace, now = Pace(), [10.0]
    monkeypatch.setattr(batching.time, "perf_counter", lambda: now[0])
    for now[0], asks in ((10.0, True), (11.0, False), (11.25, True), (12.0, False)):
        pace.ask("kind") if asks else pace.answer()
    assert pace.arrival(12.0) == pytest.approx(0.25)


def test_a_client_that_is_gone_is_expected_no_longer():
    async def ask():
        batcher = Batcher(lambda kind, requests: requests, sizes=[1], limit=1, times=lambda kind: Times())
        pace = Pace()
        await batcher.submit("kind", 1, pace)
        there = len(batcher._paces)
        del pace
        await asyncio.sleep(0.01)  # until the worker has let go of the job
        gc.collect()
        batcher.close()
        return there, len(batcher._paces)

    assert asyncio.run(ask()) == (1, 0)


@pytest.mark.parametrize(("kinds", "waits"), [("aa", True), ("ab", False)])
def test_clients_are_waited_for_that_ask_for_the_same(monkeypatch, kinds, waits):
    waited, patience = [], batching.patience
    monkeypatch.setattr(batching, "patience", lambda *args: waited.append(patience(*args)) or waited[-1])

    async def ask(batcher, kind, think):
        pace = Pace()
        for _ in range(6):
            await batcher.submit(kind, 1, pace)
            await asyncio.sleep(think)

    async def all_ask():
        known = Known({1: 0.05, 2: 0.05})
        batcher = Batcher(lambda kind, requests: time.sleep(0.05) or requests, sizes=[1, 2], limit=8,
                          times=lambda kind: known)  # fmt: skip
        await asyncio.gather(*(ask(batcher, kind, think) for kind, think in zip(kinds, (0.02, 0.03), strict=True)))
        batcher.close()

    asyncio.run(all_ask())
    assert any(waited) == waits


def test_what_a_client_that_left_has_asked_is_not_computed():
    async def ask():
        went, go_on = [], threading.Event()

        def work(kind, requests):
            went.extend(requests)
            assert go_on.wait(60)
            return requests

        batcher = Batcher(work, sizes=[1, 8], limit=8, times=lambda kind: Times())
        stays, leaves = Pace(), Pace()
        asked = [asyncio.create_task(batcher.submit("kind", i, pace)) for i, pace in enumerate((stays, leaves, stays))]
        while not went:
            await asyncio.sleep(0.001)
        waiting = [i for i in range(3) if i not in went]
        later = asyncio.create_task(batcher.submit("kind", 3, leaves))
        await asyncio.sleep(0)
        batcher.leave(leaves)
        go_on.set()
        answers = await asyncio.gather(*asked, later, return_exceptions=True)
        with pytest.raises(Gone):
            await batcher.submit("kind", 4, leaves)
        batcher.close()
        return waiting, went, answers

    waiting, went, answers = asyncio.run(ask())
    assert 3 not in went
    assert isinstance(answers[3], Gone)
    assert (1 in went) != (1 in waiting)
    assert [answers[0], answers[2]] == [0, 2]
