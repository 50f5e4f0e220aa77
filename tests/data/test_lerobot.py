import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pizero_jax.data import lerobot, video
from pizero_jax.data.episodes import Cache
from pizero_jax.data.pictures import decode
from pizero_jax.errors import InputError
from tests.data import make_lerobot
from tests.data.make_lerobot import LENGTHS

WRITERS = {"v2.1": make_lerobot.write_v21, "v3.0": make_lerobot.write_v30}
KINDS = [(version, dtype) for version in WRITERS for dtype in ("video", "image")]
CAMERAS = {"base": "top", "hand": "observation.images.wrist"}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("lerobot")
    return {kind: WRITERS[kind[0]](root / "-".join(kind), kind[1]) for kind in KINDS}


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture
def read(change, folders):
    """Opens a data set by its kind, or one in another folder."""

    def opened(where, split="train", cache=None, **values):
        path = folders[where] if isinstance(where, tuple) else where
        values = dict(cameras=CAMERAS, state="state", action="action") | values
        return lerobot.open_split(change(path=str(path), **values).data, split, cache)

    return opened


@pytest.fixture
def broken(folders, tmp_path):
    """A copy of a data set to be broken."""
    return lambda *kind: shutil.copytree(folders[kind], tmp_path / "broken")


def rgb(picture):
    return decode(picture) if isinstance(picture, bytes) else picture


def seen(episode, camera, frame):
    return make_lerobot.spelled(rgb(episode.images[camera][frame]))


def edit(file, **values):
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def replace_column(file, name, values):
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), file)


def test_episodes_hold_what_was_written(read, kind):
    episodes = read(kind)
    assert episodes.lengths.tolist() == list(LENGTHS)
    for index, episode in enumerate(episodes):
        expected = make_lerobot.numbers(index)
        np.testing.assert_array_equal(episode.state, expected["observation.state"])
        np.testing.assert_array_equal(episode.actions, expected["action"])
        assert episode.state.dtype == episode.actions.dtype == np.float32
        said = [make_lerobot.TASKS[task] for task in make_lerobot.task_indices(index)]
        assert [episode.wordings(step) for step in range(len(episode))] == [(text,) for text in said]
        assert [episodes.wordings(index, step) for step in range(len(episode))] == [(text,) for text in said]
        assert episode.index == index
        assert episode.keep.all()
        assert f"episode {index}" in episode.source


def test_frames_are_those_of_their_step_in_any_order(read, kind):
    episodes = read(kind)
    steps = [(camera, i, t) for camera in (0, 1) for i, length in enumerate(LENGTHS) for t in range(length)]
    shuffled = np.random.default_rng(0).permutation(steps).tolist()
    backwards = steps[::-1]
    every_third = [step for first in range(3) for step in steps[first::3]]
    for order in (steps, shuffled, backwards, every_third):
        for camera, i, t in order:
            assert seen(episodes[i], list(CAMERAS)[camera], t) == (camera, i, t)


def test_iterating_over_a_camera_gives_its_frames(read, kind):
    for i, episode in enumerate(read(kind)):
        for camera, name in enumerate(CAMERAS):
            pictures = episode.images[name]
            assert len(pictures) == LENGTHS[i]
            assert [make_lerobot.spelled(rgb(p)) for p in pictures] == [(camera, i, t) for t in range(LENGTHS[i])]


@pytest.mark.parametrize("version", WRITERS)
def test_threads_see_the_same_frames(read, version):
    episodes = read((version, "video"))

    def look(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            camera, i = rng.integers(2), rng.integers(len(LENGTHS))
            t = rng.integers(LENGTHS[i])
            assert seen(episodes[int(i)], list(CAMERAS)[camera], int(t)) == (camera, i, t)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(8)))


