"""Writes LeRobot data sets (v3.0) from episodes, their pictures as videos or embedded as they are.

Source of the layout: huggingface/lerobot 0.6.1, `src/lerobot/datasets`.
"""

import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from pizero_jax.data import lerobot_stats as stats
from pizero_jax.data.episodes import Episode, Picture
from pizero_jax.data.lerobot_files import FILES_PER_CHUNK, Clips, Tables
from pizero_jax.data.lerobot_meta import arrow
from pizero_jax.data.pictures import decode
from pizero_jax.errors import InputError

_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA, _VIDEO = f"data/{_FILE}.parquet", f"videos/{{video_key}}/{_FILE}.mp4"
_IMAGES = "observation.images."
_SAMPLES = 100  # pictures of an episode that its statistics are of, at most
_ROWS = 100  # of the list of episodes written at a time: each has about a hundred columns


def write(
    path: Path,
    splits: Mapping[str, Iterable[Episode]],
    *,
    fps: float,
    robot: str | None = None,
    video: bool = True,
    data_mb: int = 100,
    video_mb: int = 200,
) -> None:
    """Writes a data set to `path`; the folder appears when it is complete.

    The features are "observation.state", "action" and "observation.images.<camera>"; the first instruction is the task
    of all frames of an episode, the others stand beside it; where it changes, each frame has its own. `keep` has no
    place in the format.

    Args:
      splits: name of the split -> its episodes, read once and one at a time; pictures and vectors of one size.
      fps: steps per second.
      robot: its name, for those who look at the metadata.
      video: H.264 with 4:2:0 colours; otherwise pictures are embedded, encoded ones bit for bit and others as PNG.
      data_mb: MiB at which a new Parquet file starts.
      video_mb: the same for videos.

    Raises:
      InputError: `path` is not empty, there is no episode, or the episodes do not fit each other or the format.
    """
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty; choose another folder or remove it")
    if not 0 < fps < math.inf:
        raise InputError(f"fps = {fps} should be positive")
    arrow()
    unfinished = path.with_name(f".{path.name}.writing")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    (unfinished / "meta").mkdir(parents=True)
    writer = _Writer(unfinished, fps, robot, video, data_mb, video_mb)
    for split, episodes in splits.items():
        writer.add_split(split, episodes)
    writer.close()
    if path.exists():
        path.rmdir()
    unfinished.rename(path)


class _Writer:
    """A data set that grows by an episode at a time."""

    def __init__(self, folder: Path, fps: float, robot: str | None, video: bool, data_mb: int, video_mb: int):
        self._folder, self._video = folder, video
        self._data = Tables(folder, _DATA, data_mb << 20)
        self._list = Tables(folder, f"meta/episodes/{_FILE}.parquet", math.inf)
        self._clips: dict[str, Clips] = {}
        self._rows: list[dict[str, Any]] = []  # of the list of episodes, not yet written
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, stats.Stats] = {}
        self._info: dict[str, Any] = {
            "codebase_version": "v3.0",
            "robot_type": robot,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": data_mb,
            "video_files_size_in_mb": video_mb,
            "fps": int(fps) if fps == int(fps) else fps,
            "splits": {},
            "data_path": _DATA,
            "video_path": _VIDEO if video else None,
            "features": {},
        }

    def add_split(self, split: str, episodes: Iterable[Episode]) -> None:
        start = self._info["total_episodes"]
        for episode in episodes:
            self._add(episode)
        self._info["splits"][split] = f"{start}:{self._info['total_episodes']}"

    def close(self) -> None:
        if not self._info["total_episodes"]:
            raise InputError("there is no episode to write")
        self._write_rows()
        for files in (self._data, self._list, *self._clips.values()):
            files.close()
        self._info["total_tasks"] = len(self._tasks)
        _write_tasks(self._folder / "meta/tasks.parquet", list(self._tasks))
        totals = {name: {key: value.tolist() for key, value in one.items()} for name, one in self._stats.items()}
        for name, content in {"stats": totals, "info": self._info}.items():
            (self._folder / f"meta/{name}.json").write_text(json.dumps(content, indent=4) + "\n")

    def _add(self, episode: Episode) -> None:
        index, start, fps = (self._info[key] for key in ("total_episodes", "total_frames", "fps"))
        features = _features(episode, fps, self._video, index)
        self._info["features"] = self._info["features"] or features
        _check(index, features, self._info["features"])
        for text in episode.instructions:
            self._tasks.setdefault(text, len(self._tasks))
        images = {f"{_IMAGES}{camera}": pictures for camera, pictures in episode.images.items()}
        where = _named(episode, index)
        tasks = [self._tasks[episode.wordings(step)[0]] for step in range(len(episode))]
        numbers = _numbers(episode, index, start, tasks, fps)
        clips = self._record(images, where) if self._video else {}
        columns = {name: _column(values) for name, values in numbers.items()}
        columns |= {} if self._video else {name: _embedded(pictures) for name, pictures in images.items()}
        found = {name: stats.of_numbers(values) for name, values in numbers.items()}
        found |= {name: stats.of_pictures(_sample(pictures, f"{where}, {name}")) for name, pictures in images.items()}
        self._rows.append(
            {"episode_index": index, "tasks": list(episode.instructions), "length": len(episode)}
            | {f"data/{key}": value for key, value in self._data.add(columns).items()}
            | {"dataset_from_index": start, "dataset_to_index": start + len(episode)}
            | clips
            | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            | {f"stats/{name}/{key}": value.tolist() for name, one in found.items() for key, value in one.items()}
        )
        self._stats = {name: stats.merge(self._stats[name], one) if self._stats else one for name, one in found.items()}
        self._info |= {"total_episodes": index + 1, "total_frames": start + len(episode)}
        if len(self._rows) == _ROWS:
            self._write_rows()

    def _record(self, images: Mapping[str, Sequence[Picture]], where: str) -> dict[str, Any]:
        """Appends an episode to the videos; what the list of episodes says of them."""
        row = {}
        for name, pictures in images.items():
            height, width, _ = self._info["features"][name]["shape"]
            if name not in self._clips:
                template, limit = _VIDEO.replace("{video_key}", name), self._info["video_files_size_in_mb"] << 20
                options = {"fps": self._info["fps"], "size": (height, width)}
                self._clips[name] = Clips(self._folder, template, limit, **options)
            frames = _frames(pictures, (height, width, 3), f"{where}, {name}")
            row |= {f"videos/{name}/{key}": value for key, value in self._clips[name].add(frames).items()}
        return row

    def _write_rows(self) -> None:
        if self._rows:
            self._list.add({key: [row[key] for row in self._rows] for key in self._rows[0]})
            self._rows.clear()


