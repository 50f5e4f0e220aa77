"""The runs of a sweep: one config changed in several ways, each checked like the command line of a training run."""

import ast
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from launch import unknown_key
from pizero_jax.config import TrainConfig, build
from pizero_jax.errors import InputError

Overrides = dict[str, Any]  # dotted keys of a config, without "config."; the key "config" names another config file

# Where and how a run is done: what it learns, and so its name, does not follow from these, unless they are swept over.
SETTING = (
    "accumulation", "nonfinite", "mesh", "distributed", "compile_cache", "validation", "checkpoint", "log", "profile",
    "wandb", "data.path", "data.index_dir", "data.threads", "data.prefetch",
)  # fmt: skip

_LONGEST = 80  # characters of a name before its hash; file systems take 255


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    `name` follows from what the run learns, and is a folder's name; `flags` are those of `launch.train`.
    """

    index: int
    name: str
    overrides: Overrides
    flags: tuple[str, ...]
    config: TrainConfig

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value}" for key, value in self.overrides.items())
        return f"point {self.index} ({said})" if said else f"point {self.index}"


def expand(file: str, given: Overrides, changes: Iterable[Overrides]) -> list[Point]:
    """All points, in the order of `changes`, each of a config file, overrides of all points and its own.

    Raises:
      InputError: there is none, two are the same, or some are impossible; it names the first of these and its key.
    """
    points, faults = [], []
    for index, overrides in enumerate(changes):
        try:
            points.append(_point(index, file, given, overrides))
        except InputError as error:
            faults.append(f"{Point(index, '', overrides, (), None)}: {error}")
    if faults:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more points)" if faults[1:] else ""))
    if not points:
        raise InputError("the sweep has no points")
    named = {}
    for point in points:
        if (other := named.setdefault(point.name, point)) is not point:
            raise InputError(f"{point} is the same run as {other}")
    return points


def changes(sweeps: Sequence[Iterable[Overrides]]) -> list[Overrides]:
    """Every combination of one member of each, the last changing fastest.

    Raises:
      InputError: two set the same key.
    """
    found = []
    for parts in itertools.product(*sweeps):
        keys = [key for part in parts for key in part]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise InputError(f"{sorted(repeated)[0]} is swept over twice")
        found.append({key: value for part in parts for key, value in part.items()})
    return found


def of_file(place: str) -> list[Overrides]:
    """What a function of a file yields: that called `sweep`, or another as in `configs/sweeps/x.py:other`."""
    path, _, name = place.partition(":")
    if not Path(path).is_file():
        raise InputError(f"--sweep={place}: {path} is not a file; sweeps are in configs/sweeps/")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name or "sweep", None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if _is_of(module.__name__, value)]
        raise InputError(f"--sweep={place}: {path} has no function {name or 'sweep'!r}; it has {', '.join(known)}")
    yielded = list(function())
    for index, overrides in enumerate(yielded):
        if not (isinstance(overrides, Mapping) and all(isinstance(key, str) for key in overrides)):
            raise InputError(f"--sweep={place}: point {index} is {overrides!r}; it should be a dict of config keys, "
                             "such as {'optimizer.peak': 1e-4}")  # fmt: skip
    return [_of_python(overrides) for overrides in yielded]


def _of_python(value: Any) -> Any:
    """The same with Python's numbers in place of NumPy's, which the command line cannot carry."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _of_python(inner) for key, inner in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_of_python, value))
    return value


def _is_of(module: str, value: Callable | Any) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module


def of_grid(text: str, config: ConfigDict) -> list[Overrides]:
    """One axis from the command line, such as `optimizer.peak=1e-4,3e-4`; values are of the type that `config` has."""
    key, equals, values = text.partition("=")
    key = key.removeprefix("config.") if key != "config" else key
    if not (equals and values):
        raise InputError(f"--grid={text} should be a key and its values, such as --grid=optimizer.peak=1e-4,3e-4")
    return [{key: value} for value in _values(values, _current(config, key))]


def _current(config: ConfigDict, key: str) -> Any:
    """The value of a dotted key; text if there is none, which is found out later."""
    for part in key.split("."):
        if not isinstance(config, Mapping | ConfigDict) or part not in config:
            return ""
        config = config[part]
    return config


def _values(text: str, like: Any) -> list[Any]:
    if not isinstance(like, str):
        try:
            return list(ast.literal_eval(f"[{text}]"))
        except (ValueError, SyntaxError):
            pass  # a wrong type, which is found out later
    return text.split(",")


def _point(index: int, file: str, given: Overrides, overrides: Overrides) -> Point:
    arguments = arguments_of(file, given, overrides)
    config = build(TrainConfig, parse(arguments))
    return Point(index, name_of(config, overrides), overrides, tuple(arguments), config)


def arguments_of(file: str, given: Overrides, overrides: Overrides) -> list[str]:
    """Flags of `launch.train`; what is text stays as it is, all else is written as in Python."""
    values = given | overrides
    file = values.pop("config", file)
    texts = {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}
    return [f"--config={file}", *(f"--config.{key}={text}" for key, text in texts.items())]


def parse(arguments: Sequence[str]) -> ConfigDict:
    """The config that a training run makes of these flags."""
    argv, found = ["sweep", *arguments], flags.FlagValues()
    file = arguments[0].removeprefix("--config=")
    if not Path(file.split(":")[0]).is_file():
        raise InputError(f"--config={file} is not a file; the ones that come along are in configs/")
    holder = config_flags.DEFINE_config_file("config", flag_values=found, sys_argv=argv)
    try:
        found(argv)
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        raise InputError(unknown_key(argv, file) or " ".join(str(error.args[0]).split())) from error
    return holder.value


def name_of(config: TrainConfig, overrides: Overrides) -> str:
    """A folder's name: what is particular about a run, and eight letters that follow from all it learns from."""
    content = dataclasses.asdict(config)
    for key in SETTING:
        *groups, last = key.split(".")
        group = content
        for name in groups:
            group = group[name]
        del group[last]
    swept = {key: value for key, value in overrides.items() if any(_is_within(key, name) for name in SETTING)}
    text = json.dumps([content, swept], sort_keys=True)
    short = [key.split(".")[-1] for key in overrides]
    keys = [last if short.count(last) == 1 else key for key, last in zip(overrides, short, strict=True)]
    pairs = (f"{key}={_plain(value)}" for key, value in zip(keys, overrides.values(), strict=True))
    label = "_".join(pairs)[:_LONGEST]
    return f"{label}_{_digest(text)}".lstrip("_")


def _is_within(key: str, group: str) -> bool:
    return key == group or key.startswith(group + ".")


def _plain(value: Any) -> str:
    """Without what a shell or a file system could take for something else."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