def test_neighbours_are_decoded_without_searching(read, monkeypatch):
    searches = []
    search = video._Decoder._search
    monkeypatch.setattr(video._Decoder, "_search", lambda self, *args: searches.append(args) or search(self, *args))
    pictures = read(("v3.0", "video"))[2].images["hand"]
    for t in (0, 1, 1, 2, 5, 5, 8, 12):
        assert make_lerobot.spelled(pictures[t]) == (1, 2, t)
    assert len(searches) == 1
    assert make_lerobot.spelled(pictures[3]) == (1, 2, 3)
    assert len(searches) == 2


def test_a_thread_keeps_few_videos_open(read, monkeypatch):
    monkeypatch.setattr(video, "_OPEN", 2)
    closed = []
    close = video._Decoder.close
    monkeypatch.setattr(video._Decoder, "close", lambda self: closed.append(self) or close(self))
    episodes, held = read(("v2.1", "video")), []

    def look():
        for i, length in enumerate(LENGTHS):
            assert seen(episodes[i], "base", length - 1) == (0, i, length - 1)
            held.append(len(video._pool()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert held == [1, 2, 2, 2, 2, 2]
    assert len(closed) == 4


def test_sizes_are_the_bytes_of_the_pictures(read, kind, folders):
    table = read(kind).table
    if kind[1] == "video":
        expected = sum(file.stat().st_size for file in folders[kind].rglob("*.mp4"))
        assert expected - 2 * len(LENGTHS) * 2 <= table.sizes.sum() <= expected  # shares are rounded down
    else:
        pictures = sum(len(p) for episode in read(kind) for camera in CAMERAS for p in episode.images[camera])
        assert 0.1 * pictures < table.sizes.sum() < 2 * pictures  # PNG of flat blocks: Parquet compresses it further


def test_a_cache_reads_embedded_pictures_once(read, monkeypatch):
    reads = []
    embedded = lerobot._embedded
    monkeypatch.setattr(lerobot, "_embedded", lambda *args: reads.append(args) or embedded(*args))
    episodes = read(("v3.0", "image"), cache=Cache(1e9))
    for t in range(3):
        assert seen(episodes[1], "base", t) == (0, 1, t)
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:50%]", [0, 1, 2]),
        ("train[50%:]", [3, 4, 5]),
        ("train[:4]", [0, 1, 2, 3]),
        ("train[-1:]", [5]),
        ("train[1:-2]", [1, 2, 3]),
        ("test", [4, 5]),
        ("test[1:]", [5]),
    ],
)
def test_a_split_is_a_range_of_episodes_and_slices_cut_it(read, broken, split, expected):
    folder = broken("v3.0", "video")
    edit(folder / "meta/info.json", splits={"train": "0:6", "test": "4:6"})
    episodes = read(folder, split)
    assert [seen(episode, "hand", 1)[1] for episode in episodes] == expected
    assert [episode.index for episode in episodes] == list(range(len(expected)))


def test_a_split_opens_only_the_files_of_its_episodes(read, broken):
    folder = broken("v2.1", "video")
    (folder / "data/chunk-001/episode_000005.parquet").unlink()
    shutil.rmtree(folder / "videos/chunk-001")
    assert len(read(folder, "train[:4]")) == 4
    with pytest.raises(InputError, match=r"episode_00000[45]\.(mp4|parquet) is missing"):
        read(folder)


def test_damaged_episodes_may_be_left_out_and_are_named(read, broken):
    """A number that is not finite, a cut file and a video that is missing."""
    folder = broken("v2.1", "video")
    nan, cut = (folder / f"data/chunk-000/episode_00000{i}.parquet" for i in (0, 1))
    actions = make_lerobot.numbers(0)["action"]
    actions[2] = np.nan
    replace_column(nan, "action", pa.array(list(actions)))
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / "videos/chunk-000/observation.images.wrist/episode_000002.mp4").unlink()
    with pytest.raises(InputError):
        read(folder)
    episodes = read(folder, on_corrupt="skip")
    assert [seen(episode, "hand", 1) for episode in episodes] == [(1, i, 1) for i in (3, 4, 5)]
    np.testing.assert_array_equal(episodes[0].actions, make_lerobot.numbers(3)["action"])
    first, second, third = episodes.table.left_out
    assert "episode 0, action is not finite at frame 2" in first
    assert second.startswith(f"episode 1: {cut} is damaged")
    assert "episode_000002.mp4 is missing" in third
    with pytest.raises(InputError, match=r"'train\[:3\]' of .* has no episode that is whole: .*not finite"):
        read(folder, "train[:3]", on_corrupt="skip")


