"""Episodes of a LeRobot data set (v2.1, v3.0) in a local folder, through pyarrow and PyAV; lerobot is not needed.

Numbers are read once, as columns. Pictures stay encoded: embedded ones are read per episode, frames of videos are
decoded when they are taken.
"""

import dataclasses
import difflib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from tqdm import tqdm

from pizero_jax.config import DataConfig
from pizero_jax.data import lerobot_meta
from pizero_jax.data.episodes import Cache, Episode, Episodes, Pictures, Table, report_left_out, step_by_step
from pizero_jax.data.lerobot_meta import Meta, Record, hz
from pizero_jax.data.video import Frames
from pizero_jax.errors import InputError

__all__ = ["hz", "open_split"]

_ROWS = 64  # read at a time where one row group holds many episodes with their pictures


def open_split(config: DataConfig, split: str, cache: Cache | None = None) -> Episodes:
    """The episodes of `split` of the data set at `config.path`; slices by episodes ("train[:90%]") work too.

    Fields are features, by their full or short names: "observation.images.top" or "top", "observation.state" or
    "state". An instruction is the task of its frame; if an episode has one only, the others in the list of episodes are
    other words for it. `config.instruction` is not read. The table's sizes are the bytes of the
    embedded pictures, and for videos the episode's share of the file, of which nothing is held.

    Raises:
      InputError: for a split, feature or metadata that are missing or damaged, and, unless `config.on_corrupt` skips
        those, for an episode whose file is missing, damaged, not finite or contradicts the metadata.
    """
    meta = lerobot_meta.read(config.path)
    fields = _fields(config, meta)
    records = [meta.records[index] for index in lerobot_meta.select(meta, config.path, split)]
    left_out: list[str] = []

    def damaged(error: InputError) -> None:
        if config.on_corrupt == "raise":
            raise error
        left_out.append(str(error))

    found = _read(meta, fields, records, damaged)
    if not found:
        raise InputError(f"split {split!r} of config.data.path = {config.path!r} has no episode that is whole: "
                         f"{left_out[0]}")  # fmt: skip
    places = [[one.record.index, one.first] for one in found]
    table = Table.of([one.episode for one in found], [one.size for one in found], places, left_out)
    report_left_out(config.path, table)

    def pictures(number: int) -> Pictures:
        return _pictures(meta, fields, found[number])

    def source(number: int) -> str:
        return f"{found[number].record.data}: episode {found[number].record.index}"

    return Episodes(table, pictures, source, tuple(config.cameras), cache)


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Names of features: those of pictures by camera of the policy."""

    cameras: Mapping[str, str]
    state: str
    actions: str

    def of(self, meta: Meta, dtype: str) -> list[str]:
        """Those of the cameras that are stored as `dtype`."""
        return [name for name in dict.fromkeys(self.cameras.values()) if meta.features[name]["dtype"] == dtype]


def _fields(config: DataConfig, meta: Meta) -> _Fields:
    if config.embodiment:
        raise InputError(
            f"config.data.embodiment = {config.embodiment!r} is for RLDS data sets; leave it empty for LeRobot's"
        )

    def find(path: str, name: str, *places: str, pictures: bool) -> str:
        full = next((place + name for place in ("", *places) if place + name in meta.features), None)
        there = [key for key, feature in meta.features.items() if _is_picture(feature) == pictures]
        if full is None:
            near = difflib.get_close_matches(places[0] + name if places else name, there, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path} = {name!r} is not a feature of the data set; {hint}It has {', '.join(there)}")
        if full not in there or not (pictures or _is_number(meta.features[full])):
            kind, dtype = "pictures" if pictures else "numbers", meta.features[full]["dtype"]
            raise InputError(f"{path} = {name!r} should be {kind} in meta/info.json; {full} is of dtype {dtype!r}")
        return full

    return _Fields(
        cameras={
            camera: find(f"config.data.cameras.{camera}", name, "observation.images.", "observation.", pictures=True)
            for camera, name in config.cameras.items()
        },
        state=find("config.data.state", config.state, "observation.", pictures=False),
        actions=find("config.data.action", config.action, pictures=False),
    )


def _is_picture(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"] in ("image", "video")


def _is_number(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"].startswith(("float", "int", "uint", "bool"))


class _Found(NamedTuple):
    """An episode without its pictures, and where these are."""

    record: Record
    episode: Episode
    first: int  # row in its Parquet file
    times: Float32[np.ndarray, "T"]  # seconds of the episode
    size: int  # bytes that its encoded pictures take


def _read(
    meta: Meta, fields: _Fields, records: Sequence[Record], damaged: Callable[[InputError], None]
) -> list[_Found]:
    """Of the records those that are whole; `damaged` hears of the others. A file is read once."""
    by_file: dict[Path, list[int]] = {}
    for number, record in enumerate(records):
        by_file.setdefault(record.data, []).append(number)
    found, size = {}, _sizes(meta, fields)
    for file, numbers in tqdm(by_file.items(), unit="file", desc="reading", disable=None, delay=2):
        try:
            columns = _columns(meta, fields, file)
        except InputError as error:
            for number in numbers:
                damaged(InputError(f"episode {records[number].index}: {error}"))
            continue
        runs = _runs(columns["episode_index"])
        for number in numbers:
            try:
                found[number] = _find(meta, fields, records[number], columns, runs, size)
            except InputError as error:
                damaged(error)
    return [found[number] for number in sorted(found)]


def _find(
    meta: Meta,
    fields: _Fields,
    record: Record,
    columns: Mapping[str, np.ndarray],
    runs: Mapping[int, tuple[int, int]],
    size: Callable[[Record], int],
) -> _Found:
    """A record among the columns of its file."""
    first, steps = runs.get(record.index, (0, 0))
    if steps != record.steps:
        raise InputError(
            f"{record.data} has {steps} frames of episode {record.index} in a row, the list of episodes "
            f"{record.steps}; download or make the data set again"
        )
    values = {name: column[first : first + steps] for name, column in columns.items()}
    episode = _episode(meta, fields, record, values)
    return _Found(record, episode, first, values["timestamp"].astype(np.float32), size(record))


def _columns(meta: Meta, fields: _Fields, file: Path) -> dict[str, np.ndarray]:
    widths = {name: math.prod(meta.features[name]["shape"]) for name in (fields.state, fields.actions)}
    table = lerobot_meta.read_columns(file, [*widths, "timestamp", "task_index", "episode_index"])
    return {name: _array(table.column(name), widths.get(name), f"{file}: {name}") for name in table.column_names}


def _array(column: Any, width: int | None, where: str) -> np.ndarray:
    """The numbers [rows], or [rows, width], of a column of numbers or of lists of them."""
    rows, values = len(column), column.combine_chunks()
    while hasattr(values.type, "value_type"):  # lists, perhaps of lists
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "fiub" or len(numbers) != rows * (width or 1):
        raise InputError(
            f"{where} has {len(numbers)} values of type {values.type} for {rows} frames of {width or 1} numbers; "
            "download or make the data set again"
        )
    return numbers if width is None else numbers.reshape(rows, width)


def _runs(indices: Int64[np.ndarray, "N"]) -> dict[int, tuple[int, int]]:
    """First row and number of rows of each episode of a file."""
    firsts = np.flatnonzero(np.diff(indices, prepend=-1))
    steps = np.diff(firsts, append=len(indices))
    return {int(indices[first]): (int(first), int(n)) for first, n in zip(firsts, steps, strict=True)}


def _episode(meta: Meta, fields: _Fields, record: Record, values: Mapping[str, np.ndarray]) -> Episode:
    where = f"{record.data}: episode {record.index}"
    for name, column in values.items():
        broken = ~np.isfinite(column).reshape(record.steps, -1).all(1)
        if broken.any():
            raise InputError(f"{where}, {name} is not finite at frame {np.argmax(broken)}; repair it or leave it out")
    unknown = set(values["task_index"].tolist()) - meta.tasks.keys()
    if unknown:
        raise InputError(f"{where} has task_index {min(unknown)}, which is not among the tasks in meta; make it again")
    tasks, told = step_by_step([meta.tasks[index] for index in values["task_index"].tolist()])
    return Episode(
        images={},
        state=values[fields.state].astype(np.float32),
        actions=values[fields.actions].astype(np.float32),
        instructions=tasks if len(tasks) > 1 else tuple(dict.fromkeys((*tasks, *record.tasks))),
        index=0,
        keep=np.ones(record.steps, bool),
        told=told if len(tasks) > 1 else None,
    )


def _sizes(meta: Meta, fields: _Fields) -> Callable[[Record], int]:
    """For the encoded bytes of the pictures of a record: its share, by frames, of what they take in its files."""
    images, videos = fields.of(meta, "image"), fields.of(meta, "video")

    def files(record: Record) -> list[tuple[Path, bool]]:
        return [(record.data, True)] * bool(images) + [(record.clips[name][0], False) for name in videos]

    frames = Counter()
    for record in meta.records:
        frames.update({file: record.steps for file, _ in files(record)})

    @functools.cache
    def taken(file: Path, embedded: bool) -> int:
        if not file.exists():
            raise InputError(f"{file} is missing; download the data set again")
        return _embedded_bytes(file, images) if embedded else file.stat().st_size

    def size(record: Record) -> int:
        return sum(taken(file, embedded) * record.steps // frames[file] for file, embedded in files(record))

    return size


def _embedded_bytes(file: Path, features: Sequence[str]) -> int:
    with lerobot_meta.opened(file) as parquet:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    names = tuple(f"{name}." for name in features)
    return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.startswith(names))


def _pictures(meta: Meta, fields: _Fields, found: _Found) -> Pictures:
    embedded = _embedded(found.record, found.first, fields.of(meta, "image"))

    def of(name: str) -> Sequence[Any]:
        if name in embedded:
            return embedded[name]
        file, start = found.record.clips[name]
        return Frames(file, start + found.times.astype(np.float64), meta.fps)

    return {camera: of(name) for camera, name in fields.cameras.items()}


def _embedded(record: Record, first: int, features: Sequence[str]) -> dict[str, list[bytes]]:
    """By feature, the encoded pictures in the rows of an episode."""
    pictures: dict[str, list[bytes]] = {name: [] for name in features}
    if not features:
        return pictures
    end = first + record.steps
    with lerobot_meta.opened(record.data) as parquet:
        starts = np.cumsum([0, *(parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups))])
        groups = [i for i in range(parquet.num_row_groups) if starts[i] < end and first < starts[i + 1]]
        batches = parquet.iter_batches(_ROWS, row_groups=groups, columns=list(features), use_threads=False)
        row = int(starts[groups[0]])
        while row < end:
            batch = lerobot_meta.guarded(record.data, lambda: next(batches))
            inside = slice(max(first - row, 0), max(end - row, 0))
            for name in features:
                pictures[name] += _bytes(batch.column(name)[inside], f"{record.data}: episode {record.index}, {name}")
            row += len(batch)
    return pictures


def _bytes(column: Any, where: str) -> list[bytes]:
    try:
        found = column.field("bytes").to_pylist()
    except (AttributeError, KeyError) as error:
        raise InputError(f"{where} has pictures of type {column.type}, not with their bytes; make it again") from error
    if None in found:
        raise InputError(f"{where} names files instead of holding the pictures; make it again with embedded ones")
    return found
