import functools
import resource
import threading
import time

import numpy as np
import pytest

from pizero_jax.data.episodes import Cache, Episode, Episodes, Table


def entry(size: int) -> dict:
    return {"camera": [bytes(size)]}


def test_an_entry_is_read_once_and_then_at_hand():
    cache, reads = Cache(100), []
    for _ in range(3):
        assert cache.get(("a",), 10, lambda: reads.append(1) or entry(10)) == entry(10)
    assert len(reads) == 1
    assert cache.held == 10


def test_what_was_used_least_recently_goes_first():
    cache, reads = Cache(30), []

    def get(key):
        cache.get((key,), 10, lambda: reads.append(key) or entry(10))

    for key in "abcadb":  # d takes the place of b, and b that of c
        get(key)
    assert reads == list("abcdb")
    get("a")
    get("c")
    assert reads == list("abcdbc")


def test_the_budget_is_never_exceeded_but_for_a_single_entry():
    cache, rng, sizes = Cache(1_000), np.random.default_rng(0), {}
    for key in rng.integers(0, 200, 5_000).tolist():
        size = sizes.setdefault(key, int(rng.integers(1, 400)))
        cache.get((key,), size, lambda size=size: entry(size))
        assert cache.held <= 1_000
    cache.get(("large",), 5_000, lambda: entry(5_000))
    assert cache.held == 5_000
    cache.get(("small",), 10, lambda: entry(10))
    assert cache.held == 10


def run(count: int, work) -> list:
    """What each of `count` threads gives, or raises."""
    found = [None] * count

    def at(i):
        try:
            found[i] = work(i)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=at, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return found


def test_threads_that_ask_for_one_key_at_the_same_time_share_one_reading():
    cache, reads = Cache(100), []

    def read():
        reads.append(1)
        time.sleep(0.2)  # until all threads wait
        return entry(10)

    found = run(8, lambda _: cache.get(("a",), 10, read))
    assert len(reads) == 1
    assert all(pictures is found[0] for pictures in found)
    assert cache.held == 10


def test_other_keys_do_not_wait_for_a_slow_one():
    cache, go_on = Cache(100), threading.Event()

    def slow():
        assert go_on.wait(timeout=60)
        return entry(1)

    def work(i):
        if i == 0:
            return cache.get(("slow",), 1, slow)
        cache.get(("quick",), 1, lambda: entry(1))
        go_on.set()
        return None

    assert run(2, work) == [entry(1), None]


def test_an_error_reaches_all_who_wait_and_is_not_kept():
    cache, reads = Cache(100), []

    def fail():
        reads.append(1)
        time.sleep(0.2)
        raise OSError("disk")

    assert [str(error) for error in run(4, lambda _: cache.get(("a",), 10, fail))] == ["disk"] * 4
    assert len(reads) == 1
    assert cache.held == 0
    assert cache.get(("a",), 10, lambda: entry(10)) == entry(10)


def test_threads_never_get_another_keys_pictures_and_the_budget_holds():
    cache = Cache(500)

    def work(thread):
        rng = np.random.default_rng(thread)
        for key in rng.integers(0, 40, 2_000).tolist():
            assert cache.get((key,), 50, lambda key=key: {"camera": [b"%d" % key]}) == {"camera": [b"%d" % key]}
            assert cache.held <= 550  # another thread may be about to let one go
        return "done"

    assert run(8, work) == ["done"] * 8
    assert cache.held <= 500


def episodes(cache: Cache, text: bytes, count: int = 3) -> Episodes:
    steps = [Episode({}, np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), ("",), i, np.ones(2, bool))
             for i in range(count)]  # fmt: skip
    table = Table.of(steps, [100] * count, [[i] for i in range(count)])
    return Episodes(table, lambda i: {"camera": [text + b"%d" % i] * 2}, lambda i: f"file {i}", ["camera"], cache)


def test_splits_that_share_a_cache_keep_their_own_pictures():
    """Also where one is gone and another lies in its place in memory."""
    cache, table = Cache(1e6), episodes(Cache(1), b"").table
    for number in range(50):
        read = functools.partial(lambda number, i: {"camera": [b"split %d, episode %d" % (number, i)]}, number)
        pictures = [episode.images["camera"][0] for episode in Episodes(table, read, str, ["camera"], cache)]
        assert pictures == [b"split %d, episode %d" % (number, i) for i in range(3)]


def test_pictures_are_read_only_when_one_is_looked_at():
    def read(_):
        raise AssertionError("nobody asked")

    table = episodes(Cache(1), b"").table
    episode = Episodes(table, read, str, ["camera"])[1]
    assert list(episode.images) == ["camera"]
    assert len(episode) == 2
    with pytest.raises(KeyError):
        episode.images["other"]
    with pytest.raises(AssertionError, match="nobody asked"):
        episode.images["camera"]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_episode_outside_is_refused(index):
    with pytest.raises(IndexError):
        episodes(Cache(1), b"")[index]


def test_memory_stays_within_the_budget():
    """Two thousand entries of 1 MB pass through a cache of 20 MB: kept, they would be 2 GB."""
    cache, before = Cache(20e6), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key in range(2_000):
        cache.get((key,), 10**6, lambda key=key: {"camera": [key.to_bytes(2, "big") * 500_000]})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB, at its highest
    assert grown < 200_000