def test_a_feature_of_one_number_is_a_vector_of_one(read):
    episodes = read(("v3.0", "video"), state="gripper")
    np.testing.assert_array_equal(episodes[3].state, make_lerobot.numbers(3)["gripper"][:, None])


def test_the_rate_is_that_of_the_metadata(folders):
    assert lerobot.hz(str(folders["v2.1", "video"])) == 30.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            dict(cameras={"base": "topp"}),
            r"config\.data\.cameras\.base = 'topp'.*did you mean 'observation.images.top'",
        ),
        (dict(state="stat"), r"config\.data\.state = 'stat'.*did you mean 'observation.state'"),
        (dict(action="actions"), r"config\.data\.action = 'actions'.*did you mean 'action'"),
        (dict(action="note"), r"config\.data\.action = 'note' should be numbers.*dtype 'string'"),
        (dict(state="images.top"), r"config\.data\.state = 'images.top' should be numbers.*dtype 'video'"),
        (dict(cameras={"base": "state"}), r"config\.data\.cameras\.base = 'state' should be pictures.*dtype 'float32'"),
        (dict(embodiment="droid"), r"config\.data\.embodiment = 'droid' is for RLDS"),
        (dict(split="val"), r"has no split 'val'; it has train"),
        (dict(split="train[:half]"), r"'train\[:half\]' should look like train\[:90%\]"),
        (dict(split="train[6:]"), r"'train\[6:\]' .* has no episodes"),
    ],
)
def test_a_mistake_in_the_config_is_named(read, values, message):
    with pytest.raises(InputError, match=message):
        read(("v3.0", "video"), **values)


def test_a_folder_that_is_no_lerobot_data_set_is_named(read, tmp_path):
    with pytest.raises(InputError, match=r"has no meta/info\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(codebase_version="v2.0"), r"version 'v2.0'; read are v2.1 and v3.0.*convert_dataset_v20_to_v21"),
        (dict(codebase_version="v4.0"), r"version 'v4.0'"),
        (dict(fps=None), r"info\.json lacks fps"),
        (dict(total_episodes=7), r"total_episodes = 7, the list of episodes 6"),
        (dict(total_frames=47), r"total_frames = 47, the list of episodes 48"),
        (dict(splits={"train": "0:9"}), r"the split 'train' = '0:9'; it should lie in 0:6"),
        (dict(data_path="{nothing}"), r"data_path = '\{nothing\}', which names no file"),
    ],
)
@pytest.mark.parametrize("version", WRITERS)
def test_metadata_that_contradict_the_data_are_named(read, broken, version, values, message):
    folder = broken(version, "video")
    edit(folder / "meta/info.json", **values)
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize("content", ["{", "[1, 2]", ""])
def test_metadata_that_are_no_json_are_named(read, broken, content):
    folder = broken("v2.1", "video")
    (folder / "meta/info.json").write_text(content)
    with pytest.raises(InputError, match=r"info\.json is no JSON object"):
        read(folder)


def test_a_task_may_hold_whatever_unicode_calls_a_line_break(read, broken):
    folder = broken("v2.1", "video")
    tasks = [{"task_index": i, "task": text} for i, text in enumerate(("öffne\u2028sie", "close\u0085it"))]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in tasks)
    (folder / "meta/tasks.jsonl").write_text(lines, encoding="utf-8")
    assert {episode.wordings(0)[0] for episode in read(folder)} == {"öffne\u2028sie", "close\u0085it"}


