"""The data sets that a config names, and how much of the training each of them is."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float64

from pizero_jax.config import DataConfig
from pizero_jax.data import formats
from pizero_jax.data.resample import Resampling
from pizero_jax.errors import InputError

EXPONENT = 0.43  # of the number of frames: pi0, arXiv 2410.24164, section V-A


class Member(NamedTuple):
    """One data set: `config` as if it were the only one."""

    config: DataConfig
    weight: float


def members(config: DataConfig) -> dict[str, Member]:
    """By name the data sets of a mixture, or the one data set under the name "".

    Where an embodiment lacks a camera that `config.cameras` asks of all, its data set goes without.

    Raises:
      InputError: for a mixture or data set that is unknown or missing.
    """
    named = _named(config)
    if not named and not config.sets:
        return {"": Member(config, 1.0)}
    return {name: _member(config, name, named) for name in dict.fromkeys([*named, *config.sets])}


def _member(config: DataConfig, name: str, named: Mapping[str, float]) -> Member:
    values = dict(config.sets.get(name, {}))
    if name in named:
        values.setdefault("embodiment", name)
        values["path"] = values.get("path") or _newest(os.path.join(config.path, name))
    weight = float(values.pop("weight", named.get(name, 1.0)))
    try:
        member = dataclasses.replace(config, **values, mixture="", sets={})
        if member.embodiment and "cameras" not in values:
            member = dataclasses.replace(member, cameras=_present(member))
    except InputError as error:
        raise InputError(f"data set {name!r}: {error}") from error
    return Member(member, weight)


def _newest(path: str) -> str:
    """The folder of the newest version of a data set, where TFDS keeps several, or the path itself."""
    versions = [folder.parent for folder in epath.Path(path).glob("*.*.*/dataset_info.json")]
    return str(max(versions, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.name)], default=path))


def _named(config: DataConfig) -> Mapping[str, float]:
    if not config.mixture:
        return {}
    from pizero_jax.data.embodiments.mixtures import MIXTURES

    if config.mixture not in MIXTURES:
        near = difflib.get_close_matches(config.mixture, MIXTURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MIXTURES)}"
        raise InputError(f"config.data.mixture = {config.mixture!r}; {hint}")
    return dict(MIXTURES[config.mixture])


def _present(config: DataConfig) -> dict[str, str]:
    """The cameras that the embodiment of a data set has."""
    from pizero_jax.data.embodiments.table import find

    roles = find(config.embodiment).cameras
    cameras = {camera: role for camera, role in config.cameras.items() if role in roles}
    if not cameras:
        asked = ", ".join(config.cameras.values())
        raise InputError(f"config.data.cameras asks for the roles {asked}; it has {', '.join(roles)}")
    return cameras


def hz(config: DataConfig) -> float | None:
    """Steps per second of a data set, as far as config, embodiment or files say."""
    if config.hz:
        return config.hz
    if config.embodiment:
        from pizero_jax.data.embodiments.table import find

        return find(config.embodiment).hz
    return formats.hz(config.path)


def resampling(config: DataConfig, A: int) -> Resampling | None:
    """What makes chunks of `config.chunk_hz` from the A columns of actions of a data set; None leaves them.

    Raises:
      InputError: if the rate of the data set is unknown.
    """
    if not config.chunk_hz:
        return None
    rate = hz(config)
    if rate is None:
        raise InputError(f"config.data.chunk_hz = {config.chunk_hz} needs the rate of the data set at {config.path!r}, "
                         "which nothing states: give it as hz")  # fmt: skip
    if rate == config.chunk_hz:
        return None
    if config.embodiment:
        from pizero_jax.data.embodiments import layout
        from pizero_jax.data.embodiments.table import find

        return Resampling(rate / config.chunk_hz, layout.changes(find(config.embodiment).actions))
    if not config.changes:
        message = "config.data.changes is empty: at %s no action is taken for a change that adds up at chunk_hz = %g"
        logging.warning(message, config.path, config.chunk_hz)
    runs = np.repeat(np.array(config.changes, int) > 0, np.abs(config.changes).astype(int))
    if len(runs) > A:
        raise InputError(f"config.data.changes = {config.changes} names {len(runs)} dimensions, config.data.action = "
                         f"{config.action!r} has {A}")  # fmt: skip
    return Resampling(rate / config.chunk_hz, np.pad(runs, (0, A - len(runs))))


def shares(weights: Sequence[float], frames: Sequence[int], weighting: str) -> Float64[np.ndarray, "sets"]:
    """Of the rows, each data set's; they add up to 1."""
    factor = {"given": 0.0, "size": 1.0, "power": EXPONENT}[weighting]
    found = np.asarray(weights, np.float64) * np.asarray(frames, np.float64) ** factor
    return found / found.sum()
