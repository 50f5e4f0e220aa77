import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import base
from pizero_jax import config as configs
from pizero_jax.data import convert, formats, lerobot
from pizero_jax.data.episodes import Episode
from pizero_jax.data.pictures import decode
from pizero_jax.errors import InputError
from tests.data import make_lerobot, make_rlds_tiny
from tests.data.rewriting import edit

ROOT = Path(__file__).parents[2]
RLDS_TINY = ROOT / "tests/data/rlds_tiny"
CAMERAS = {"base_0_rgb": "base_0_rgb", "left_wrist_0_rgb": "left_wrist_0_rgb"}  # as the policy names them
CONVERTED = {"cameras": CAMERAS, "state": "state", "action": "action"}


@pytest.fixture(scope="module")
def config() -> configs.DataConfig:
    c = base.get_config()
    c.data.path = str(RLDS_TINY)
    return configs.build(configs.TrainConfig, c).data


def written(config, path, **values) -> configs.DataConfig:
    """The config that reads what was converted."""
    return dataclasses.replace(config, path=str(path), **CONVERTED | values)


def flags(path, to, output, *more):
    keys = [f"--config.data.cameras.{camera}={field}" for camera, field in CAMERAS.items()]
    return [f"--config={ROOT}/configs/base.py", f"--config.data.path={path}", f"--to={to}", f"--output={output}",
            *keys, *more]  # fmt: skip


def rgb(image):
    return decode(image) if isinstance(image, bytes) else image


def assert_same(config, other, *, pictures):
    """Of two configs, the episodes of both splits are the same; `pictures` compares a pair."""
    for split in ("train", "val"):
        ones, others = formats.open_split(config, split), formats.open_split(other, split)
        by_state = {one.state.tobytes(): one for one in ones}  # TFDS shuffles episodes
        assert by_state.keys() == {one.state.tobytes() for one in others}
        for one in others:
            expected = by_state[one.state.tobytes()]
            assert one.actions.tobytes() == expected.actions.tobytes()
            assert one.instructions == expected.instructions
            for camera in CAMERAS:
                assert len(one.images[camera]) == len(expected.images[camera]) == len(one)
                for pair in zip(one.images[camera], expected.images[camera], strict=True):
                    assert pictures(*pair)


def equal(one, other):
    return isinstance(one, bytes) and one == other


def near(one, other):
    return np.abs(rgb(one).astype(int) - rgb(other)).mean() < 4  # grey levels; of H.264 and JPEG


@pytest.fixture(scope="module")
def results(config, forked, tmp_path_factory):
    """(folder, what each command line ended with): from LeRobot to RLDS, then four mistakes."""
    folder = tmp_path_factory.mktemp("converted")
    convert.convert(config, folder / "lerobot", "lerobot", fps=10, video=False)
    lines = [
        flags(folder / "lerobot", "rlds", folder / "tiny" / "2.0.0"),
        flags(RLDS_TINY, "lerobot", folder / "out"),
        flags(RLDS_TINY, "lerobot", folder, "--fps=10"),
        flags(RLDS_TINY, "zarr", folder / "out"),
        [f"--config={ROOT}/configs/base.py"],
    ]
    return folder, forked("launch.convert_data", lines)


@pytest.mark.slow
def test_rlds_to_lerobot_and_back_keeps_numbers_and_embedded_pictures_bit_for_bit(config, results):
    folder, (result, *_) = results
    assert result.returncode == 0, result.stderr
    assert "4 episodes in 'train', 2 episodes in 'val'" in result.stdout
    assert_same(config, written(config, folder / "lerobot"), pictures=equal)
    assert_same(config, written(config, folder / "tiny" / "2.0.0"), pictures=equal)
    assert {file.name.partition(".")[0] for file in (folder / "tiny" / "2.0.0").glob("*tfrecord*")} == {
        "tiny-train",
        "tiny-val",
    }


def test_a_video_stays_within_a_few_grey_levels_and_becomes_jpeg_in_rlds(config, tmp_path):
    convert.convert(config, tmp_path / "lerobot", "lerobot", fps=10)
    assert len(list((tmp_path / "lerobot").rglob("*.mp4"))) == len(CAMERAS)
    new = written(config, tmp_path / "lerobot")
    assert_same(config, new, pictures=near)
    for episode in formats.open_split(new, "val"):
        made = convert._demonstration(episode)
        assert made.rewards.tolist() == [0.0] * (len(episode) - 1) + [1.0]
        for camera, pictures in made.images.items():
            assert all(isinstance(picture, bytes) for picture in pictures)
            assert all(near(*pair) for pair in zip(pictures, episode.images[camera], strict=True))


