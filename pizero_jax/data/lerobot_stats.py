"""Statistics that a LeRobot data set keeps of each feature, by episode and of all episodes together.

Source: huggingface/lerobot 0.6.1, `src/lerobot/datasets/compute_stats.py`: names, shapes and how episodes are merged.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Num, UInt8

Stats = Mapping[str, np.ndarray]
"""min, max, mean, std, q01 ... q99 of one shape, and count [1]: frames."""

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def of_numbers(values: Num[np.ndarray, "T ..."]) -> Stats:
    """Over the T frames, each [n]."""
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
        "count": np.array([len(values)]),
    }


def of_pictures(pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Stats:
    """Over all pixels of at least one picture, by colour, in [0, 1], each [3, 1, 1]."""
    frames, counts = 0, np.zeros((3, 256))
    for frames, picture in enumerate(pictures, start=1):  # noqa: B007
        counts += [np.bincount(picture[..., colour].ravel(), minlength=256) for colour in range(3)]
    shares, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    below, mean = shares.cumsum(1) + 1e-9, shares @ levels  # what sums to 1 must not miss it by a rounding
    found = {
        "min": levels[(counts > 0).argmax(1)],
        "max": levels[255 - (counts > 0)[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(1)),
        **{name: levels[(below >= share).argmax(1)] for name, share in _QUANTILES.items()},
    }
    return {name: values.reshape(3, 1, 1) for name, values in found.items()} | {"count": np.array([frames])}


def merge(one: Stats, other: Stats) -> Stats:
    """Of both together; quantiles are the mean of theirs, weighted by frames, as lerobot has them."""
    count = one["count"] + other["count"]
    first, second = (stats["count"][0] / count[0] for stats in (one, other))
    mean = first * one["mean"] + second * other["mean"]
    variance = first * (one["std"] ** 2 + (one["mean"] - mean) ** 2)
    variance += second * (other["std"] ** 2 + (other["mean"] - mean) ** 2)
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: first * one[name] + second * other[name] for name in _QUANTILES},
        "count": count,
    }
