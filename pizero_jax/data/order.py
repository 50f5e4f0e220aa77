"""Which windows make up the batch of a step: a pure function of (seed, step, mixture), not of the number of hosts.

Nothing is drawn in sequence, so that the batch of any step costs the same.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

# First words of the seeds of the draws, which must not share streams; the loader's rows have 1.
_FRAMES, _EPISODES, _SETS = 0, 2, 3

PERIOD = 1 << 16  # rows in which a mixture has its proportions exactly, to within one row


class Order:
    """The order in which the windows of one data set come: every window once in each epoch.

    An epoch shuffles the episodes and cuts them, in that order, into pools of about the same number of bytes, as few as
    the budget allows. The windows of a pool are shuffled among each other, all together, and pools follow one another.
    A data set that fits the budget is one pool: its epochs are permutations of all windows.

    Args:
      seed: of the run, and the number of the data set in its mixture.
      counts: windows of each episode.
      sizes: bytes that each episode takes in memory.
      budget: bytes of a pool.
    """

    def __init__(
        self, seed: tuple[int, int], counts: Int64[np.ndarray, "E"], sizes: Int64[np.ndarray, "E"], budget: float
    ):
        self._seed, self._counts, self._sizes = seed, counts, sizes
        self._first = np.cumsum(counts) - counts
        self.windows = int(counts.sum())
        self.pools = min(len(counts), max(1, -(-int(sizes.sum()) // max(1, int(budget)))))
        self._epoch = functools.lru_cache(2)(self._shuffled_episodes)  # a batch may straddle two
        self._pool = functools.lru_cache(2)(self._shuffled_windows)

    def __call__(self, places: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """The windows at these places of the endless sequence of epochs."""
        epochs, places = places // self.windows, places % self.windows
        found = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            starts = self._epoch(epoch)[1]
            pools = np.searchsorted(starts, places[here], side="right") - 1
            for pool in np.unique(pools).tolist():
                now = here[pools == pool]
                found[now] = self._pool(epoch, pool)[places[now] - starts[pool]]
        return found

    def _shuffled_episodes(self, epoch: int) -> tuple[Int64[np.ndarray, "E"], Int64[np.ndarray, "pools"]]:
        """Episodes in the order of an epoch, and the place at which each pool begins."""
        order = np.random.default_rng((_EPISODES, *self._seed, epoch)).permutation(len(self._counts))
        return order, np.concatenate([[0], np.cumsum(self._counts[order])])[self._cuts(order)[:-1]]

    def _cuts(self, order: Int64[np.ndarray, "E"]) -> Int64[np.ndarray, "pools+1"]:
        """The episodes at which pools begin, and the end."""
        before = np.cumsum(self._sizes[order]) - self._sizes[order]
        shares = np.arange(self.pools) * (self._sizes.sum() / self.pools)
        return np.append(np.searchsorted(before, shares), len(order))

    def _shuffled_windows(self, epoch: int, pool: int) -> Int64[np.ndarray, "windows"]:
        order = self._epoch(epoch)[0]
        cuts = self._cuts(order)
        episodes = order[cuts[pool] : cuts[pool + 1]]
        counts = self._counts[episodes]
        windows = np.repeat(self._first[episodes] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return np.random.default_rng((_FRAMES, *self._seed, epoch, pool)).permutation(windows)


class Rows(NamedTuple):
    """The rows of a global batch: the number of the data set, and the window in it."""

    sets: Int64[np.ndarray, "B"]
    windows: Int64[np.ndarray, "B"]


class Mixed:
    """The rows of each step's global batch, of several data sets.

    Every `PERIOD` rows hold each data set in its share, to within a row, in an order of their own.

    Args:
      orders: one for each data set.
      shares: of the rows, positive; they need not add up to 1.
    """

    def __init__(self, orders: Sequence[Order], shares: Sequence[float], *, seed: int, batch_size: int):
        self.orders, self._seed, self._batch_size = orders, seed, batch_size
        self.quota = _quota(np.asarray(shares, np.float64))
        self._period = functools.lru_cache(2)(self._shuffled_sets)

    def __call__(self, step: int) -> Rows:
        at = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        sets, places = np.empty(len(at), np.int64), np.empty(len(at), np.int64)
        for period in np.unique(at // self.quota.sum()).tolist():
            here = at // self.quota.sum() == period
            order, rank = self._period(period)
            row = at[here] % self.quota.sum()
            sets[here] = order[row]
            places[here] = period * self.quota[order[row]] + rank[row]
        windows = np.empty(len(at), np.int64)
        for number in np.unique(sets).tolist():
            here = sets == number
            windows[here] = self.orders[number](places[here])
        return Rows(sets, windows)

    def _shuffled_sets(self, period: int) -> tuple[Int64[np.ndarray, "rows"], Int64[np.ndarray, "rows"]]:
        """The data set of each row of a period, and how many rows of that data set came before it."""
        sets = np.repeat(np.arange(len(self.quota)), self.quota)
        sets = np.random.default_rng((_SETS, self._seed, period)).permutation(sets)
        rank = np.empty(len(sets), np.int64)
        rank[np.argsort(sets, kind="stable")] = np.concatenate([np.arange(count) for count in self.quota])
        return sets, rank


def _quota(shares: Float64[np.ndarray, "sets"]) -> Int64[np.ndarray, "sets"]:
    """Whole rows of each data set in a period, by largest remainders, at least one each."""
    exact = shares / shares.sum() * PERIOD
    rows = np.maximum(np.floor(exact), 1).astype(np.int64)
    missing = PERIOD - int(rows.sum())
    rows[np.argsort(rows - exact, kind="stable")[: max(missing, 0)]] += 1
    rows[np.argmax(rows)] += min(missing, 0)
    return rows


def budgets(
    shares: Float64[np.ndarray, "sets"], windows: Int64[np.ndarray, "sets"], sizes: Int64[np.ndarray, "sets"],
    budget: float,
) -> Float64[np.ndarray, "sets"]:  # fmt: skip
    """Bytes of the pools of each data set, `budget` in all.

    Pools of data sets that do not fit last equally many steps: their bytes go with the share of the rows and the bytes
    of a window. A data set that needs less than that gets what it needs.

    Args:
      windows, sizes: windows and bytes of each data set.
    """
    wanted, left, rates = np.zeros(len(shares)), budget, shares * sizes / np.maximum(windows, 1)
    open_ = np.ones(len(shares), bool)
    while open_.any():
        offer = left * rates / max(rates[open_].sum(), 1e-300)
        fits = open_ & (sizes <= offer)
        if not fits.any():
            wanted[open_] = offer[open_]
            break
        wanted[fits], open_ = sizes[fits], open_ & ~fits
        left -= sizes[fits].sum()
    return wanted
