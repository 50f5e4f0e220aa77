"""Statistics of states and actions, and the normalisation that they define."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from pizero_jax.data.sketch import Sketch
from pizero_jax.errors import InputError

_EPSILON = 1e-6  # openpi's: added to every spread
_OPENPI = ("mean", "std", "q01", "q99")


_BOUND = 20.0
"""Normalised values beyond it are outlying.

Whatever the distribution, at most 1 / b^2 of its values lie b standard deviations away or farther: for 20, one frame in
400. What a robot does on purpose takes more, such as the frames of an episode in which a gripper opens; what is rarer
and that far out is probably a fault of a sensor. In units of quantiles, normal noise stays within 3 in 10^9 frames.
"""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of each of n dimensions over `count` rows, such as the frames of a split; 0 or NaN where a file does not say."""

    mean: Float[np.ndarray, "n"]
    std: Float[np.ndarray, "n"]
    q01: Float[np.ndarray, "n"]  # 1% quantile
    q99: Float[np.ndarray, "n"]
    count: int = 0
    min: Float[np.ndarray, "n"] | float = np.nan
    max: Float[np.ndarray, "n"] | float = np.nan

    @classmethod
    def of(cls, values: Float[np.ndarray, "frames n"]) -> "Statistics":
        """Of rows at hand, in float64; quantiles are exact."""
        x = values.astype(np.float64)
        q01, q99 = np.quantile(x, [0.01, 0.99], axis=0)
        return cls(x.mean(axis=0), x.std(axis=0), q01, q99, len(x), x.min(axis=0), x.max(axis=0))

    @classmethod
    def of_sketches(cls, sketches: Sequence[Sketch]) -> "Statistics":
        """Of one sketch for each dimension; their quantiles are within 0.05%."""
        rows = [(s.mean, s.std, *s.quantiles([0.01, 0.99]), s.smallest, s.largest) for s in sketches]
        mean, std, q01, q99, smallest, largest = np.array(rows).reshape(-1, 6).T  # a robot may have no state
        return cls(mean, std, q01, q99, sketches[0].count if sketches else 0, smallest, largest)


class Normalizer:
    """The affine map of each dimension that statistics define, and its inverse.

    "zscore" is (x - mean) / (std + 1e-6); "quantile" is (x - q01) / (q99 - q01 + 1e-6) * 2 - 1, not clipped.

    openpi divides by 1e-6 where the spread is zero, so that a sensor's last bit becomes a huge input. Here:
      a dimension whose standard deviation is below 1e-6 is constant: normalised it is its distance from the mean, 0
      for what training saw, and un-normalised it is the mean whatever a policy says;
      a dimension whose quantiles meet, as those of a gripper that rarely opens, is z-scored;
      a dimension whose extremes quantiles map beyond 20 is z-scored, too, if that maps them within 20, as where that
      gripper's sensor is noisy. Else its extremes are so few and so far away that z-scores would squeeze the rest to 0,
      and quantiles stay;
      a dimension whose extremes are beyond 20 in the end is outlying, and clipped to [-20, 20] if `clip`.
    All are logged once, here. Without `min` and `max`, as in openpi's files, none is outlying.

    Args:
      statistics: of n dimensions.
      kind: "zscore" or "quantile".
      name: of what is normalised, for messages.
      clip: outlying dimensions: right for what a policy reads, and wrong for what it learns to do.

    Raises:
      InputError: if "quantile" is asked of statistics without quantiles.

    Source: openpi's transforms.Normalize.
    """

    def __init__(self, statistics: Statistics, kind: Literal["zscore", "quantile"], name: str, *, clip: bool = True):
        self.name = name
        constant = statistics.std < _EPSILON
        offset, scale = statistics.mean, statistics.std + _EPSILON
        if kind == "quantile":
            spread = statistics.q99 - statistics.q01
            if np.isnan(spread).any():
                raise InputError(
                    f"the statistics of {name} have no quantiles: set config.data.normalization = 'zscore'"
                )
            half = (spread + _EPSILON) / 2
            middle = statistics.q01 + half
            narrow = spread < _EPSILON
            self._report(narrow & ~constant, "have equal quantiles and are z-scored")
            rare = (_reach(statistics, middle, half) > _BOUND) & (_reach(statistics, offset, scale) <= _BOUND)
            self._report(rare & ~narrow & ~constant, "have rare values far outside their quantiles and are z-scored")
            offset, scale = np.where(narrow | rare, offset, middle), np.where(narrow | rare, scale, half)
        self._report(constant, "are constant in the training data")
        reach = _reach(statistics, offset, scale)
        outlying = ~constant & (reach > _BOUND)
        for i in np.flatnonzero(outlying):
            logging.warning(
                "%s: dimension %d has quantiles (1%%, 99%%) %.4g and %.4g in the training data, but goes from %.4g to "
                "%.4g, up to %.4g when normalised%s. If a sensor fails there, correct or leave out these frames",
                name, i, statistics.q01[i], statistics.q99[i], statistics.min[i], statistics.max[i], reach[i],
                f", and is clipped to {_BOUND:g}" if clip else "",
            )  # fmt: skip
        self._offset = offset
        self._divisor, self._factor = np.where(constant, 1.0, scale), np.where(constant, 0.0, scale)
        self._clipped = np.flatnonzero(outlying & clip)

    def __len__(self) -> int:
        return len(self._offset)

    @property
    def affine(self) -> dict[str, list]:
        """The maps as plain lists: (x - offset) / divisor, at `clipped` cut to what training saw; x factor + offset."""
        arrays = {"offset": self._offset, "divisor": self._divisor, "factor": self._factor, "clipped": self._clipped}
        return {name: array.tolist() for name, array in arrays.items()}

    def normalize(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """About unit variance, or about [-1, 1], as float32; InputError for another width."""
        normalized = ((self._checked(x) - self._offset) / self._divisor).astype(np.float32)
        if len(self._clipped):
            normalized[..., self._clipped] = normalized[..., self._clipped].clip(-_BOUND, _BOUND)
        return normalized

    def unnormalize(self, x: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n"]:
        """The inverse of `normalize` short of clipping, float32; constant dimensions give their constant."""
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


def _reach(statistics: Statistics, offset: np.ndarray, scale: np.ndarray) -> Float[np.ndarray, "n"]:
    """The largest size of a normalised value in the training data, or NaN."""
    return np.maximum(statistics.max - offset, offset - statistics.min) / scale


def to_dict(statistics: Mapping[str, Statistics]) -> dict:
    """Plain lists by group, as in openpi's norm_stats.json, of what is known; `from_dict` is the inverse."""
    return {
        name: {key: np.asarray(value).tolist() for key, value in vars(group).items() if not np.isnan(value).any()}
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
    """Writes JSON in the layout of openpi's norm_stats.json, which has means, deviations and quantiles only."""
    groups = {
        name: {key: value for key, value in group.items() if key in _OPENPI}
        for name, group in to_dict(statistics).items()
    }
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


def _group(mean, std, q01=None, q99=None, count=0, min=None, max=None) -> Statistics:
    """What a file does not say is NaN: openpi's older ones have no quantiles, which `Normalizer` refuses if needed."""
    vectors = dict(mean=mean, std=std, q01=q01, q99=q99, min=min, max=max)
    unknown = [np.nan] * len(mean)
    return Statistics(count=count, **{key: np.asarray(v or unknown, np.float64) for key, v in vectors.items()})