def test_a_line_of_the_metadata_that_lacks_a_key_is_named(read, broken):
    folder = broken("v2.1", "video")
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "a"}\n{"task_index": 1}\n')
    with pytest.raises(InputError, match=r"tasks\.jsonl: line 2 lacks task"):
        read(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_named_with_its_frame(read, broken, value):
    folder = broken("v3.0", "video")
    file = folder / "data/chunk-000/file-001.parquet"
    actions = np.concatenate([make_lerobot.numbers(i)["action"] for i in (4, 5)])
    actions[3 + 2, 1] = value
    replace_column(file, "action", pa.array(actions.tolist(), pa.list_(pa.float32())))
    with pytest.raises(InputError, match=r"file-001\.parquet: episode 5, action is not finite at frame 2"):
        read(folder)


def test_an_episode_with_fewer_rows_than_listed_is_named(read, broken):
    folder = broken("v2.1", "video")
    file = folder / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 7), file)
    with pytest.raises(InputError, match=r"episode_000001\.parquet has 7 frames of episode 1 in a row.* 9"):
        read(folder)


def test_vectors_of_another_width_are_named(read, broken):
    folder = broken("v2.1", "video")
    replace_column(folder / "data/chunk-000/episode_000000.parquet", "action", pa.array([[1.0]] * 5))
    with pytest.raises(InputError, match=r"episode_000000\.parquet: action has 5 values .* 5 frames of 2 numbers"):
        read(folder)


def test_a_task_that_is_not_listed_is_named(read, broken):
    folder = broken("v2.1", "video")
    replace_column(folder / "data/chunk-000/episode_000000.parquet", "task_index", pa.array([9] * 5))
    with pytest.raises(InputError, match=r"episode 0 has task_index 9"):
        read(folder)


@pytest.mark.parametrize("dtype", ["video", "image"])
def test_a_cut_parquet_file_is_named(read, broken, dtype):
    folder = broken("v3.0", dtype)
    file = folder / "data/chunk-000/file-000.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"file-000\.parquet is damaged"):
        read(folder)


def test_an_overwritten_parquet_file_is_named(read, broken):
    folder = broken("v3.0", "image")
    episodes = read(folder)
    file = folder / "data/chunk-000/file-000.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"file-000\.parquet is damaged"):
        [list(pictures) for episode in episodes for pictures in episode.images.values()]


def test_pictures_that_are_not_embedded_are_named(read, broken):
    folder = broken("v3.0", "image")
    rows = [{"bytes": None, "path": "a.png"}] * sum(LENGTHS[4:])
    column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    replace_column(folder / "data/chunk-000/file-001.parquet", "observation.images.top", column)
    with pytest.raises(InputError, match=r"episode 4, observation\.images\.top names files"):
        read(folder)[4].images["base"]


def test_a_missing_video_is_named_when_the_data_set_is_opened(read, broken):
    folder = broken("v3.0", "video")
    (folder / "videos/observation.images.wrist/chunk-000/file-001.mp4").unlink()
    with pytest.raises(InputError, match=r"wrist/chunk-000/file-001\.mp4 is missing"):
        read(folder)


def test_a_cut_video_is_named_with_the_frame(read, broken):
    folder = broken("v3.0", "video")
    file = folder / "videos/observation.images.top/chunk-000/file-001.mp4"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"file-001\.mp4: frame 2 of the episode, at 0\.067 s, cannot be decoded"):
        read(folder)[3].images["base"][2]


