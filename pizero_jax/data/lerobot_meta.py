"""What the `meta` folder of a LeRobot data set says: features, episodes, tasks and splits.

v2.1 has a Parquet file and a video for each episode; in v3.0 many episodes share one.
Source: huggingface/lerobot, `src/lerobot/datasets` of 0.3 (v2.1) and 0.6.1 (v3.0).
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pizero_jax.errors import InputError

_AGAIN = "download or make the data set again"


@dataclasses.dataclass(frozen=True)
class Record:
    """Where an episode of the data set lies."""

    index: int
    steps: int
    tasks: tuple[str, ...]
    data: Path  # Parquet
    clips: Mapping[str, tuple[Path, float]]  # feature -> video, and the second of it at which the episode starts


@dataclasses.dataclass(frozen=True)
class Meta:
    fps: float
    features: Mapping[str, Mapping[str, Any]]  # name -> dtype, shape, ...
    records: Sequence[Record]  # by index
    tasks: Mapping[int, str]
    splits: Mapping[str, range]  # of indices


def read(path: str) -> Meta:
    """All of `path`/meta.

    Raises:
      InputError: a file is missing, damaged, of a version that is not read, or contradicts another one.
    """
    root, info = Path(path), _info(path)
    records, tasks = _LAYOUTS[info["codebase_version"]](root, info)
    counted = {"total_episodes": len(records), "total_frames": sum(record.steps for record in records)}
    for key, count in counted.items():
        if info[key] != count:
            raise InputError(f"{root}/meta/info.json has {key} = {info[key]}, the list of episodes {count}; {_AGAIN}")
    if [record.index for record in records] != list(range(len(records))):
        raise InputError(f"the episodes that {root}/meta lists are not numbered 0 to {len(records) - 1}; {_AGAIN}")
    return Meta(float(info["fps"]), info["features"], records, tasks, _splits(root, info))


def hz(path: str) -> float:
    """Steps per second of the data set at `path`."""
    return float(_info(path)["fps"])


def select(meta: Meta, path: str, split: str) -> range:
    """The episodes of `split`, perhaps a slice such as "train[:90%]", "train[-10:]".

    Raises:
      InputError: there is no such split, it is no slice, or it holds no episode.
    """
    name, bracket, rest = split.partition("[")
    if name not in meta.splits:
        raise InputError(f"config.data.path = {path!r} has no split {split!r}; it has {', '.join(meta.splits)}")
    episodes = meta.splits[name]
    if bracket:
        bounds = re.fullmatch(r"(-?\d+%?)?:(-?\d+%?)?\]", rest)
        if not bounds:
            raise InputError(f"split {split!r} should look like {name}[:90%], {name}[90%:] or {name}[:40]")
        episodes = episodes[slice(*(_bound(text, len(episodes)) for text in bounds.groups()))]
    if not episodes:
        raise InputError(f"split {split!r} of config.data.path = {path!r} has no episodes")
    return episodes


def _bound(text: str | None, count: int) -> int | None:
    if text is None:
        return None
    return round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)  # to the closest, as TFDS


def read_columns(file: Path, columns: Sequence[str]) -> Any:
    """The `pyarrow.Table` of these columns of a Parquet file; no other column is read.

    Raises:
      InputError: the file or a column is missing or damaged.
    """
    with opened(file) as parquet:
        missing = set(columns) - set(parquet.schema_arrow.names)
        if missing:
            raise InputError(f"{file} has no column {', '.join(sorted(missing))}; {_AGAIN}")
        return guarded(file, lambda: parquet.read(columns=list(columns)).select(columns))


def opened(file: Path) -> Any:
    """An open `pyarrow.parquet.ParquetFile`."""
    parquet = arrow()
    return guarded(file, lambda: parquet.ParquetFile(file))


def guarded(file: Path, function: Callable[[], Any]) -> Any:
    """What `function` gives; what Arrow says of a broken file becomes an InputError."""
    import pyarrow

    try:
        return function()
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; {_AGAIN}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file} is damaged: {error}; {_AGAIN}") from error


def arrow() -> ModuleType:
    """`pyarrow.parquet`."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError("LeRobot data sets need pyarrow: pip install 'pizero_jax[lerobot]'") from error
    return pyarrow.parquet


