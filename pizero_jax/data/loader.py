"""Batches, in an order that is a pure function of (seed, step, mixture), decoded ahead by threads."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from absl import logging
from jaxtyping import Float32

from pizero_jax.config import DataConfig, TrainConfig
from pizero_jax.data import action_tokens, chunks, mixture, splits, transforms
from pizero_jax.data.action_tokens import ActionTokenizer
from pizero_jax.data.chunks import ChunkNormalizer
from pizero_jax.data.episodes import Cache
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.order import Mixed
from pizero_jax.data.transforms import Processor
from pizero_jax.data.windows import Numbers, Windows, labelled
from pizero_jax.errors import InputError
from pizero_jax.types import Batch, Observation

_ROW = 1  # first word of the seed of a row's augmentation; `order` has others

_TRAINING_CHUNKS = 10_000  # of the action tokenizer: with chunks of 50 x 7 numbers it takes 5 s
_HELD_OUT_CHUNKS = 1_000  # that show how much of the actions it clips


class Source(NamedTuple):
    """One data set of a mixture; what follows the windows is of its train split and serves acting, too."""

    name: str  # "" if it is the only one
    config: DataConfig
    share: float  # of the rows
    train: Windows
    val: Windows | None
    statistics: dict[str, Statistics]
    processor: Processor


class Drawn(NamedTuple):
    """What a row of a batch shows."""

    set: int  # number of the data set in the mixture
    window: int
    rng: np.random.Generator | None  # of its augmentation, dropout and wording


class Data(NamedTuple):
    """What training needs."""

    sources: tuple[Source, ...]
    action_tokens: ActionTokenizer | None  # of policies that need one

    @property
    def statistics(self) -> dict[str, dict[str, Statistics]]:
        return {source.name: source.statistics for source in self.sources}

    def order(self, seed: int, batch_size: int) -> Mixed:
        """As `splits.order`, of the train splits."""
        train, shares = [source.train for source in self.sources], [source.share for source in self.sources]
        return splits.order(train, shares, cache_gb=self.sources[0].config.cache_gb, seed=seed, batch_size=batch_size)


def open_data(config: TrainConfig, saved_action_tokens: Mapping[str, Any] | None = None) -> Data:
    """All data sets of `config.data`, and what is derived from them.

    Args:
      saved_action_tokens: the action tokenizer of a run that goes on, as its `to_dict` gave it. Without it, and without
        a path in the config, FAST is trained here: on all windows of the train splits, or 10,000 evenly spaced ones.

    Raises:
      InputError: says what is missing or does not fit the policy.
    """
    cache = Cache(config.data.cache_gb * 1e9)
    members = mixture.members(config.data)
    train, shares = splits.train(config, cache)
    val = {name: splits.windows(config, name, member.config, "val_split", cache) for name, member in members.items()}
    statistics = {name: _statistics(name, train[name], member.config) for name, member in members.items()}

    tokens = None
    if config.data.action_tokens.kind != "none":
        normalizers = {name: ChunkNormalizer(statistics[name], members[name].config) for name in members}
        pieces = [_chunks(train[n], normalizers[n], _TRAINING_CHUNKS * s) for n, s in zip(members, shares, strict=True)]
        training = itertools.chain(*pieces)
        tokens = action_tokens.make(config.data.action_tokens, chunks=training, saved=saved_action_tokens)
        for name, windows in val.items():
            if windows is not None:
                _report_clipping(tokens, _chunks(windows, normalizers[name], _HELD_OUT_CHUNKS), name)

    cameras = {camera for member in members.values() for camera in member.config.cameras}
    sources = []
    for (name, (data, _)), share in zip(members.items(), shares, strict=True):
        with splits.naming(name):
            processor = Processor(config.policy, data, statistics[name], tokens, cameras)
        sources.append(Source(name, data, share, train[name], val[name], statistics[name], processor))
    return Data(tuple(sources), tokens)


def _statistics(name: str, windows: Windows, data: DataConfig) -> dict[str, Statistics]:
    """Of the actions at the rate of the chunk, and, where they are relative, of all steps that a chunk spans."""
    table, span = windows.episodes.table, windows.chunk
    if data.unlabelled == "skip":
        table = dataclasses.replace(table, keep=table.keep & labelled(table))
    if windows.resampling is not None:
        table, span = windows.resampling.first(table), int(windows.resampling.ends(windows.chunk)[-1])
    with splits.naming(name):
        return chunks.statistics(table, data, span)


def _chunks(windows: Windows, normalizer: ChunkNormalizer, count: float) -> Iterator[Float32[np.ndarray, "C a"]]:
    """Normalised ones of all windows, or of `count` evenly spaced ones."""
    indices = np.unique(np.rint(np.linspace(0, len(windows) - 1, max(1, round(count)))).astype(np.int64))
    numbers = windows.numbers(indices)
    yield from normalizer.normalize(numbers.actions, numbers.moments)


def _report_clipping(tokens: ActionTokenizer, chunks: Iterator[Float32[np.ndarray, "C a"]], name: str) -> None:
    clipped, total = np.sum([(tokens.clipped(chunk), chunk.size) for chunk in chunks], axis=0)
    level = logging.WARNING if clipped > 0.05 * total else logging.INFO  # quantiles leave 2% outside the bins
    of = f" of {name}" if name else ""
    logging.log(level, "the action tokens clip %.2f%% of the held-out numbers%s", 100 * clipped / total, of)


def batches(
    data: Data,
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
    import grain  # 1 s

    mine = _rows(batch_size, process_index, process_count)
    rows = data.order(seed, batch_size)
    is_random = any(s.processor.is_random or s.train.episodes.table.instructions.shape[1] > 1 for s in data.sources)

    def rng(step: int, row: int) -> np.random.Generator:
        return np.random.default_rng((_ROW, seed, step, row))

    def make(step: int) -> Batch:
        sets, windows = rows(step)
        drawn = [Drawn(int(sets[row]), int(windows[row]), rng(step, row) if is_random else None) for row in mine]
        return _batch(data, "train", drawn)

    cv2.setNumThreads(0)  # pictures are small and rows are parallel already
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(start, sys.maxsize).map(make).to_iter_dataset(options))


def validation_batches(
    data: Data, *, batch_size: int, count: int, process_index: int = 0, process_count: int = 1
) -> dict[str, list[Batch]]:
    """By data set at most `count` batches of held-out windows, the same whatever the seed, without augmentation.

    Where windows run out they repeat with `action_mask` False, so that none counts twice.
    """
    mine = np.array(_rows(batch_size, process_index, process_count))

    def make(number: int, windows: Windows) -> list[Batch]:
        order = np.random.default_rng((0, 0, 0)).permutation(len(windows))
        made = []
        for first in range(0, min(count * batch_size, len(order)), batch_size):
            places = first + mine
            batch = _batch(data, "val", [Drawn(number, int(order[place % len(order)]), None) for place in places])
            made.append(batch.replace(action_mask=batch.action_mask & (places < len(order))[:, None]))
        return made

    sources = enumerate(data.sources) if count > 0 else ()
    return {source.name: make(i, source.val) for i, source in sources if source.val is not None}


def decoder(data: Data) -> Callable:
    """From written tokens [B, T] of one data set, and its number in the mixture ([B], or None), to chunks."""

    def decode(ids: np.ndarray, sets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return data.sources[0 if sets is None else int(sets[0])].processor.decode(ids)

    return decode


def row_names(data: Data, *, seed: int, batch_size: int) -> Callable[[int, Sequence[int]], list[str]]:
    """A function of a step and rows of its global batch: data set, file, record and frame of each."""
    rows = data.order(seed, batch_size)

    def name(number: int, index: int) -> str:
        source = data.sources[number]
        return " ".join(filter(None, [source.name, source.train[index].source]))

    def names(step: int, of: Sequence[int]) -> list[str]:
        sets, windows = rows(step)
        return [name(int(sets[row]), int(windows[row])) for row in of]

    return names


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise InputError(
            f"config.batch_size = {batch_size} does not divide by {process_count} processes; choose a multiple of it"
        )
    local = batch_size // process_count
    return range(process_index * local, (process_index + 1) * local)


def _batch(data: Data, split: str, drawn: Sequence[Drawn]) -> Batch:
    """Pictures are decoded into their places in the batch; numbers are worked out together for each data set."""
    first = data.sources[0].processor
    pictures = {camera: np.empty((len(drawn), *first.picture_shape), np.uint8) for camera in first.cameras}
    sets = np.array([row.set for row in drawn], np.int32)
    members = [np.flatnonzero(sets == number) for number in range(len(data.sources))]
    parts = [
        _part(source, getattr(source, split), [drawn[row] for row in rows], [_at(pictures, row) for row in rows])
        for source, rows in zip(data.sources, members, strict=True)
        if len(rows)
    ]
    back = np.argsort(np.concatenate(members))
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts) if len(parts) > 1 else parts[0]
    observation = batch.observation.replace(images=pictures)
    return batch.replace(observation=observation, dataset=sets if len(data.sources) > 1 else None)


def _at(pictures: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {camera: array[row] for camera, array in pictures.items()}


def _part(source: Source, windows: Windows, drawn: Sequence[Drawn], out: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    """The rows of one data set without their pictures, which go into `out`."""
    processor, numbers = source.processor, windows.numbers(np.array([row.window for row in drawn]))
    mask, observations = numbers.action_mask, []
    for i, (row, place) in enumerate(zip(drawn, out, strict=True)):
        try:
            observations.append(_observation(processor, windows, numbers, i, row.rng, place))
        except InputError as error:
            error = InputError(f"{windows.source(numbers.episodes[i], numbers.frames[i])}: {error}")
            if source.config.on_corrupt == "raise":
                raise error from None
            logging.warning("masked: %s", error)  # such a row counts nowhere
            observations.append(processor.observation({}, numbers.state[i], "", out=place))
            mask[i] = False
    texts = [processor.tokens(*row) for row in zip(numbers.actions, numbers.moments, strict=True)]
    ids, token_mask = (np.stack(parts) for parts in zip(*texts, strict=True)) if texts[0] else (None, None)
    return Batch(
        observation=transforms.stack(observations, images={}),
        actions=processor.actions(numbers.actions, numbers.moments),
        action_mask=mask,
        action_dim_mask=np.tile(processor.action_dim_mask, (len(drawn), 1)),
        action_tokens=ids,
        action_token_mask=None if ids is None else token_mask & mask.any(axis=1, keepdims=True),
    )


def _observation(
    processor: Processor, windows: Windows, numbers: Numbers, i: int, rng: np.random.Generator | None, out: Mapping
) -> Observation:
    """Of one row, worded as drawn."""
    episode, frame = int(numbers.episodes[i]), int(numbers.frames[i])
    wordings = windows.episodes.wordings(episode, frame)
    wording = 0 if rng is None or len(wordings) == 1 else rng.integers(len(wordings))
    return processor.observation(windows.pictures(episode, frame), numbers.state[i], wordings[wording], rng, out=out)