def test_an_overwritten_video_never_gives_a_wrong_frame(read, broken):
    folder = broken("v3.0", "video")
    file = folder / "videos/observation.images.top/chunk-000/file-000.mp4"
    content = bytearray(file.read_bytes())
    middle = slice(len(content) // 3, len(content) // 2)
    content[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    file.write_bytes(content)
    episodes = read(folder)

    def outcome(i, t):
        try:
            return seen(episodes[i], "base", t)
        except InputError as error:
            return str(error).partition(" of the episode")[0].partition("chunk-000/")[2]

    steps = [(i, t) for i in range(3) for t in range(LENGTHS[i])]
    outcomes = [outcome(i, t) for i, t in steps]
    wanted = [((0, i, t), f"file-000.mp4: frame {t}") for i, t in steps]
    assert all(outcome in either for outcome, either in zip(outcomes, wanted, strict=True))
    assert 3 < sum(isinstance(outcome, str) for outcome in outcomes) < 24


def test_a_video_that_ends_early_is_named_with_the_frame(read, broken):
    folder = broken("v2.1", "video")
    videos = folder / "videos/chunk-000/observation.images.top"
    (videos / "episode_000003.mp4").replace(videos / "episode_000002.mp4")  # 7 frames for 13
    with pytest.raises(InputError, match=r"episode_000002\.mp4: frame 9 .* at 0\.300 s, is missing: .* at 0\.200 s"):
        read(folder, "train[:3]")[2].images["base"][9]


def test_a_video_at_another_rate_is_named(read, broken):
    folder = broken("v2.1", "video")
    edit(folder / "meta/info.json", fps=100)  # the times of the frames stay: half a frame is 5 ms now
    file = folder / "data/chunk-000/episode_000000.parquet"
    replace_column(file, "timestamp", pa.array((np.arange(5) / 100).astype(np.float32)))
    with pytest.raises(InputError, match=r"frame 1 of the episode, at 0\.010 s, is missing: the nearest"):
        read(folder, "train[:1]")[0].images["base"][1]


@pytest.mark.parametrize("package", ["av", "pyarrow"])
def test_a_missing_package_is_named(read, monkeypatch, package):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'pizero_jax\[lerobot\]'"):
        read(("v3.0", "video"))[0].images["base"][0]


LEROBOT = """
import sys
import numpy as np
from make_lerobot import CAMERAS, FPS, LENGTHS, SIDES, TASKS, numbers, picture, task_indices
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, dtype, dumped = sys.argv[1:]
shapes = {"observation.state": (3,), "action": (2,)}
features = {name: {"dtype": "float32", "shape": s, "names": list("xyz"[: s[0]])} for name, s in shapes.items()}
for name in CAMERAS:
    features[name] = {"dtype": dtype, "shape": (*SIDES, 3), "names": ["height", "width", "channels"]}
data = LeRobotDataset.create("local/data", FPS, features, root=root, use_videos=dtype == "video")
for i, length in enumerate(LENGTHS):
    for t in range(length):
        vectors = {name: numbers(i)[name][t] for name in shapes}
        pictures = {name: picture(camera, i, t) for name, camera in CAMERAS.items()}
        data.add_frame(vectors | pictures | {"task": TASKS[task_indices(i)[t]]})
    data.save_episode(parallel_encoding=False)
data.finalize()
data = LeRobotDataset("local/data", root=root, video_backend="pyav")
items = [data[i] for i in range(len(data))]
np.savez(dumped, **{name: np.stack([item[name].numpy() for item in items]) for name in features})
"""


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
@pytest.mark.parametrize("dtype", ["video", "image"])
def test_what_lerobot_writes_is_read_as_lerobot_reads_it(lerobot_python, read, tmp_path, dtype):
    """SVT-AV1 at preset 12, its default, repeats every other of these pictures: its own reader sees that, too."""
    folder, dumped = tmp_path / "data", tmp_path / "theirs.npz"
    paths = {"PYTHONPATH": os.path.dirname(make_lerobot.__file__), "HF_HUB_OFFLINE": "1"}
    subprocess.run([lerobot_python, "-c", LEROBOT, folder, dtype, dumped], check=True, env=os.environ | paths)
    theirs, ours = np.load(dumped), read(folder)
    np.testing.assert_array_equal(theirs["observation.state"], np.concatenate([e.state for e in ours]))
    np.testing.assert_array_equal(theirs["action"], np.concatenate([e.actions for e in ours]))
    assert [set(e.instructions) for e in ours] == [set(make_lerobot.tasks(i)) for i in range(len(LENGTHS))]
    for camera, name in zip(CAMERAS, make_lerobot.CAMERAS, strict=True):
        frames = np.round(theirs[name].transpose(0, 2, 3, 1) * 255)
        np.testing.assert_array_equal(frames, np.stack([rgb(image) for e in ours for image in e.images[camera]]))
