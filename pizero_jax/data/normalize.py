"""Statistics of states and actions, and the normalisation that they define."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from pizero_jax.types import InputError

_EPSILON = 1e-6  # openpi's: added to every spread


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of each of n dimensions over `count` rows, such as the frames of a split; 0 where a file does not say."""

    mean: Float[np.ndarray, "n"]
    std: Float[np.ndarray, "n"]
    q01: Float[np.ndarray, "n"]  # 1% quantile
    q99: Float[np.ndarray, "n"]
    count: int = 0

    @classmethod
    def of(cls, values: Float[np.ndarray, "frames n"]) -> "Statistics":
        """Exact statistics, summed in float64."""
        q01, q99 = np.quantile(values.astype(np.float64), [0.01, 0.99], axis=0)
        return cls(values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64), q01, q99, len(values))

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[Float[np.ndarray, "rows n"]]]) -> "Statistics":
        """What `of` gives for all rows at once, from blocks of them: it keeps the lowest 1% and the highest 1%.

        Args:
          blocks: called twice, it gives the same blocks each time.
        """
        count, total = 0, 0.0
        for block in blocks():
            count, total = count + len(block), total + block.sum(axis=0, dtype=np.float64)
        mean, squares = total / count, 0.0
        rank = 0.01 * (count - 1)  # of the 1% quantile from one end and of the 99% quantile from the other
        low = high = np.empty((0, len(mean)), np.float32)
        for block in blocks():
            squares = squares + ((block - mean) ** 2).sum(axis=0)
            low = _lowest(np.concatenate([low, block]), int(rank) + 2)
            high = _lowest(np.concatenate([high, -block]), int(rank) + 2)
        return cls(mean, np.sqrt(squares / count), _at(rank, low), -_at(rank, high), count)


def _lowest(values: Float[np.ndarray, "rows n"], count: int) -> Float[np.ndarray, "kept n"]:
    """The `count` lowest values of each column in any order, or all if there are fewer."""
    return values if len(values) <= count else np.partition(values, count - 1, axis=0)[:count]


def _at(rank: float, values: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "n"]:
    """Each column's value of that rank, 0 for the lowest, on the line between its neighbours."""
    ordered = np.sort(values.astype(np.float64), axis=0)
    below, above = ordered[int(rank)], ordered[min(int(rank) + 1, len(ordered) - 1)]
    return below + (rank - int(rank)) * (above - below)


class Normalizer:
    """The affine map of each dimension that statistics define, and its inverse.

    "zscore" is (x - mean) / (std + 1e-6); "quantile" is (x - q01) / (q99 - q01 + 1e-6) * 2 - 1, not clipped.

    openpi divides by 1e-6 where the spread is zero, so that a sensor's last bit becomes a huge input. Here:
      a dimension whose quantiles meet, as those of a gripper that rarely opens, is z-scored;
      a dimension whose standard deviation is below 1e-6 is constant: normalised it is its distance from the mean, 0
      for what training saw, and un-normalised it is the mean whatever a policy says.
    Both kinds are logged once, here.

    Args:
      statistics: of n dimensions.
      kind: "zscore" or "quantile".
      name: of what is normalised, for messages.

    Raises:
      InputError: if "quantile" is asked of statistics without quantiles.

    Source: openpi's transforms.Normalize.
    """

    def __init__(self, statistics: Statistics, kind: Literal["zscore", "quantile"], name: str):
        self.name = name
        constant = statistics.std < _EPSILON
        offset, scale = statistics.mean, statistics.std + _EPSILON
        if kind == "quantile":
            spread = statistics.q99 - statistics.q01
            if np.isnan(spread).any():
                raise InputError(
                    f"the statistics of {name} have no quantiles: set config.data.normalization = 'zscore'"
                )
            narrow = spread < _EPSILON
            self._report(narrow & ~constant, "have equal quantiles and are z-scored")
            half = (spread + _EPSILON) / 2
            offset, scale = np.where(narrow, offset, statistics.q01 + half), np.where(narrow, scale, half)
        self._report(constant, "are constant in the training data")
        self._offset = offset
        self._divisor, self._factor = np.where(constant, 1.0, scale), np.where(constant, 0.0, scale)

    def __len__(self) -> int:
        return len(self._offset)

    def normalize(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """About unit variance, or about [-1, 1], as float32; InputError for another width."""
        return ((self._checked(x) - self._offset) / self._divisor).astype(np.float32)

    def unnormalize(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """The inverse of `normalize`, float32, except that constant dimensions give their constant."""
        return (self._checked(x) * self._factor + self._offset).astype(np.float32)

    def _checked(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        if x.shape[-1:] != (len(self),):
            raise InputError(
                f"{self.name} has shape {list(x.shape)}, the statistics are of {len(self)} dimensions: "
                "they belong to another embodiment"
            )
        return x

    def _report(self, dimensions: np.ndarray, what: str) -> None:
        if dimensions.any():
            logging.warning("%s: dimensions %s %s", self.name, np.flatnonzero(dimensions).tolist(), what)


def to_dict(statistics: Mapping[str, Statistics]) -> dict:
    """Plain lists by group, as in openpi's norm_stats.json; `from_dict` is the inverse."""
    return {
        name: {key: value if key == "count" else value.tolist() for key, value in dataclasses.asdict(group).items()}
        for name, group in statistics.items()
    }


def to_saved(sets: Mapping[str, Mapping[str, Statistics]]) -> dict:
    """Plain lists by data set, or of the one that has no name, for a checkpoint; `by_data_set` is the inverse."""
    saved = {name: to_dict(groups) for name, groups in sets.items()}
    return saved.get("", saved)


def by_data_set(saved: Mapping[str, Any]) -> dict[str, dict[str, Statistics]]:
    """What a checkpoint has: statistics by the name of the data set, "" where there is one only."""
    sets = {"": saved} if {"state", "actions"} <= saved.keys() else saved
    return {name: from_dict(groups) for name, groups in sets.items()}


def from_dict(groups: Mapping[str, Mapping]) -> dict[str, Statistics]:
    return {name: _group(**group) for name, group in groups.items()}


def save(path: str, statistics: Mapping[str, Statistics]) -> None:
    """Writes JSON in the layout of openpi's norm_stats.json, which has no counts."""
    groups = to_dict(statistics)
    for group in groups.values():
        del group["count"]
    epath.Path(path).write_text(json.dumps({"norm_stats": groups}, indent=2))


def load(path: str) -> dict[str, Statistics]:
    """Reads what `save` or openpi wrote.

    Raises:
      InputError: for a file that is missing or of another layout.
    """
    if not epath.Path(path).exists():
        raise InputError(f"{path} is missing; training writes it, or copy the norm_stats.json of an openpi checkpoint")
    try:
        return from_dict(json.loads(epath.Path(path).read_text())["norm_stats"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not in the layout of openpi's norm_stats.json: {error}") from error


def _group(mean, std, q01=None, q99=None, count=0) -> Statistics:
    """openpi's older files have no quantiles: NaN, which `Normalizer` refuses where it needs them."""
    unknown = [np.nan] * len(mean)
    return Statistics(*(np.asarray(v, np.float64) for v in (mean, std, q01 or unknown, q99 or unknown)), count=count)
