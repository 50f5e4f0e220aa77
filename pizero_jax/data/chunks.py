"""Chunks of actions as a policy sees them: relative to the current state where the config says so, then normalised."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Float32, Int64

from pizero_jax.config import DataConfig
from pizero_jax.data.episodes import Table
from pizero_jax.data.normalize import Normalizer, Statistics
from pizero_jax.types import InputError


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
        self._normalizer = Normalizer(statistics["actions"], data.normalization, f"action {data.action!r}")
        self._relative = relative_dimensions(data, len(statistics["state"].mean), len(self._normalizer))

    def __len__(self) -> int:
        return len(self._normalizer)

    def origin(self, state: Float[np.ndarray, "*batch P"]) -> Float[np.ndarray, "*batch 1 a"]:
        """What the actions that follow a raw state are relative to, in the units of the data set."""
        return origin(np.asarray(state), self._relative, len(self))

    def normalize(
        self, raw: Float[np.ndarray, "*batch C a"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C a"]:
        """About unit variance, or about [-1, 1]; `state` is the raw one before the chunk."""
        return self._normalizer.normalize(raw - self.origin(state))

    def unnormalize(
        self, chunk: Float[np.ndarray, "*batch C a"], state: Float[np.ndarray, "*batch P"]
    ) -> Float32[np.ndarray, "*batch C a"]:
        """The inverse of `normalize`, in the units of the data set."""
        return (self._normalizer.unnormalize(chunk) + self.origin(state)).astype(np.float32)


def statistics(table: Table, data: DataConfig, C: int) -> dict[str, Statistics]:
    states, actions, keep = table.state, table.actions, table.keep
    relative = relative_dimensions(data, states.shape[1], actions.shape[1])
    left = np.concatenate([np.arange(length, 0, -1) for length in table.lengths])  # frames, to the episode's end

    def steps() -> Iterator[Float32[np.ndarray, "n a"]]:
        """All first actions of chunks, all second ones, ...: each time no more numbers than there are frames."""
        for step in range(C):
            frames = np.flatnonzero((left > step) & keep)
            frames = frames[keep[frames + step]]
            yield actions[frames + step] - origin(states[frames], relative, actions.shape[1])[:, 0]

    of_actions = Statistics.of_blocks(steps) if len(relative) else Statistics.of(actions[keep])
    return {"state": Statistics.of(states[keep]), "actions": of_actions}