def _features(episode: Episode, fps: float, video: bool, index: int) -> dict[str, dict[str, Any]]:
    """As info.json has them."""
    features = {}
    for name, values in {"observation.state": episode.state, "action": episode.actions}.items():
        names = [f"{name.split('.')[-1]}_{i}" for i in range(values.shape[1])]
        features[name] = {"dtype": "float32", "shape": [len(names)], "names": names}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        dtype = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    for camera, pictures in episode.images.items():
        shape = list(_rgb(pictures, 0, f"{_named(episode, index)}, {camera}").shape)
        feature = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
        if video:
            if shape[0] % 2 or shape[1] % 2:
                raise InputError(
                    f"camera {camera!r} of episode {index} has pictures of {shape[0]}x{shape[1]} pixels; videos need "
                    "even sides: embed the pictures instead (--novideo)"
                )
            feature |= {"dtype": "video", "info": _video_info(shape, fps)}
        features[f"{_IMAGES}{camera}"] = feature
    return features


def _video_info(shape: Sequence[int], fps: float) -> dict[str, Any]:
    return {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _check(index: int, features: Mapping[str, Mapping], before: Mapping[str, Mapping]) -> None:
    for name in features.keys() | before.keys():
        shapes = [of[name]["shape"] if name in of else "nothing" for of in (features, before)]
        if shapes[0] != shapes[1]:
            raise InputError(f"episode {index} has {shapes[0]} for {name}, the ones before it {shapes[1]}")


def _numbers(
    episode: Episode, index: int, start: int, tasks: Sequence[int], fps: float
) -> dict[str, Num[np.ndarray, "T ..."]]:
    steps = np.arange(len(episode))
    return {
        "observation.state": episode.state.astype(np.float32),
        "action": episode.actions.astype(np.float32),
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full_like(steps, index),
        "index": start + steps,
        "task_index": np.array(tasks),
    }


def _column(values: Num[np.ndarray, "T ..."]) -> Any:
    """A column of numbers, or of lists of a fixed length greater than 1."""
    import pyarrow

    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.size == len(values) else pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _embedded(pictures: Sequence[Picture]) -> Any:
    """A column of files: those that the pictures are, or PNG files of them."""
    import pyarrow

    files = [picture if isinstance(picture, bytes) else _png(picture) for picture in pictures]
    suffixes = ["jpg" if file[:2] == b"\xff\xd8" else "png" for file in files]
    names = pyarrow.array([f"frame-{i:06d}.{suffix}" for i, suffix in enumerate(suffixes)])
    return pyarrow.StructArray.from_arrays([pyarrow.array(files, pyarrow.binary()), names], ["bytes", "path"])


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _named(episode: Episode, index: int) -> str:
    """Where it comes from, if it says so."""
    return episode.source or f"episode {index}"


def _rgb(pictures: Sequence[Picture], step: int, where: str) -> UInt8[np.ndarray, "h w 3"]:
    try:
        return decode(picture) if isinstance(picture := pictures[step], bytes) else picture
    except (InputError, ValueError) as error:
        raise InputError(f"{where}: the picture of step {step} cannot be decoded: {error}") from error


def _sample(pictures: Sequence[Picture], where: str) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Some pictures of an episode, evenly spaced."""
    for i in np.unique(np.linspace(0, len(pictures) - 1, _SAMPLES).round().astype(int)):
        yield _rgb(pictures, int(i), where)


def _frames(pictures: Sequence[Picture], shape: tuple[int, ...], where: str) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    for i in range(len(pictures)):
        frame = _rgb(pictures, i, where)
        if frame.shape != shape:
            raise InputError(f"{where} has a picture of shape {frame.shape} at step {i}; the first has {shape}")
        yield frame


def _write_tasks(file: Path, tasks: Sequence[str]) -> None:
    """The table of tasks as pandas writes it, the texts as its index, which is how lerobot looks them up."""
    import pyarrow

    index = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    column = index | {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": [column, index], "pandas_version": "2.0.0"}
    table = pyarrow.table({"task_index": pyarrow.array(range(len(tasks)), pyarrow.int64()), "task": list(tasks)})
    arrow().write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), file)
