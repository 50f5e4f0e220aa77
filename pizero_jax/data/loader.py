"""Batches, in an order that is a pure function of (seed, step, mixture), decoded ahead by threads."""

import contextlib
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
from pizero_jax.data import action_tokens, chunks, formats, mixture
from pizero_jax.data.action_tokens import ActionTokenizer
from pizero_jax.data.chunks import ChunkNormalizer
from pizero_jax.data.episodes import Cache
from pizero_jax.data.normalize import Statistics
from pizero_jax.data.order import Mixed, Order, budgets
from pizero_jax.data.transforms import Processor
from pizero_jax.data.windows import Window, Windows
from pizero_jax.errors import InputError
from pizero_jax.types import Batch

_ROW = 1  # first word of the seed of a row's augmentation; `order` has others

_TRAINING_CHUNKS = 10_000  # of the action tokenizer: with chunks of 50 x 7 numbers it takes 5 s
_HELD_OUT_CHUNKS = 1_000  # that show how much of the actions it clips
_POOL = 0.8  # of the cache; the rest is for pictures of the pool before and after


class Source(NamedTuple):
    """One data set of a mixture; what follows the windows is of its train split and serves acting, too."""

    name: str  # "" if it is the only one
    config: DataConfig
    share: float  # of the rows
    train: Windows
    val: Windows | None
    statistics: dict[str, Statistics]
    processor: Processor


class Data(NamedTuple):
    """What training needs."""

    sources: tuple[Source, ...]
    action_tokens: ActionTokenizer | None  # of policies that need one

    @property
    def statistics(self) -> dict[str, dict[str, Statistics]]:
        return {source.name: source.statistics for source in self.sources}

    def order(self, seed: int, batch_size: int) -> Mixed:
        """As `order`, of the train splits."""
        train, shares = [source.train for source in self.sources], [source.share for source in self.sources]
        return order(train, shares, cache_gb=self.sources[0].config.cache_gb, seed=seed, batch_size=batch_size)


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
    train, shares = open_train(config, cache)
    val = {name: _windows(config, name, member.config, "val_split", cache) for name, member in members.items()}
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
        with _naming(name):
            processor = Processor(config.policy, data, statistics[name], tokens, cameras)
        sources.append(Source(name, data, share, train[name], val[name], statistics[name], processor))
    return Data(tuple(sources), tokens)


def open_train(config: TrainConfig, cache: Cache | None = None) -> tuple[dict[str, Windows], list[float]]:
    """By name the windows of all train splits, and their shares of the rows."""
    members = mixture.members(config.data)
    train = {name: _windows(config, name, member.config, "train_split", cache) for name, member in members.items()}
    weights, frames = [member.weight for member in members.values()], [len(windows) for windows in train.values()]
    return train, mixture.shares(weights, frames, config.data.weighting).tolist()


def _windows(config: TrainConfig, name: str, data: DataConfig, split: str, cache: Cache | None) -> Windows | None:
    """None if the config names no such split."""
    if not getattr(data, split):
        return None
    with _naming(name):
        episodes = formats.open_split(data, getattr(data, split), cache)
        resampling = mixture.resampling(data, episodes.table.actions.shape[1])
        windows = Windows(
            episodes, config.policy.chunk, resampling=resampling, history=data.history,
            unlabelled=data.unlabelled == "keep",
        )  # fmt: skip
        if not len(windows):
            raise InputError(f"config.data.{split} = {getattr(data, split)!r} has no frame to learn from")
    return windows


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Says in errors which data set of a mixture they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"data set {name!r}: {error}" if name else str(error)) from error


def _statistics(name: str, windows: Windows, data: DataConfig) -> dict[str, Statistics]:
    """Of the actions at the rate of the chunk, and, where they are relative, of all steps that a chunk spans."""
    table, span = windows.episodes.table, windows.chunk
    if windows.resampling is not None:
        table, span = windows.resampling.first(table), int(windows.resampling.ends(windows.chunk)[-1])
    with _naming(name):
        return chunks.statistics(table, data, span)


