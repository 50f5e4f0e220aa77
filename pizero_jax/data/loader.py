"""Batches, in an order that is a pure function of (seed, step), decoded ahead by threads."""

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np
from absl import logging
from jaxtyping import Float32, Int64

from pizero_jax.config import TrainConfig
from pizero_jax.data import action_tokens, chunks, rlds
from pizero_jax.data.action_tokens import ActionTokenizer
from pizero_jax.data.chunks import ChunkNormalizer
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.transforms import Processor, stack
from pizero_jax.data.windows import Window, Windows
from pizero_jax.types import Batch, InputError

# First words of the seeds of two kinds of draws, which must not share streams.
_ORDER, _ROW = 0, 1

_TRAINING_CHUNKS = 10_000  # of the action tokenizer: with chunks of 50 x 7 numbers it takes 5 s
_HELD_OUT_CHUNKS = 1_000  # that show how much of the actions it clips


class Data(NamedTuple):
    """What training needs; what follows the windows is of the train split and serves acting, too."""

    train: Windows
    val: Windows
    statistics: dict[str, Statistics]
    processor: Processor
    action_tokens: ActionTokenizer | None  # of policies that need one


def open_data(config: TrainConfig, saved_action_tokens: Mapping[str, Any] | None = None) -> Data:
    """Both splits of `config.data`, and what is derived from them.

    Args:
      saved_action_tokens: the action tokenizer of a run that goes on, as its `to_dict` gave it. Without it, and without
        a path in the config, FAST is trained here: on all windows of the train split, or 10,000 evenly spaced ones.

    Raises:
      InputError: says what is missing or does not fit the policy.
    """
    splits = [rlds.open_split(config.data, split) for split in (config.data.train_split, config.data.val_split)]
    train, val = (Windows(episodes, config.policy.chunk) for episodes in splits)
    statistics = chunks.statistics(splits[0], config.data, config.policy.chunk)
    tokens = None
    if config.data.action_tokens.kind != "none":
        normalizer = ChunkNormalizer(statistics, config.data)
        training = _chunks(train, normalizer, _TRAINING_CHUNKS)
        tokens = action_tokens.make(config.data.action_tokens, chunks=training, saved=saved_action_tokens)
        _report_clipping(tokens, _chunks(val, normalizer, _HELD_OUT_CHUNKS))
    processor = Processor(config.policy, config.data, statistics, tokens)
    return Data(train, val, statistics, processor, tokens)


def _chunks(windows: Windows, normalizer: ChunkNormalizer, count: int) -> Iterator[Float32[np.ndarray, "C a"]]:
    """Normalised ones of all windows, or of `count` evenly spaced ones."""
    for index in np.unique(np.rint(np.linspace(0, len(windows) - 1, count))):
        window = windows[int(index)]
        yield normalizer.normalize(window.actions, window.state)


def _report_clipping(tokens: ActionTokenizer, chunks: Iterator[Float32[np.ndarray, "C a"]]) -> None:
    clipped, total = np.sum([(tokens.clipped(chunk), chunk.size) for chunk in chunks], axis=0)
    level = logging.WARNING if clipped > 0.05 * total else logging.INFO  # quantiles leave 2% outside the bins
    logging.log(level, "the action tokens clip %.2f%% of the held-out numbers", 100 * clipped / total)


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
    actions, states = (np.stack([getattr(window, name) for window in windows]) for name in ("actions", "state"))
    tokens = [processor.tokens(window.actions, window.state) for window in windows]
    ids, mask = (None, None) if tokens[0] is None else map(np.stack, zip(*tokens, strict=True))
    return Batch(
        observation=stack(observations),
        actions=processor.actions(actions, states),
        action_mask=np.stack([window.action_mask for window in windows]),
        action_dim_mask=np.tile(processor.action_dim_mask, (len(windows), 1)),
        action_tokens=ids,
        action_token_mask=mask,
    )
