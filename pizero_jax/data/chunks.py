"""Chunks of actions as a policy sees them: relative to the current state where the config says so, then normalised."""

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Float32, Int64
from numpy.lib.stride_tricks import sliding_window_view

from pizero_jax import cores
from pizero_jax.config import DataConfig
from pizero_jax.data.episodes import Table
from pizero_jax.data.normalize import Normalizer, Statistics
from pizero_jax.data.sketch import Sketch
from pizero_jax.errors import InputError

_ROWS = 2**19  # actions of a dimension that a thread holds at a time


def relative_dimensions(data: DataConfig, P: int, A: int) -> Int64[np.ndarray, "n"]:
    """Indices of the action dimensions that are relative to the state's dimension of the same index.

    `data.delta` is runs of dimensions: 6 makes the next six relative, -1 leaves the next one absolute, as are all after
    the last run.

    Args:
      P: dimensions of the data set's state.
      A: dimensions of its actions.

    Raises:
      InputError: if the runs name dimensions that the state or the actions do not have.

    Source: openpi's make_bool_mask and DeltaActions.
    """
    runs = np.array(data.delta, np.int64)
    mask = np.repeat(runs > 0, np.abs(runs))
    for key, field, width in (("state", data.state, P), ("action", data.action, A)):
        if len(mask) > width:
            raise InputError(
                f"config.data.delta = {data.delta} names {len(mask)} dimensions, config.data.{key} = {field!r} has "
                f"{width}: leave out those that are absolute at the end, or choose a field that has all"
            )
    return np.flatnonzero(mask)


def origin(
    state: Float[np.ndarray, "*batch P"], relative: Int64[np.ndarray, "n"], A: int
) -> Float[np.ndarray, "*batch 1 A"]:
    """What all actions of a chunk are relative to: the raw state before it, and 0 in the other dimensions."""
    found = np.zeros((*state.shape[:-1], 1, A), state.dtype)
    found[..., 0, relative] = state[..., relative]
    return found


class ChunkNormalizer:
    """From raw chunks to those that a policy sees, and back.

    Args:
      statistics: "state" and "actions", what `statistics` gave for the same `data`.
      data: which dimensions are relative, and the kind of normalisation.

    Raises:
      InputError: as `relative_dimensions` and `Normalizer` do.
    """

    def __init__(self, statistics: Mapping[str, Statistics], data: DataConfig):
        name = f"action {data.action!r}"
        self._normalizer = Normalizer(statistics["actions"], data.normalization, name, clip=False)
        self._relative = relative_dimensions(data, len(statistics["state"].mean), len(self._normalizer))

    def __len__(self) -> int:
        return len(self._normalizer)

    @property
    def affine(self) -> dict[str, list]:
        """As `Normalizer.affine`, of what is relative where it is."""
        return self._normalizer.affine

    @property
    def relative(self) -> list[int]:
        """Dimensions that are relative to the state's of the same index."""
        return self._relative.tolist()

    def origin(self, state: Float[np.ndarray, "*batch P"]) -> Float[np.ndarray, "*batch 1 a"]:
        """What the actions that follow a raw state are relative to, in the units of the data set."""
        return origin(np.asarray(state), self._relative, len(self))

    def normalize(
        self, raw: Float[np.ndarray, "*batch C a"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C a"]:
        """About unit variance, or about [-1, 1]; `state` is the raw one before the chunk."""
        return self._normalizer.normalize(raw - self.origin(state) if len(self._relative) else raw)

    def unnormalize(
        self, chunk: Float[np.ndarray, "*batch C a"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C a"]:
        """The inverse of `normalize`, in the units of the data set."""
        return (self._normalizer.unnormalize(chunk) + self.origin(state)).astype(np.float32)


def statistics(table: Table, data: DataConfig, C: int) -> dict[str, Statistics]:
    """Of "state" over all frames to learn from, and of "actions" as they are normalised; no picture is decoded.

    Without relative dimensions the actions are those of all frames. With some, all dimensions are over the chunks of C
    actions that begin at each frame, as far as their episode goes: what follows its end repeats and is masked in the
    loss. openpi counts the repetitions, too.

    The table may be larger than memory: each thread reads some frames at a time, and adds up sketches of them.

    Raises:
      InputError: if there is no frame to learn from.
    """
    P, A = table.state.shape[1], table.actions.shape[1]
    relative = relative_dimensions(data, P, A)
    steps = C if len(relative) else 1
    ends = np.cumsum(table.lengths)
    blocks = range(0, len(table.keep), max(_ROWS // steps, 1))
    threads = min(cores.available(), len(blocks))

    def of_share(thread: int) -> list[Sketch]:
        shares = blocks[thread::threads]
        return functools.reduce(
            _added, (_sketches(table, start, blocks.step, ends, relative, steps) for start in shares)
        )

    with ThreadPoolExecutor(threads) as pool:
        sketches = functools.reduce(_added, pool.map(of_share, range(threads)))
    if not sketches:
        raise InputError(f"config.data.path = {data.path!r} has no step to learn from: all are marked to be left out")
    return {"state": Statistics.of_sketches(sketches[:P]), "actions": Statistics.of_sketches(sketches[P:])}


def _sketches(
    table: Table, start: int, count: int, ends: Int64[np.ndarray, "E"], relative: Int64[np.ndarray, "n"], steps: int
) -> list[Sketch]:
    """Of the states of `count` frames and of the `steps` actions that begin at each; none if no frame is kept."""
    block, reach = slice(start, start + count), slice(start, start + count + steps - 1)
    frames = np.flatnonzero(table.keep[block])
    if not len(frames):
        return []
    keep = np.append(table.keep[reach], np.zeros(steps - 1, bool))
    left = ends[np.searchsorted(ends, start + frames, side="right")] - (start + frames)
    later = np.arange(steps)
    used = (later < left[:, None]) & sliding_window_view(keep, steps)[frames]
    rows = (frames[:, None] + later)[used]
    origins = np.repeat(frames, used.sum(axis=1))
    state = np.ascontiguousarray(table.state[block].T)
    actions = np.ascontiguousarray(table.actions[reach].T)
    sketches = [Sketch.of(column[frames]) for column in state]
    for i, column in enumerate(actions):
        sketches.append(Sketch.of(column[rows] - state[i, origins] if i in relative else column[rows]))
    return sketches


def _added(some: list[Sketch], others: list[Sketch]) -> list[Sketch]:
    """Dimension by dimension; a block without frames adds nothing."""
    return [a + b for a, b in zip(some, others, strict=True)] if some and others else some or others
