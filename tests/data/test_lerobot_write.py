import json
import os
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from pizero_jax.data import lerobot, lerobot_stats, lerobot_write
from pizero_jax.data.episodes import Episode
from pizero_jax.data.pictures import decode
from pizero_jax.data.rlds_write import encode_jpeg
from pizero_jax.errors import InputError
from tests.data.make_lerobot import LENGTHS, numbers, picture, png, spelled, task_indices, tasks

CAMERAS = ("front", "hand")
ENCODERS = {"jpeg": lambda image: encode_jpeg(image, 90), "png": png, "grey levels": lambda image: image}


def episode(index, encoding="jpeg", **values):
    images = {
        name: [ENCODERS[encoding](picture(camera, index, t)) for t in range(LENGTHS[index])]
        for camera, name in enumerate(CAMERAS)
    }
    recorded = numbers(index)
    fields = dict(
        images=images,
        state=recorded["observation.state"],
        actions=recorded["action"],
        instructions=tuple(tasks(index)),
        told=told if (told := task_indices(index) - task_indices(index)[0]).any() else None,
        index=index,
        keep=np.ones(LENGTHS[index], bool),
    )
    return Episode(**fields | values)


def rgb(image):
    return decode(image) if isinstance(image, bytes) else image


def write(folder, encoding="jpeg", **options):
    splits = {"train": (episode(i, encoding) for i in range(4)), "val": [episode(4, encoding), episode(5, encoding)]}
    lerobot_write.write(folder, splits, **{"fps": 10, "robot": "paper"} | options)
    return folder


@pytest.fixture
def read(change):
    def opened(folder, split, **values):
        values = dict(cameras={c: c for c in CAMERAS}, state="state", action="action") | values
        return lerobot.open_split(change(path=str(folder), **values).data, split)

    return opened


def table(folder, name):
    return pq.read_table(folder / name).to_pylist()


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("video", [True, False])
def test_what_is_written_is_read_again(read, tmp_path, video, encoding):
    folder = write(tmp_path / "data", encoding, video=video)
    found = [*read(folder, "train"), *read(folder, "val")]
    assert len(found) == len(LENGTHS)
    for i, back in enumerate(found):
        expected = episode(i, encoding)
        assert back.state.tobytes() == expected.state.tobytes()
        assert back.actions.tobytes() == expected.actions.tobytes()
        assert [back.wordings(t) for t in range(len(back))] == [expected.wordings(t) for t in range(len(back))]
        for camera, name in enumerate(CAMERAS):
            for t in range(LENGTHS[i]):
                image, wanted = back.images[name][t], expected.images[name][t]
                if video:
                    assert spelled(image) == (camera, i, t)
                    assert np.abs(image.astype(int) - rgb(wanted)).mean() < 2
                elif encoding == "grey levels":
                    np.testing.assert_array_equal(rgb(image), wanted)
                else:
                    assert image == wanted
    assert lerobot.hz(str(folder)) == 10.0
    assert not list(tmp_path.glob(".*"))


def test_colours_of_a_video_stay_within_a_few_grey_levels(read, tmp_path):
    y, x = np.mgrid[:48, :64]
    frames = [np.stack([x * 3, y * 4, 240 - x * 2 - y * 2 + t], -1).astype(np.uint8) for t in range(5)]
    made = episode(0, images={"front": frames})
    lerobot_write.write(tmp_path / "data", {"train": [made]}, fps=15)
    back = read(tmp_path / "data", "train", cameras={"front": "front"})[0].images["front"]
    for frame, image in zip(frames, back, strict=True):
        difference = np.abs(frame.astype(int) - image)
        assert difference.mean() < 3  # measured: 2.1, most of it of colours, which have half the resolution
        assert difference.max() < 20


def test_full_files_are_followed_by_others(read, tmp_path):
    folder = write(tmp_path / "data", data_mb=0, video_mb=0)
    assert len(list(folder.glob("data/*/*.parquet"))) == len(LENGTHS)
    assert len(list(folder.glob("videos/*/*/*.mp4"))) == 2 * len(LENGTHS)
    for i, back in enumerate(read(folder, "train")):
        assert [spelled(image) for image in back.images["hand"]] == [(1, i, t) for t in range(LENGTHS[i])]


def test_a_rate_that_is_no_whole_number_keeps_every_frame(read, tmp_path):
    folder = write(tmp_path / "data", fps=7.5)
    assert lerobot.hz(str(folder)) == 7.5
    back = read(folder, "train")[2]
    assert [spelled(image) for image in back.images["front"]] == [(0, 2, t) for t in range(LENGTHS[2])]


