import numpy as np
import pytest
from PIL import Image, ImageSequence

from pizero_jax.errors import InputError
from pizero_jax.report.animation import MAX_BYTES, animate

# Where the first cell's frame and picture begin: gap 6, label 18, frame 3; pictures of 64 pixels are doubled.
FRAME, PICTURE, CELL = (25, 7), (30, 12), 128 + 6 + 6


def episode(length, side=64):
    """A white square that moves down, one row of pixels per step, on grey."""
    pictures = np.full((length, side, side, 3), 90, np.uint8)
    for step in range(length):
        pictures[step, step % side] = 255
    return list(pictures)


def frames(path):
    return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(Image.open(path))]


def is_green(color):
    return color[1] > color[0] + 60


def is_red(color):
    return color[0] > color[1] + 60


def test_every_step_is_a_frame_and_frames_differ(tmp_path):
    animate([episode(12), episode(5)], ["a", "b"], tmp_path / "new" / "a.gif", successes=[True, False], fps=10)
    shown = frames(tmp_path / "new" / "a.gif")
    assert len(shown) == 12
    assert all((a != b).any() for a, b in zip(shown, shown[1:], strict=False))


def test_speed_is_the_one_asked_for_and_the_end_is_held(tmp_path):
    animate([episode(4)], ["a"], tmp_path / "a.gif", successes=[True], fps=10)
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(tmp_path / "a.gif"))]
    assert durations == [100, 100, 100, 1500]


def test_the_frame_turns_green_or_red_when_the_episode_ends(tmp_path):
    animate([episode(6), episode(3)], ["a", "b"], tmp_path / "a.gif", successes=[True, False], fps=10)
    shown = frames(tmp_path / "a.gif")
    y, x = FRAME
    left, right = [f[y, x] for f in shown], [f[y, x + CELL] for f in shown]
    assert [is_green(c) for c in left] == [False] * 5 + [True]
    assert [is_red(c) for c in right] == [False] * 2 + [True] * 4
    assert not any(is_red(c) for c in left)
    assert not any(is_green(c) for c in right)


def test_an_ended_episode_holds_its_last_picture(tmp_path):
    animate([episode(8), episode(3)], ["a", "b"], tmp_path / "a.gif", successes=[True, True], fps=10)
    y, x = PICTURE
    second = [f[y - 2 : y + 126, x + CELL : x + CELL + 120] for f in frames(tmp_path / "a.gif")]
    assert (second[0] != second[2]).any()
    assert all((picture == second[2]).all() for picture in second[3:])


def test_the_grid_is_nearly_square(tmp_path):
    animate([episode(2)] * 5, list("abcde"), tmp_path / "a.gif", successes=[True] * 5, fps=10)
    width, height = Image.open(tmp_path / "a.gif").size
    assert (width, height) == (3 * CELL + 6, 2 * (CELL + 18) + 6)


def test_pictures_that_compress_badly_still_stay_below_the_limit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 200, 200, 3), np.uint8)
    animate([list(noise)] * 4, list("abcd"), tmp_path / "a.gif", successes=[True] * 4, fps=10)
    assert (tmp_path / "a.gif").stat().st_size <= MAX_BYTES
    assert 2 <= Image.open(tmp_path / "a.gif").n_frames < 40


def test_a_label_wider_than_its_picture_is_cut_not_spilled(tmp_path):
    animate([episode(2)] * 2, ["W" * 60, ""], tmp_path / "a.gif", successes=[True] * 2, fps=10)
    second_label = frames(tmp_path / "a.gif")[0][:24, CELL + 6 :]
    assert (second_label > 200).all()


def test_pictures_too_narrow_for_any_label_go_without(tmp_path):
    animate([episode(2, side=3)], ["reach"], tmp_path / "a.gif", successes=[True], fps=10)
    assert (frames(tmp_path / "a.gif")[0][:24] > 200).all()


@pytest.mark.parametrize(
    ("episodes", "labels", "fps", "message"),
    [
        ([episode(2)], ["a", "b"], 10, "one of each"),
        ([[]], ["a"], 10, "without pictures"),
        ([episode(2)], ["a"], 0, "fps"),
        ([episode(2)], ["a"], 100, "fps"),
    ],
)
def test_animate_refuses_what_does_not_fit(tmp_path, episodes, labels, fps, message):
    with pytest.raises(InputError, match=message):
        animate(episodes, labels, tmp_path / "a.gif", successes=[True], fps=fps)