def _chunks(windows: Windows, normalizer: ChunkNormalizer, count: float) -> Iterator[Float32[np.ndarray, "C a"]]:
    """Normalised ones of all windows, or of `count` evenly spaced ones."""
    for index in np.unique(np.rint(np.linspace(0, len(windows) - 1, max(1, round(count))))):
        window = windows[int(index)]
        yield normalizer.normalize(window.actions, window.moment)


def _report_clipping(tokens: ActionTokenizer, chunks: Iterator[Float32[np.ndarray, "C a"]], name: str) -> None:
    clipped, total = np.sum([(tokens.clipped(chunk), chunk.size) for chunk in chunks], axis=0)
    level = logging.WARNING if clipped > 0.05 * total else logging.INFO  # quantiles leave 2% outside the bins
    of = f" of {name}" if name else ""
    logging.log(level, "the action tokens clip %.2f%% of the held-out numbers%s", 100 * clipped / total, of)


def order(train: Sequence[Windows], shares: Sequence[float], *, cache_gb: float, seed: int, batch_size: int) -> Mixed:
    """From a step to the rows of its global batch: data set and window of each."""
    counts = [windows.counts for windows in train]
    sizes = [windows.episodes.table.sizes for windows in train]
    totals = [np.array([values.sum() for values in column]) for column in (counts, sizes)]
    pools = budgets(np.array(shares), *totals, _POOL * cache_gb * 1e9)
    each = zip(counts, sizes, pools, strict=True)
    orders = [Order((seed, number), *source) for number, source in enumerate(each)]
    return Mixed(orders, shares, seed=seed, batch_size=batch_size)


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
        drawn = [(int(sets[row]), int(windows[row]), rng(step, row) if is_random else None) for row in mine]
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
            batch = _batch(data, "val", [(number, int(order[place % len(order)]), None) for place in places])
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


def _batch(data: Data, split: str, drawn: Sequence[tuple[int, int, np.random.Generator | None]]) -> Batch:
    """Of (data set, window, its randomness); pictures are decoded into their places in the batch."""
    first = data.sources[0].processor
    pictures = {camera: np.empty((len(drawn), *first.picture_shape), np.uint8) for camera in first.cameras}
    made = []
    for row, (number, index, rng) in enumerate(drawn):
        source = data.sources[number]
        window = getattr(source, split)[index]
        made.append(_row(source, window, rng, {camera: array[row] for camera, array in pictures.items()}))
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    observation = batch.observation.replace(images=pictures)
    sets = np.array([number for number, *_ in drawn], np.int32) if len(data.sources) > 1 else None
    return batch.replace(observation=observation, dataset=sets)


def _row(source: Source, window: Window, rng: np.random.Generator | None, out: dict[str, np.ndarray]) -> Batch:
    """One row without its pictures, which go into `out`; one whose pictures cannot be read counts nowhere."""
    processor, mask = source.processor, window.action_mask
    wording = 0 if rng is None or len(window.instructions) == 1 else rng.integers(len(window.instructions))
    try:
        observation = processor.observation(window.images, window.state, window.instructions[wording], rng, out=out)
    except InputError as error:
        error = InputError(f"{window.source}: {error}")
        if source.config.on_corrupt == "raise":
            raise error from None
        logging.warning("masked: %s", error)
        observation, mask = processor.observation({}, window.state, window.instruction, out=out), np.zeros_like(mask)
    ids, token_mask = processor.tokens(window.actions, window.moment) or (None, None)
    if token_mask is not None:
        token_mask = token_mask & mask.any()
    return Batch(
        observation=observation.replace(images={}),
        actions=processor.actions(window.actions, window.moment),
        action_mask=mask,
        action_dim_mask=processor.action_dim_mask,
        action_tokens=ids,
        action_token_mask=token_mask,
    )
