"""Writes small LeRobot data sets, v2.1 and v3.0, by the layout alone: nothing here comes from `pizero_jax`.

Layout: huggingface/lerobot, `src/lerobot/scripts/convert_dataset_v21_to_v30.py` of 0.6.1, which describes both, and
`src/lerobot/datasets/{utils,dataset_writer,dataset_metadata}.py`. Statistics, which no reader here needs, are left out.
"""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 30
LENGTHS = (5, 9, 13, 7, 3, 11)
TASKS = ("open the drawer", "close it")
CAMERAS = {"observation.images.top": 0, "observation.images.wrist": 1}
SIDES = 48, 64
BLOCK = 16
DATA_FILES = ((0, 1, 2, 3), (4, 5))  # episodes of each, in v3.0
VIDEO_FILES = {"observation.images.top": ((0, 1, 2), (3, 4, 5)), "observation.images.wrist": ((0, 1), (2, 3, 4, 5))}
OPTIONS = {"observation.images.top": {"g": "2", "bf": "0"}, "observation.images.wrist": {"g": "12", "bf": "3"}}


def picture(camera: int, episode: int, frame: int) -> np.ndarray:
    """Blocks, dark or light, that spell (camera, episode, frame) in bits: `spelled` reads them after any codec."""
    bits = [int(bit) for bit in f"{camera:01b}{episode:04b}{frame:07b}"]
    levels = np.where(np.array(bits).reshape(3, 4), 215, 40).astype(np.uint8)
    return np.repeat(levels.repeat(BLOCK, 0).repeat(BLOCK, 1)[..., None], 3, axis=-1)


def spelled(image: np.ndarray) -> tuple[int, int, int]:
    blocks = image.astype(float).mean(-1).reshape(3, BLOCK, 4, BLOCK).mean((1, 3))
    assert (np.abs(blocks - 128) > 70).all(), "a block that is neither dark nor light"
    bits = "".join("01"[int(level > 128)] for level in blocks.ravel())
    return int(bits[0], 2), int(bits[1:5], 2), int(bits[5:], 2)


def numbers(episode: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(episode)
    shape = LENGTHS[episode], 3
    return {
        "observation.state": rng.normal(size=shape).astype(np.float32),
        "action": rng.normal(size=shape).astype(np.float32)[:, :2],
        "gripper": rng.normal(size=LENGTHS[episode]).astype(np.float32),
    }


def task_indices(episode: int) -> np.ndarray:
    """The task changes in the middle of episode 2."""
    steps = np.arange(LENGTHS[episode])
    return np.where((episode == 2) & (steps >= 6), 1, episode % 2)


def tasks(episode: int) -> list[str]:
    return [TASKS[i] for i in dict.fromkeys(task_indices(episode).tolist())]


def write_v21(folder: Path, dtype: str = "video") -> Path:
    paths = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "chunks_size": 4,  # so that two of the episodes lie in a second chunk
        "total_videos": len(LENGTHS) * len(CAMERAS),
        "total_chunks": 2,
    }
    episodes = range(len(LENGTHS))
    write_info(folder, "v2.1", dtype, paths)
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(TASKS)])
    rows = [{"episode_index": i, "tasks": tasks(i), "length": LENGTHS[i]} for i in episodes]
    write_lines(folder / "meta/episodes.jsonl", rows)
    for i in episodes:
        write_data(folder / f"data/chunk-{i // 4:03d}/episode_{i:06d}.parquet", [i], dtype)
        for camera in CAMERAS if dtype == "video" else ():
            write_video(folder / f"videos/chunk-{i // 4:03d}/{camera}/episode_{i:06d}.mp4", camera, [i])
    return folder


def write_v30(folder: Path, dtype: str = "video") -> Path:
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
    }
    write_info(folder, "v3.0", dtype, paths)
    rows = [{"episode_index": i, "tasks": tasks(i), "length": length} for i, length in enumerate(LENGTHS)]
    for number, group in enumerate(DATA_FILES):
        write_data(folder / f"data/chunk-000/file-{number:03d}.parquet", group, dtype)
        for i in group:
            rows[i] |= {"data/chunk_index": 0, "data/file_index": number}
    for i, row in enumerate(rows):
        row |= {"dataset_from_index": sum(LENGTHS[:i]), "dataset_to_index": sum(LENGTHS[: i + 1])}
    for camera, files in VIDEO_FILES.items() if dtype == "video" else ():
        for number, group in enumerate(files):
            write_video(folder / f"videos/{camera}/chunk-000/file-{number:03d}.mp4", camera, group)
            start = 0
            for i in group:
                times = {"from_timestamp": start / FPS, "to_timestamp": (start + LENGTHS[i]) / FPS}
                place = {"chunk_index": 0, "file_index": number} | times
                rows[i] |= {f"videos/{camera}/{key}": value for key, value in place.items()}
                start += LENGTHS[i]
    for number, part in enumerate((rows[:4], rows[4:])):
        place = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": number}
        file = made(folder / f"meta/episodes/chunk-000/file-{number:03d}.parquet")
        pq.write_table(pa.Table.from_pylist([row | place for row in part]), file)
    frame = pa.table({"task_index": pa.array(range(len(TASKS))), "__index_level_0__": list(TASKS)})
    pq.write_table(frame, folder / "meta/tasks.parquet")
    return folder


def write_info(folder: Path, version: str, dtype: str, paths: dict) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "gripper": {"dtype": "float32", "shape": [1], "names": None},
        "note": {"dtype": "string", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None}
           for name in ("frame_index", "episode_index", "index", "task_index")},
        **{camera: {"dtype": dtype, "shape": [*SIDES, 3], "names": ["height", "width", "channels"]}
           for camera in CAMERAS},
    }  # fmt: skip
    info = {
        "codebase_version": version,
        "robot_type": "paper",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": len(TASKS),
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "features": features,
    }
    made(folder / "meta/info.json").write_text(json.dumps(info | paths, indent=4))


def write_data(file: Path, episodes, dtype: str) -> None:
    """A row group per episode, except in the first file, which has one for all, as pandas writes it."""
    tables = []
    for i in episodes:
        values, steps = numbers(i), np.arange(LENGTHS[i])
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(values["observation.state"].ravel(), 3),
            "action": pa.array(values["action"].tolist(), pa.list_(pa.float32())),
            "gripper": values["gripper"],
            "note": ["-"] * len(steps),
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(steps), i),
            "index": steps + sum(LENGTHS[:i]),
            "task_index": task_indices(i),
        }
        for camera, number in CAMERAS.items() if dtype == "image" else ():
            rows = [{"bytes": png(picture(number, i, t)), "path": f"frame-{t:06d}.png"} for t in steps]
            columns[camera] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        tables.append(pa.table(columns))
    if 0 in episodes:
        tables = [pa.concat_tables(tables).combine_chunks()]
    with pq.ParquetWriter(made(file), tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def write_video(file: Path, camera: str, episodes) -> None:
    with av.open(str(made(file)), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=OPTIONS[camera] | {"crf": "20"})
        stream.height, stream.width = SIDES
        stream.pix_fmt = "yuv420p"
        steps = [(i, t) for i in episodes for t in range(LENGTHS[i])]
        for count, (i, t) in enumerate(steps):
            frame = av.VideoFrame.from_ndarray(picture(CAMERAS[camera], i, t), format="rgb24")
            frame.pts, frame.time_base = count, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_lines(file: Path, rows) -> None:
    made(file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
