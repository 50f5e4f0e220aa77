"""Data sets, what is done to their episodes, and the simulator: their keys, and what is allowed."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from pizero_jax.config.building import convert, require
from pizero_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ActionTokensConfig:
    kind: Literal["none", "fast", "bins"]
    path: str
    vocabulary: int
    scale: float
    skip: int


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """`crop`: side kept, as a share; `rotation`: degrees either way; colours: share either way. 1 and 0 do nothing."""

    crop: float
    rotation: float
    brightness: float
    contrast: float
    saturation: float


@dataclasses.dataclass(frozen=True)
class DropoutConfig:
    """Probabilities, of each row and independent of each other."""

    cameras: float
    state: float
    prompt: float


@dataclasses.dataclass(frozen=True)
class DataSetConfig:
    """What may differ between the data sets of a mixture."""

    path: str
    train_split: str
    val_split: str
    embodiment: str
    cameras: Mapping[str, str]
    wrist_cameras: tuple[str, ...]
    state: str
    action: str
    changes: tuple[int, ...]
    instruction: str
    other_instructions: tuple[str, ...]
    hz: float
    delta: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataConfig(DataSetConfig):
    mixture: str
    sets: Mapping[str, Mapping[str, Any]]
    weighting: Literal["given", "size", "power"]
    chunk_hz: float
    history: int
    unlabelled: Literal["keep", "skip"]
    on_corrupt: Literal["raise", "skip"]
    cache_gb: float
    index_dir: str
    normalization: Literal["zscore", "quantile"]
    tokenizer: str
    prompt: Literal["pi0", "pi05", "pi0_fast"]
    openpi_state_bins: bool
    action_tokens: ActionTokensConfig
    blind: bool
    augmentation: AugmentationConfig
    dropout: DropoutConfig
    threads: int
    prefetch: int

    def __post_init__(self):
        hints = typing.get_type_hints(DataSetConfig) | {"weight": float}
        sets = {}
        for name, values in self.sets.items():
            require(name and "/" not in name, "config.data.sets", name, "a name without slashes")
            for key in values:
                if key not in hints:
                    near = difflib.get_close_matches(key, hints, n=1, cutoff=0.4)
                    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(hints)}"
                    raise InputError(f"config.data.sets.{name}.{key} is not a key of a data set; {hint}")
            sets[name] = {key: convert(hints[key], value, f"config.data.sets.{name}.{key}")
                          for key, value in values.items()}  # fmt: skip
            weight = sets[name].get("weight", 1.0)
            require(0 < weight < math.inf, f"config.data.sets.{name}.weight", weight, "positive")
        object.__setattr__(self, "sets", sets)
        for key in ("hz", "chunk_hz"):
            require(0 <= getattr(self, key) < math.inf, f"config.data.{key}", getattr(self, key), "0 or more")
        for key in ("delta", "changes"):
            runs = getattr(self, key)
            require(0 not in runs, f"config.data.{key}", runs, "numbers of dimensions, positive or negative")
        require(self.history >= 1, "config.data.history", self.history, "at least 1")
        require(self.cache_gb > 0, "config.data.cache_gb", self.cache_gb, "positive")
        for key, share in dataclasses.asdict(self.dropout).items():
            require(0 <= share < 1, f"config.data.dropout.{key}", share, "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    name: Literal["", "aloha", "metaworld", "pusht", "reach_toy"]
    tasks: tuple[str, ...]
    image_size: int
    max_steps: int
    execute: int
