"""Episodes of an RLDS data set in a TFDS folder, by random access and without TensorFlow.

Pictures stay encoded. All episodes are held in memory: encoded, 100 hours of two 64 pixel cameras at 10 Hz are 15 GB.
Source: RLDS, arXiv 2111.02767: a record is an episode, its `steps` a nested data set.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float32

from pizero_jax.config import DataConfig
from pizero_jax.data.records import read_records
from pizero_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Episode:
    """One demonstration of T steps; `images` maps cameras of the policy to T encoded pictures."""

    images: dict[str, list[bytes]]
    state: Float32[np.ndarray, "T P"]
    actions: Float32[np.ndarray, "T A"]
    instruction: str
    index: int  # its place in the split
    keep: Bool[np.ndarray, "T"]  # False for steps that nothing should be learnt from

    def __len__(self) -> int:
        return len(self.actions)


class Episodes(Sequence[Episode]):
    """The episodes of a split, with `lengths` (int64, in steps) at hand without touching any episode."""

    def __init__(self, episodes: Sequence[Episode]):
        self._episodes = list(episodes)
        self.lengths = np.array([len(episode) for episode in self._episodes], np.int64)

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        return self._episodes[index]


def open_split(config: DataConfig, split: str) -> Episodes:
    """The episodes of `split` of the data set at `config.path`; TFDS's slices ("train[:90%]") work too.

    Raises:
      InputError: for a folder, split, field or record that is missing, damaged or not finite.
    """
    info = _open_info(config)
    read = _specified(config, info.features) if config.embodiment else partial(_episode, _fields(config, info.features))
    episodes = Episodes([read(*record) for record in enumerate(_records(config, info, split))])
    if not len(episodes):
        raise InputError(f"split {split!r} of config.data.path = {config.path!r} has no episodes")
    return episodes


def _open_info(config: DataConfig) -> Any:
    for name in ("dataset_info.json", "features.json"):
        if not config.path or not (epath.Path(config.path) / name).exists():
            raise InputError(
                f"config.data.path = {config.path!r} has no {name}: it should be the folder of a TFDS data set; "
                "make one with `python -m launch.collect`"
            )
    import tensorflow_datasets as tfds  # 1 s: only who opens data pays for it

    try:
        return tfds.builder_from_directory(config.path).info
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"config.data.path = {config.path!r} has unreadable metadata: {error}") from error


def _records(config: DataConfig, info: Any, split: str) -> Iterator[tuple[str, int, bytes]]:
    """(file, number of the record in it, record)."""
    if split.partition("[")[0] not in info.splits:
        raise InputError(f"config.data.path = {config.path!r} has no split {split!r}; it has {', '.join(info.splits)}")
    for part in info.splits[split].file_instructions:
        stop = part.examples_in_shard if part.take < 0 else part.skip + part.take
        numbered = enumerate(read_records(part.filename))
        found = part.skip
        for found, record in itertools.islice(numbered, part.skip, stop):
            yield part.filename, found, record
        if found + 1 < stop:
            raise InputError(
                f"{part.filename} ends after {found + 1} records; dataset_info.json counts {part.examples_in_shard}: "
                "copy or make this file again"
            )


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Keys of a tf.Example: those of pictures by camera of the policy."""

    images: Mapping[str, str]
    state: str
    actions: str
    instruction: str


def _fields(config: DataConfig, features: Any) -> _Fields:
    present = dict(_leaves(features.get_serialized_info()))

    def find(path: str, name: str, prefix: str, text: bool) -> str:
        key = f"{prefix}/{name}"
        if key not in present:
            there = [k.removeprefix(f"{prefix}/") for k in present if k.startswith(f"{prefix}/")]
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"{path} = {name!r} is not a field of the data set; {hint}It has {', '.join(sorted(there))}"
            )
        if present[key] != text:
            raise InputError(
                f"{path} = {name!r} should be {'pictures or text' if text else 'numbers'} in features.json"
            )
        return key

    camera, seen = "config.data.cameras", "steps/observation"
    return _Fields(
        images={to: find(f"{camera}.{to}", field, seen, text=True) for to, field in config.cameras.items()},
        state=find("config.data.state", config.state, seen, text=False),
        actions=find("config.data.action", config.action, "steps", text=False),
        instruction=find("config.data.instruction", config.instruction, "steps", text=True),
    )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(key, whether bytes) of each field of a tree of `TensorInfo`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", not np.issubdtype(value.np_dtype, np.number) and value.np_dtype != np.bool_


