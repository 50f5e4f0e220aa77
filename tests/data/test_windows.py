import numpy as np
import pytest

from pizero_jax.data.rlds import Episode, Episodes
from pizero_jax.data.windows import Windows

LENGTHS = (3, 1, 5)


@pytest.fixture
def windows() -> Windows:
    """Actions are 10 * episode + step."""
    return Windows(
        Episodes(
            [
                Episode(
                    images={"camera": [b"%d-%d" % (number, step) for step in range(length)]},
                    state=np.arange(length, dtype=np.float32)[:, None],
                    actions=(10 * number + np.arange(length, dtype=np.float32))[:, None],
                    instruction=f"task {number}",
                    index=number,
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
