import dataclasses

import numpy as np
import pytest

from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.data.windows import Windows

LENGTHS = (3, 1, 5)


@pytest.fixture
def windows() -> Windows:
    """Actions are 10 * episode + step."""
    return Windows(
        Episodes.of(
            [
                Episode(
                    images={"camera": [b"%d-%d" % (number, step) for step in range(length)]},
                    state=np.arange(length, dtype=np.float32)[:, None],
                    actions=(10 * number + np.arange(length, dtype=np.float32))[:, None],
                    instructions=(f"task {number}",),
                    index=number,
                    keep=np.ones(length, bool),
                )
                for number, length in enumerate(LENGTHS)
            ]
        ),
        chunk=3,
    )


def test_every_frame_begins_one_window(windows):
    assert len(windows) == sum(LENGTHS)
    frames = [window.images["camera"] for window in windows]
    assert frames == [b"%d-%d" % (n, step) for n, length in enumerate(LENGTHS) for step in range(length)]
    assert [window.state[0] for window in windows] == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    assert windows[4].instruction == "task 2"


def test_actions_repeat_past_the_end_and_are_masked(windows):
    expected = {
        0: ([0, 1, 2], [True, True, True]),
        1: ([1, 2, 2], [True, True, False]),
        2: ([2, 2, 2], [True, False, False]),
        3: ([10, 10, 10], [True, False, False]),
        6: ([22, 23, 24], [True, True, True]),
        8: ([24, 24, 24], [True, False, False]),
    }
    for index, (actions, mask) in expected.items():
        assert windows[index].actions[:, 0].tolist() == actions
        assert windows[index].action_mask.tolist() == mask


@pytest.mark.parametrize("index", [-1, 9])
def test_an_index_outside_is_refused(windows, index):
    with pytest.raises(IndexError):
        windows[index]


def test_steps_to_be_left_out_begin_no_window_and_are_masked_in_others(windows):
    third = dataclasses.replace(windows.episodes[2], keep=np.array([False, True, True, False, True]))
    kept = Windows(Episodes.of([windows.episodes[1], third]), chunk=3)
    assert [kept[i].images["camera"] for i in range(len(kept))] == [b"1-0", b"2-1", b"2-2", b"2-4"]
    assert [kept[i].action_mask.tolist() for i in range(1, 4)] == [[1, 1, 0], [1, 0, 1], [1, 0, 0]]
    np.testing.assert_array_equal(kept[1].actions[:, 0], [21, 22, 23])
