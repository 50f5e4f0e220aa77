"""Opens a data set with the reader of its format, which its folder shows."""

import dataclasses
import re

from etils import epath

from pizero_jax.config import DataConfig
from pizero_jax.data.episodes import Cache, Episodes
from pizero_jax.errors import InputError


def open_split(config: DataConfig, split: str, cache: Cache | None = None) -> Episodes:
    """The episodes of `split` of the data set at `config.path`, RLDS or LeRobot.

    A folder of versions, as TFDS makes them, stands for the newest of these.

    Raises:
      InputError: the folder holds neither, or its reader finds a fault.
    """
    config = dataclasses.replace(config, path=_newest(config.path))
    if _is_lerobot(config.path):
        from pizero_jax.data import lerobot

        return lerobot.open_split(config, split, cache)
    from pizero_jax.data import rlds

    return rlds.open_split(config, split, cache)


def hz(path: str) -> float | None:
    """Steps per second of the data set at `path`, where its metadata tell: those of RLDS do not."""
    path = _newest(path)
    if not _is_lerobot(path):
        return None
    from pizero_jax.data import lerobot

    return lerobot.hz(path)


def _newest(path: str) -> str:
    folder = epath.Path(path)
    if not path or not folder.is_dir() or (folder / "dataset_info.json").exists():
        return path
    versions = [inside for inside in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", inside.name)]
    return str(max(versions, key=lambda v: [int(part) for part in v.name.split(".")])) if versions else path


def _is_lerobot(path: str) -> bool:
    folder = epath.Path(path)
    if path and (folder / "meta/info.json").exists():
        return True
    if not path or not (folder / "dataset_info.json").exists():
        raise InputError(
            f"config.data.path = {path!r} has neither dataset_info.json (RLDS, as TFDS writes it) nor meta/info.json "
            "(LeRobot): it should be the folder of a data set; `python -m launch.collect` makes one"
        )
    return False
