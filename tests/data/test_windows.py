import dataclasses

import numpy as np
import pytest

from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.data.resample import Resampling
from pizero_jax.data.windows import Windows, labelled

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


@pytest.mark.parametrize(
    ("ratio", "past"),
    [(None, [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]),
     (1.0, [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]),
     (2.0, [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 3]]),
     (0.5, [[0, 0, 0], [0, 1, 1], [1, 2, 2], [2, 3, 3], [3, 4, 4]])],
)  # fmt: skip
def test_a_history_is_one_action_apart_and_begins_with_the_first_frame_repeated(windows, ratio, past):
    """Half steps round to even ones, which are not later than the frame."""
    resampling = None if ratio is None else Resampling(ratio, np.array([False]))
    seen = Windows(windows.episodes, 3, resampling=resampling, history=3)
    frames = [index for index in range(len(seen)) if seen.locate(index)[0] == 2]
    assert len(frames) == len(past)
    for index, moments in zip(frames, past, strict=True):
        assert seen[index].images["camera"] == [b"2-%d" % moment for moment in moments]
        np.testing.assert_array_equal(seen[index].state, np.float32(moments)[:, None])
        assert seen[index].moment == seen[index].state[-1] == moments[-1]


def test_a_history_never_reaches_into_the_episode_before(windows):
    seen = Windows(windows.episodes, 3, history=10)
    for index in range(len(seen)):
        number, _ = seen.locate(index)
        assert {picture.split(b"-")[0] for picture in seen[index].images["camera"]} == {b"%d" % number}


@pytest.fixture
def half_labelled(windows) -> Episodes:
    """The second episode says nothing; the third says it in two ways."""
    texts = [("task 0",), ("  ",), ("task 2", "other words for task 2")]
    return Episodes.of(
        [dataclasses.replace(e, instructions=text) for e, text in zip(windows.episodes, texts, strict=True)]
    )


def test_episodes_without_an_instruction_may_be_left_out(half_labelled):
    assert labelled(half_labelled.table).tolist() == [True] * 3 + [False] + [True] * 5
    kept, rest = Windows(half_labelled, 3), Windows(half_labelled, 3, unlabelled=False)
    assert (kept.counts.tolist(), rest.counts.tolist()) == ([3, 1, 5], [3, 0, 5])
    assert [rest.locate(index) for index in range(8)] == [(0, 0), (0, 1), (0, 2), *((2, frame) for frame in range(5))]
    assert rest[3].instructions == ("task 2", "other words for task 2")


def test_every_way_to_leave_frames_out_holds_together_with_the_others(half_labelled):
    keep = np.array([True, False, True, True, True])
    third = dataclasses.replace(half_labelled[2], keep=keep)
    episodes = Episodes.of([half_labelled[0], half_labelled[1], third])
    slower = Windows(episodes, 3, resampling=Resampling(2.0, np.array([True])), unlabelled=False)
    assert [slower.locate(index) for index in range(len(slower))] == [(0, 0), (0, 1), (2, 0), (2, 2), (2, 3)]
    with pytest.raises(IndexError):
        slower[5]
