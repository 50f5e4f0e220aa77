"""Episodes of an RLDS data set in a TFDS folder, by random access and without TensorFlow.

Source: RLDS, arXiv 2111.02767: a record is an episode, its `steps` a nested data set.
"""

import dataclasses
import difflib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float32
from tqdm import tqdm

from pizero_jax import cores
from pizero_jax.config import DataConfig
from pizero_jax.data import index
from pizero_jax.data.episodes import Cache, Episode, Episodes, Table, report_left_out, step_by_step
from pizero_jax.data.records import read_record, read_records
from pizero_jax.errors import InputError

_NATIVE = ("tfrecord", "array_record")

Read = Callable[[Mapping[str, Any]], Episode]
"""From the features of a tf.Example to an episode, its place still 0."""


def open_split(config: DataConfig, split: str, cache: Cache | None = None) -> Episodes:
    """The episodes of `split` of the data set at `config.path`; TFDS's slices ("train[:90%]") work too.

    All records are read once, for their numbers and checksums; `config.index_dir` remembers what they held.

    Raises:
      InputError: for a folder, split or field that is missing, and, unless `config.on_corrupt` skips those, for a
        record that is damaged or not finite.
    """
    info = _open_info(config)
    parts = _parts(config, info, split)
    read = _specified(config, info.features) if config.embodiment else _recorded(config, info.features)
    files = [str(part.filename) for part in parts]
    if info.file_format.value not in _NATIVE:
        from pizero_jax.data import rlds_tf

        files = rlds_tf.copies(files, info.file_format.value, config.index_dir)
        parts = [part.replace(filename=file) for part, file in zip(parts, files, strict=True)]
    table = index.table(config.index_dir, _key(config, split, files), lambda: _look(config, split, parts, read))
    report_left_out(config.path, table)

    def pictures(number: int) -> Mapping[str, list[bytes]]:
        file, place, _ = table.places[number].tolist()
        return read(_features(read_record(files[file], place))).images

    def source(number: int) -> str:
        file, _, record = table.places[number].tolist()
        return f"{files[file]}: record {record}"

    return Episodes(table, pictures, source, tuple(config.cameras), cache)


def _parts(config: DataConfig, info: Any, split: str) -> Sequence[Any]:
    """The files of a split, and which of their records are in it."""
    if any(part.partition("[")[0] not in info.splits for part in split.split("+")):
        raise InputError(f"config.data.path = {config.path!r} has no split {split!r}; it has {', '.join(info.splits)}")
    try:
        return info.splits[split].file_instructions
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"split {split!r} of config.data.path = {config.path!r} is no slice: {reason}") from error


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


def _key(config: DataConfig, split: str, files: Sequence[str]) -> dict[str, Any]:
    """All that a table depends on."""
    names = ("embodiment", "cameras", "state", "action", "instruction", "other_instructions", "on_corrupt")
    metadata = [(epath.Path(config.path) / name).read_text() for name in ("dataset_info.json", "features.json")]
    fields = {name: getattr(config, name) for name in names}
    return {"split": split, "files": index.files(files), "metadata": metadata, "config": fields}


class _Found(NamedTuple):
    """What one file holds: numbers without pictures."""

    episodes: list[Episode]
    sizes: list[int]
    places: list[tuple[int, int, int]]  # number of the file, place in it, number of the record
    left_out: list[str]


def _look(config: DataConfig, split: str, parts: Sequence[Any], read: Read) -> Table:
    """The table of all records of a split: files in parallel, as far as they wait for the disk and check sums."""
    nothing = InputError(f"split {split!r} of config.data.path = {config.path!r} has no episodes")
    if not parts:
        raise nothing
    threads = min(len(parts), cores.available(), 16)
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda item: _look_at(config, *item, read), enumerate(parts))
        bar = tqdm(found, total=len(parts), unit="file", desc=f"reading {split}", disable=None, delay=2)
        episodes, sizes, places, left_out = (sum(column, []) for column in zip(*bar, strict=True))
    if not episodes:
        raise nothing
    return Table.of(episodes, sizes, places, left_out)


