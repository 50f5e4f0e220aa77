"""The windows of a mixture, and the order in which training sees them: enough to name samples, not to decode them."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from pizero_jax.config import DataConfig, TrainConfig
from pizero_jax.data import formats, mixture
from pizero_jax.data.episodes import Cache
from pizero_jax.data.order import Mixed, Order, budgets
from pizero_jax.data.windows import Windows
from pizero_jax.errors import InputError

_POOL = 0.8  # of the cache; the rest is for pictures of the pool before and after


def train(config: TrainConfig, cache: Cache | None = None) -> tuple[dict[str, Windows], list[float]]:
    """By name the windows of all train splits, and their shares of the rows."""
    members = mixture.members(config.data)
    found = {name: windows(config, name, member.config, "train_split", cache) for name, member in members.items()}
    weights, frames = [member.weight for member in members.values()], [len(each) for each in found.values()]
    return found, mixture.shares(weights, frames, config.data.weighting).tolist()


def windows(config: TrainConfig, name: str, data: DataConfig, split: str, cache: Cache | None) -> Windows | None:
    """Of the data set `name`; None if its config names no such split."""
    if not getattr(data, split):
        return None
    with naming(name):
        episodes = formats.open_split(data, getattr(data, split), cache)
        resampling = mixture.resampling(data, episodes.table.actions.shape[1])
        found = Windows(
            episodes, config.policy.chunk, resampling=resampling, history=data.history,
            unlabelled=data.unlabelled == "keep",
        )  # fmt: skip
        if not len(found):
            raise InputError(f"config.data.{split} = {getattr(data, split)!r} has no frame to learn from")
    return found


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Says in errors which data set of a mixture they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"data set {name!r}: {error}" if name else str(error)) from error


def order(train: Sequence[Windows], shares: Sequence[float], *, cache_gb: float, seed: int, batch_size: int) -> Mixed:
    """From a step to the rows of its global batch: data set and window of each."""
    counts = [windows.counts for windows in train]
    sizes = [windows.episodes.table.sizes for windows in train]
    totals = [np.array([values.sum() for values in column]) for column in (counts, sizes)]
    pools = budgets(np.array(shares), *totals, _POOL * cache_gb * 1e9)
    each = zip(counts, sizes, pools, strict=True)
    orders = [Order((seed, number), *source) for number, source in enumerate(each)]
    return Mixed(orders, shares, seed=seed, batch_size=batch_size)