def test_lerobot_v21_becomes_v30_at_the_same_rate(config, tmp_path):
    old = make_lerobot.write_v21(tmp_path / "old")
    cut = dict(
        train_split="train[:4]", val_split="train[4:]", cameras={"base_0_rgb": "top", "left_wrist_0_rgb": "wrist"}
    )
    convert.convert(written(config, old, **cut), tmp_path / "new", "lerobot", robot="paper")
    assert lerobot.hz(str(tmp_path / "new")) == make_lerobot.FPS
    assert (tmp_path / "new/meta/episodes").is_dir()
    for split, first in (("train", 0), ("val", 4)):
        for i, episode in enumerate(formats.open_split(written(config, tmp_path / "new"), split), start=first):
            np.testing.assert_array_equal(episode.actions, make_lerobot.numbers(i)["action"])
            frames = [make_lerobot.spelled(image) for image in episode.images["left_wrist_0_rgb"]]
            assert frames == [(1, i, t) for t in range(make_lerobot.LENGTHS[i])]


@pytest.mark.slow
def test_a_task_that_changes_stays_with_its_frames(forked, config, tmp_path):
    old = make_lerobot.write_v30(tmp_path / "old", "image")
    more = ["--config.data.train_split=train[2:4]", "--config.data.val_split=", "--novideo",
            "--config.data.state=state", "--config.data.action=action",
            "--config.data.cameras.base_0_rgb=top", "--config.data.cameras.left_wrist_0_rgb=wrist"]  # fmt: skip
    results = forked("launch.convert_data", [flags(old, to, tmp_path / to, *more) for to in ("lerobot", "rlds")])
    for to, result in zip(("lerobot", "rlds"), results, strict=True):
        assert result.returncode == 0, result.stderr
        assert "2 episodes in 'train'" in result.stdout
        assert "--config.data.val_split=\n" in result.stdout
        for episode in formats.open_split(written(config, tmp_path / to), "train"):
            (index,) = (i for i in (2, 3) if make_lerobot.LENGTHS[i] == len(episode))  # TFDS shuffles episodes
            texts = [episode.wordings(step)[0] for step in range(len(episode))]
            assert texts == [make_lerobot.TASKS[task] for task in make_lerobot.task_indices(index)]


@pytest.mark.slow
def test_an_episode_with_a_damaged_picture_may_be_left_out_and_is_named(forked, config, tmp_path):
    folder = shutil.copytree(RLDS_TINY, tmp_path / "old")

    def cut(number, features):
        pictures = features["steps/observation/image"].bytes_list.value
        pictures[2] = pictures[2][:-200] if number == 1 else pictures[2]

    (file,) = folder.glob("*train*00000-*")
    edit(file, cut)
    more = ["--fps=10", "--config.data.cameras.base_0_rgb=image", "--config.data.cameras.left_wrist_0_rgb=wrist_image"]
    lines = [flags(folder, to, tmp_path / to, *more, "--config.data.on_corrupt=skip") for to in ("lerobot", "rlds")]
    lines.append(flags(folder, "lerobot", tmp_path / "none", *more))
    results, episodes = forked("launch.convert_data", lines), len(formats.open_split(config, "train"))
    for to, result in zip(("lerobot", "rlds"), results[:2], strict=True):
        assert result.returncode == 0, result.stderr
        assert f"{episodes - 1} episodes in 'train'" in result.stdout
        assert len(formats.open_split(written(config, tmp_path / to), "train")) == episodes - 1
        assert f"left out: {file}: record 1, base_0_rgb: the picture of step 2 cannot be decoded" in result.stderr
    assert results[2].returncode == 2
    assert f"error: {file}: record 1, " in results[2].stderr
    assert "base_0_rgb: the picture of step 2 cannot be decoded" in results[2].stderr


def test_what_a_format_has_no_place_for_is_told(config):
    episodes = [
        Episode(images={}, state=np.zeros((4, 1)), actions=np.zeros((4, 1)), instructions=instructions, index=0,
                keep=np.arange(4) > 0)
        for instructions in (("one", "two"), ("one",))
    ]  # fmt: skip
    skipped = "2 of 8 steps, which nothing should be learnt from, will look like any other"
    assert convert.losses(episodes, "lerobot") == [skipped]
    assert convert.losses(episodes, "rlds") == [
        skipped,
        "1 episodes have several instructions; the first of each is written",
    ]


@pytest.mark.slow
def test_mistakes_are_one_line(results):
    messages = ["--fps is missing", "converted0 is not empty", "--to", "--output=FOLDER and --to"]
    for result, message in zip(results[1][1:], messages, strict=True):
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert message in result.stderr


def test_the_folder_shows_the_format(config, tmp_path):
    assert formats.hz(config.path) is None
    assert formats.hz(str(make_lerobot.write_v30(tmp_path / "new"))) == make_lerobot.FPS
    assert len(formats.open_split(config, "val")) == len(make_rlds_tiny.SPLITS["val"])
    with pytest.raises(InputError, match="neither dataset_info.json"):
        formats.open_split(dataclasses.replace(config, path=str(tmp_path)), "train")