@pytest.mark.parametrize("video", [True, False])
def test_the_metadata_are_complete(tmp_path, video):
    folder = write(tmp_path / "data", video=video)
    info = json.loads((folder / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "paper",
        "total_episodes": 6,
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 10,
        "splits": {"train": "0:4", "val": "4:6"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if video else None,
    }
    own = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    images = {"observation.images.front", "observation.images.hand"}
    assert features.keys() == {"observation.state", "action"} | own | images
    assert features["observation.images.front"]["dtype"] == ("video" if video else "image")
    assert features["observation.images.front"]["shape"] == [48, 64, 3]
    stored = pq.read_schema(folder / "data/chunk-000/file-000.parquet").names
    assert set(stored) == features.keys() - (images if video else set())
    assert json.loads((folder / "meta/stats.json").read_text()).keys() == features.keys()
    rows = table(folder, "meta/episodes/chunk-000/file-000.parquet")
    assert [row["length"] for row in rows] == list(LENGTHS)
    assert [row["dataset_to_index"] for row in rows] == np.cumsum(LENGTHS).tolist()
    assert {key.split("/")[1] for key in rows[0] if key.startswith("stats/")} == features.keys()
    frames = table(folder, "data/chunk-000/file-000.parquet")
    assert [frame["index"] for frame in frames] == list(range(sum(LENGTHS)))
    assert [frame["frame_index"] for frame in frames[:7]] == [0, 1, 2, 3, 4, 0, 1]
    assert table(folder, "meta/tasks.parquet") == [{"task_index": i, "task": task} for i, task in enumerate(tasks(2))]


def test_statistics_are_those_of_the_recorded_numbers():
    values = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32)
    found = lerobot_stats.of_numbers(values)
    np.testing.assert_allclose(found["q10"], np.sort(values, 0)[10])
    np.testing.assert_allclose(found["mean"], values.astype(float).mean(0))
    np.testing.assert_allclose(found["std"], values.astype(float).std(0))
    assert found["count"].tolist() == [101]


def test_statistics_of_pictures_are_those_of_their_pixels():
    images = np.random.default_rng(0).integers(3, 250, (2, 20, 5, 3), np.uint8)
    found = lerobot_stats.of_pictures(images)
    pixels = images.reshape(-1, 3) / 255
    for name, of_pixels in {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}.items():
        np.testing.assert_allclose(found[name], of_pixels(pixels, axis=0).reshape(3, 1, 1))
    for name, share in {"q01": 0.01, "q50": 0.5, "q99": 0.99}.items():
        expected = np.quantile(pixels, share, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found[name], expected.reshape(3, 1, 1))


def test_merged_statistics_are_those_of_all_numbers():
    parts = np.split(np.random.default_rng(0).normal(size=(60, 2)), [7, 40])
    merged = lerobot_stats.of_numbers(parts[0])
    for part in parts[1:]:
        merged = lerobot_stats.merge(merged, lerobot_stats.of_numbers(part))
    whole = lerobot_stats.of_numbers(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name])
    np.testing.assert_allclose(merged["q50"], whole["q50"], atol=0.3)  # a weighted mean, as lerobot has it


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_appears_when_the_episodes_end_with_an_error(tmp_path):
    def interrupted():
        yield episode(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lerobot_write.write(tmp_path / "data", {"train": interrupted()}, fps=10)
    assert not (tmp_path / "data").exists()
    write(tmp_path / "data")  # what it left does not disturb the next one
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: [], "there is no episode"),
        (lambda: [episode(0), episode(1, state=np.zeros((9, 4)))], r"episode 1 has \[4\] for observation\.state"),
        (
            lambda: [episode(0), episode(1, images={})],
            r"episode 1 has nothing for observation\.images",
        ),
        (lambda: [episode(0, images={"front": [b"no picture"] * 5})], "cannot be decoded"),
        (lambda: [episode(0, images={"front": [np.zeros((47, 64, 3), np.uint8)] * 5})], "47x64.* even"),
        (
            lambda: [episode(0, images={"front": [np.zeros((2 + 2 * (t > 3), 64, 3), np.uint8) for t in range(5)]})],
            r"episode 0, observation\.images\.front has a picture of shape \(4, 64, 3\) at step 4",
        ),
    ],
)
def test_episodes_that_do_not_fit_are_named(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        lerobot_write.write(tmp_path / "data", {"train": wrong()}, fps=10)


LEROBOT = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

data = LeRobotDataset("local/data", root=sys.argv[1], video_backend="pyav")
items = [data[i] for i in range(len(data))]
names = ["observation.images.front", "observation.images.hand", "observation.state", "action", "episode_index"]
columns = {name: np.stack([item[name].numpy() for item in items]) for name in names}
stats = {f"stats/{name}": data.meta.stats[name]["mean"] for name in names}
np.savez(sys.argv[2], tasks=[item["task"] for item in items], fps=data.fps, **columns, **stats)
"""


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
@pytest.mark.parametrize("video", [True, False])
def test_lerobot_reads_the_same(lerobot_python, read, tmp_path, video):
    folder = write(tmp_path / "data", video=video)
    command = [lerobot_python, "-c", LEROBOT, folder, tmp_path / "theirs.npz"]
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    theirs = np.load(tmp_path / "theirs.npz")
    ours = [*read(folder, "train"), *read(folder, "val")]
    np.testing.assert_array_equal(theirs["observation.state"], np.concatenate([e.state for e in ours]))
    np.testing.assert_array_equal(theirs["action"], np.concatenate([e.actions for e in ours]))
    np.testing.assert_array_equal(theirs["episode_index"], np.repeat(range(len(LENGTHS)), LENGTHS))
    assert theirs["tasks"].tolist() == [e.instruction for e in ours for _ in range(len(e))]
    assert theirs["fps"] == 10
    for camera, name in enumerate(CAMERAS):
        frames = np.round(theirs[f"observation.images.{name}"].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        steps = [(camera, i, t) for i, length in enumerate(LENGTHS) for t in range(length)]
        assert [spelled(frame) for frame in frames] == steps
        mine = np.stack([rgb(image) for e in ours for image in e.images[name]])
        assert np.abs(frames.astype(int) - mine).max() <= 3  # of two JPEG decoders; of a video: none
        assert theirs[f"stats/observation.images.{name}"].shape == (3, 1, 1)