def _look_at(config: DataConfig, file: int, part: Any, read: Read) -> _Found:
    found, name, reached = _Found([], [], [], []), part.filename, 0
    stop = part.examples_in_shard if part.take < 0 else part.skip + part.take

    def damaged(number: int, error: InputError) -> None:
        nonlocal reached
        if config.on_corrupt == "raise":
            raise error
        reached = number + 1
        if part.skip <= number < stop:
            found.left_out.append(str(error))

    for number, place, data in read_records(name, damaged):
        reached = number + 1
        if part.skip <= number < stop:
            try:
                episode = read(_features(data))
            except InputError as error:
                damaged(number, InputError(f"{name}: record {number}: {error}"))
                continue
            found.sizes.append(sum(len(picture) for pictures in episode.images.values() for picture in pictures))
            found.episodes.append(dataclasses.replace(episode, images={}))
            found.places.append((file, place, number))
        if reached >= stop:
            break
    there = reached
    for number in range(max(there, part.skip), stop):
        damaged(number, InputError(f"{name} ends after {there} records; dataset_info.json counts "
                                   f"{part.examples_in_shard}, so that record {number} is lost: copy or make this file "
                                   "again"))  # fmt: skip
    return found


def _features(record: bytes) -> Mapping[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise InputError(f"it is no tf.Example ({error})") from error


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Keys of a tf.Example: those of pictures by camera of the policy."""

    images: Mapping[str, str]
    state: str
    actions: str
    instructions: tuple[str, ...]


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
        instructions=(
            find("config.data.instruction", config.instruction, "steps", text=True),
            *(
                find(f"config.data.other_instructions[{i}]", field, "steps", text=True)
                for i, field in enumerate(config.other_instructions)
            ),
        ),
    )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(key, whether bytes) of each field of a tree of `TensorInfo`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", not np.issubdtype(value.np_dtype, np.number) and value.np_dtype != np.bool_


def _recorded(config: DataConfig, features: Any) -> Read:
    """Reads what the fields of `config` name, as it is recorded."""
    fields = _fields(config, features)

    def read(feature: Mapping[str, Any]) -> Episode:
        instructions = [feature[field].bytes_list.value for field in fields.instructions]
        images = {camera: list(feature[key].bytes_list.value) for camera, key in fields.images.items()}
        steps = len(instructions[0])
        if not steps or any(len(pictures) != steps for pictures in images.values()):
            raise InputError(f"it should have as many pictures as instructions ({steps}), and some; make it again")
        return Episode(
            images=images,
            state=_numbers(feature[fields.state], steps, fields.state),
            actions=_numbers(feature[fields.actions], steps, fields.actions),
            index=0,
            keep=np.ones(steps, bool),
            **_said([[value.decode(errors="replace") for value in values] for values in instructions if values]),
        )

    return read


def _specified(config: DataConfig, features: Any) -> Read:
    """Reads as the entry `config.embodiment` says, once it has been checked against the data set's features."""
    from pizero_jax.data.embodiments.specification import check, read_episode
    from pizero_jax.data.embodiments.table import find  # 0.4 s with SciPy's rotations: only who needs it pays for it

    specification = find(config.embodiment)
    steps = dict(_step_features(features["steps"].feature))
    check(specification, {path: (feature.shape, feature.np_dtype) for path, feature in steps.items()})
    used = set(config.cameras.values())
    for camera, role in config.cameras.items():
        if role not in specification.cameras:
            raise InputError(
                f"config.data.cameras.{camera} = {role!r} is no camera of config.data.embodiment = "
                f"{config.embodiment!r}; it has {', '.join(specification.cameras)}"
            )
    cameras = {role: path for role, path in specification.cameras.items() if role in used}
    specification = dataclasses.replace(specification, cameras=cameras)

    def read(feature: Mapping[str, Any]) -> Episode:
        try:
            fields = {path: _values(feature[f"steps/{path}"], steps[path].shape) for path in specification.paths}
            found = read_episode(specification, fields)
        except (ValueError, zlib.error) as error:
            raise InputError(str(error)) from error
        images = {camera: found.images[role] for camera, role in config.cameras.items()}
        return Episode(images, found.state, found.actions, _wordings(found.instructions), 0, found.keep)

    return read


def _wordings(recorded: Sequence[str]) -> tuple[str, ...]:
    """Those that say something, or one that is empty."""
    return tuple(text for text in recorded if text.strip()) or ("",)


def _said(recorded: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`instructions` and `told` of an episode, of what each field says at each step.

    Where the first field says several things, each step has its own; else the first step tells the wordings.
    """
    if len({text for text in recorded[0] if text.strip()}) > 1:
        instructions, told = step_by_step(recorded[0])
        return dict(instructions=instructions, told=told)
    return dict(instructions=_wordings([texts[0] for texts in recorded]))


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
