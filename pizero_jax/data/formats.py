"""Data sets by what their folder holds."""

from pizero_jax.config import DataConfig
from pizero_jax.data import rlds
from pizero_jax.data.episodes import Cache, Episodes


def open_split(config: DataConfig, split: str, cache: Cache | None = None) -> Episodes:
    return rlds.open_split(config, split, cache)