def _episode(fields: _Fields, index: int, record: tuple[str, int, bytes]) -> Episode:
    from tensorflow_datasets.proto import tf_example_pb2

    file, number, serialized = record
    where = f"{file}: record {number}"
    feature = tf_example_pb2.Example.FromString(serialized).features.feature
    instructions = feature[fields.instruction].bytes_list.value
    images = {camera: list(feature[key].bytes_list.value) for camera, key in fields.images.items()}
    steps = len(instructions)
    if not steps or any(len(pictures) != steps for pictures in images.values()):
        raise InputError(f"{where} should have as many pictures as instructions ({steps}), and some; make it again")
    return Episode(
        images=images,
        state=_numbers(feature[fields.state], steps, f"{where}, {fields.state}"),
        actions=_numbers(feature[fields.actions], steps, f"{where}, {fields.actions}"),
        instruction=instructions[0].decode(),
        index=index,
        keep=np.ones(steps, bool),
    )


def _specified(config: DataConfig, features: Any) -> Callable[[int, tuple[str, int, bytes]], Episode]:
    """Reads records as the entry `config.embodiment` says, once it has been checked against the data set's features."""
    from pizero_jax.data.embodiments.specification import check, read_episode
    from pizero_jax.data.embodiments.table import find  # 0.4 s with SciPy's rotations: only who needs it pays for it

    specification = find(config.embodiment)
    steps = dict(_step_features(features["steps"].feature))
    check(specification, {path: (feature.shape, feature.np_dtype) for path, feature in steps.items()})
    for camera, role in config.cameras.items():
        if role not in specification.cameras:
            raise InputError(
                f"config.data.cameras.{camera} = {role!r} is no camera of config.data.embodiment = "
                f"{config.embodiment!r}; it has {', '.join(specification.cameras)}"
            )

    def read(index: int, record: tuple[str, int, bytes]) -> Episode:
        from tensorflow_datasets.proto import tf_example_pb2

        file, number, serialized = record
        recorded = tf_example_pb2.Example.FromString(serialized).features.feature
        try:
            episode = read_episode(
                specification,
                {path: _values(recorded[f"steps/{path}"], feature.shape) for path, feature in steps.items()},
            )
        except (InputError, ValueError) as error:
            raise InputError(f"{file}: record {number}: {error}") from error
        images = {camera: episode.images[role] for camera, role in config.cameras.items()}
        return Episode(images, episode.state, episode.actions, episode.instruction, index, episode.keep)

    return read


def _step_features(features: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, feature) of each field of a step."""
    for name, feature in features.items():
        if hasattr(feature, "items"):
            yield from _step_features(feature, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", feature


def _values(feature: Any, shape: tuple[int | None, ...]) -> list[bytes] | np.ndarray:
    """What all steps record in one field: bytes, or numbers [T, ...]."""
    if feature.bytes_list.value:
        return list(feature.bytes_list.value)
    numbers = np.array(feature.float_list.value or feature.int64_list.value)
    return numbers.reshape(-1, *(-1 if side is None else side for side in shape))


def _numbers(feature: Any, steps: int, where: str) -> Float32[np.ndarray, "T n"]:
    values = np.array(feature.float_list.value or feature.int64_list.value, np.float32)
    if not len(values) or len(values) % steps:
        raise InputError(f"{where} has {len(values)} numbers for {steps} steps; make the data set again")
    if not np.isfinite(values).all():
        step = int(np.argmin(np.isfinite(values))) // (len(values) // steps)
        raise InputError(f"{where} is not finite at step {step}; leave this episode out or repair it")
    return values.reshape(steps, -1)
