"""Batches, in an order that is a pure function of (seed, step), decoded ahead by threads."""

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import grain
import numpy as np
from jaxtyping import Int64

from pizero_jax.config import TrainConfig
from pizero_jax.data import normalize, rlds
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.transforms import Processor, stack
from pizero_jax.data.windows import Window, Windows
from pizero_jax.types import Batch, InputError

# First words of the seeds of two kinds of draws, which must not share streams.
_ORDER, _ROW = 0, 1


class Data(NamedTuple):
    """What training needs; `statistics` and `processor` are of the train split and serve acting, too."""

    train: Windows
    val: Windows
    statistics: dict[str, Statistics]
    processor: Processor


def open_data(config: TrainConfig) -> Data:
    """Both splits of `config.data`; InputError says what is missing or does not fit the policy."""
    train, val = (rlds.open_split(config.data, split) for split in (config.data.train_split, config.data.val_split))
    statistics = normalize.statistics(train)
    processor = Processor(config.policy, config.data, statistics)
    return Data(Windows(train, config.policy.chunk), Windows(val, config.policy.chunk), statistics, processor)


def sample_ids(seed: int, step: int, batch_size: int, size: int) -> Int64[np.ndarray, "B"]:
    """The windows of the global batch of `step`, of `size` windows.

    Epochs are independent permutations: each window comes once in each, and batches may straddle two.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = positions // size, positions % size
    ids = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        ids[here] = _permutation(seed, int(epoch), size)[places[here]]
    return ids


@functools.lru_cache(2)  # a batch may straddle two epochs
def _permutation(seed: int, epoch: int, size: int) -> Int64[np.ndarray, "size"]:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(size)


def batches(
    windows: Windows,
    processor: Processor,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 8,
) -> Iterator[Batch]:
    """Endless training batches from step `start` on: of each global batch, the rows of this process.

    A row depends on (seed, step, its place in the global batch) and on nothing else, so that a run may stop, go on and
    change its number of processes or threads. An error in a thread is raised here, by `next`.

    Args:
      batch_size: rows of the global batch.
      threads: that decode and augment; they share cores with the host side of training.
      prefetch: batches made ahead.
    """
    rows = _rows(batch_size, process_index, process_count)

    def make(step: int) -> Batch:
        ids = sample_ids(seed, step, batch_size, len(windows))
        rngs = [np.random.default_rng((_ROW, seed, step, row)) for row in rows]
        return _batch([windows[int(ids[row])] for row in rows], processor, rngs)

    cv2.setNumThreads(0)  # pictures are small and rows are parallel already
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(start, sys.maxsize).map(make).to_iter_dataset(options))


def validation_batches(
    windows: Windows,
    processor: Processor,
    *,
    batch_size: int,
    count: int,
    process_index: int = 0,
    process_count: int = 1,
) -> list[Batch]:
    """At most `count` batches of held-out windows, the same whatever the seed of the run, without augmentation.

    Where windows run out they repeat with `action_mask` False, so that none counts twice.
    """
    rows = _rows(batch_size, process_index, process_count)
    order = _permutation(0, 0, len(windows))

    def make(first: int) -> Batch:
        places = first + np.array(rows)
        batch = _batch([windows[int(order[place % len(order)])] for place in places], processor, [None] * len(rows))
        return batch.replace(action_mask=batch.action_mask & (places < len(order))[:, None])

    return [make(first) for first in range(0, min(count * batch_size, len(order)), batch_size)]


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise InputError(
            f"config.batch_size = {batch_size} does not divide by {process_count} processes; choose a multiple of it"
        )
    local = batch_size // process_count
    return range(process_index * local, (process_index + 1) * local)


def _batch(windows: list[Window], processor: Processor, rngs: Sequence[np.random.Generator | None]) -> Batch:
    observations = [
        processor.observation(window.images, window.state, window.instruction, rng)
        for window, rng in zip(windows, rngs, strict=True)
    ]
    return Batch(
        observation=stack(observations),
        actions=processor.actions(np.stack([window.actions for window in windows])),
        action_mask=np.stack([window.action_mask for window in windows]),
        action_dim_mask=np.tile(processor.action_dim_mask, (len(windows), 1)),
    )