def _info(path: str) -> dict[str, Any]:
    file = Path(path) / "meta/info.json"
    if not path or not file.exists():
        raise InputError(f"config.data.path = {path!r} has no meta/info.json: it should be a LeRobot data set's folder")
    info = _parsed(file.read_text(), str(file))
    version = info.get("codebase_version")
    if version not in _LAYOUTS:
        raise InputError(
            f"{file} is of version {version!r}; read are {' and '.join(_LAYOUTS)}. For older ones lerobot 0.3 has the "
            "scripts convert_dataset_v1_to_v2 and convert_dataset_v20_to_v21"
        )
    needed = {"fps", "features", "total_episodes", "total_frames", "data_path"}
    needed |= {"chunks_size"} if version == "v2.1" else set()
    if missing := needed - info.keys():
        raise InputError(f"{file} lacks {', '.join(sorted(missing))}; {_AGAIN}")
    return info


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is no JSON object: {error}; {_AGAIN}") from error


def _splits(root: Path, info: Mapping[str, Any]) -> dict[str, range]:
    total = info["total_episodes"]
    found = {}
    for name, text in (info.get("splits") or {"train": f"0:{total}"}).items():
        bounds = re.fullmatch(r"(\d+):(\d+)", str(text))
        if not bounds or int(bounds[2]) > total:
            raise InputError(f"{root}/meta/info.json has the split {name!r} = {text!r}; it should lie in 0:{total}")
        found[name] = range(int(bounds[1]), int(bounds[2]))
    return found


def _videos(info: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in info["features"].items() if feature["dtype"] == "video"]


def _path(root: Path, info: Mapping[str, Any], key: str, **values: Any) -> Path:
    try:
        return root / info[key].format(**values)
    except (AttributeError, KeyError, ValueError) as error:
        raise InputError(
            f"{root}/meta/info.json has {key} = {info.get(key)!r}, which names no file; {_AGAIN}"
        ) from error


def _lines(file: Path, keys: set[str]) -> Iterator[dict[str, Any]]:
    if not file.exists():
        raise InputError(f"{file} is missing; {_AGAIN}")
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            row = _parsed(line, f"{file}: line {number}")
            if missing := keys - row.keys():
                raise InputError(f"{file}: line {number} lacks {', '.join(sorted(missing))}; {_AGAIN}")
            yield row


def _v21(root: Path, info: Mapping[str, Any]) -> tuple[list[Record], dict[int, str]]:
    def record(row: Mapping[str, Any]) -> Record:
        index = row["episode_index"]
        names = {"episode_chunk": index // info["chunks_size"], "episode_index": index}
        clips = {key: (_path(root, info, "video_path", video_key=key, **names), 0.0) for key in _videos(info)}
        return Record(index, row["length"], tuple(row["tasks"]), _path(root, info, "data_path", **names), clips)

    rows = list(_lines(root / "meta/episodes.jsonl", {"episode_index", "tasks", "length"}))
    rows.sort(key=lambda row: row["episode_index"])
    tasks = {row["task_index"]: row["task"] for row in _lines(root / "meta/tasks.jsonl", {"task_index", "task"})}
    return [record(row) for row in rows], tasks


def _v30(root: Path, info: Mapping[str, Any]) -> tuple[list[Record], dict[int, str]]:
    videos = _videos(info)
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    columns += [f"videos/{key}/{name}" for key in videos for name in ("chunk_index", "file_index", "from_timestamp")]

    def record(row: Mapping[str, Any]) -> Record:
        def file(key: str, place: str, **names: str) -> Path:
            indices = {name: row[f"{place}/{name}"] for name in ("chunk_index", "file_index")}
            return _path(root, info, key, **indices, **names)

        clips = {
            key: (file("video_path", f"videos/{key}", video_key=key), row[f"videos/{key}/from_timestamp"])
            for key in videos
        }
        return Record(row["episode_index"], row["length"], tuple(row["tasks"]), file("data_path", "data"), clips)

    parts = sorted((root / "meta/episodes").glob("*/*.parquet"))
    rows = [row for part in parts for row in read_columns(part, columns).to_pylist()]
    file = root / "meta/tasks.parquet"
    with opened(file) as parquet:  # the text is the index of a pandas table, which has a name or has none
        text = "task" if "task" in parquet.schema_arrow.names else "__index_level_0__"
    tasks = {row["task_index"]: row[text] for row in read_columns(file, ["task_index", text]).to_pylist()}
    return [record(row) for row in sorted(rows, key=lambda row: row["episode_index"])], tasks


_LAYOUTS = {"v2.1": _v21, "v3.0": _v30}
