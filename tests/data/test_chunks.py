import numpy as np
import pytest

from pizero_jax.data import chunks
from pizero_jax.types import InputError

DELTA = np.array([True, False])
# five steps: a change, and an absolute gripper
ACTIONS = np.array([[1, 0.1], [2, 0.2], [4, 0.3], [8, 0.4], [16, 0.5]])


@pytest.mark.parametrize(
    ("first", "stride", "expected", "whole"),
    [
        (0, 1, [[1, 0.1], [2, 0.2], [4, 0.3]], [True, True, True]),
        (3, 1, [[8, 0.4], [16, 0.5], [0, 0.5]], [True, True, False]),
        (0, 2, [[3, 0.2], [12, 0.4], [16, 0.5]], [True, True, False]),  # the last is half there
        (1, 1.5, [[6, 0.3], [8, 0.4], [16, 0.5]], [True, True, True]),  # ends after 2, 3 and 4 steps: halves go to even
        (4, 2, [[16, 0.5], [0, 0.5], [0, 0.5]], [False, False, False]),
    ],
)
def test_changes_add_up_and_the_rest_is_where_movements_end(first, stride, expected, whole):
    actions, mask = chunks.chunk(ACTIONS, DELTA, first, count=3, stride=stride)
    np.testing.assert_allclose(actions, expected, rtol=1e-6)
    np.testing.assert_array_equal(mask, whole)
    assert actions.dtype == np.float32


def test_a_chunk_by_time_covers_the_same_way():
    """One second of a movement at constant speed is as far at 5 Hz as at the data set's 15."""
    actions = np.full((45, 1), 0.01)
    for frequency, count in ((15, 15), (7.5, 8), (5, 5), (1, 1)):
        stride = chunks.stride(15, frequency)
        chosen, mask = chunks.chunk(actions, np.array([True]), 7, count=count, stride=stride)
        assert mask.all()
        np.testing.assert_allclose(chosen.sum(), 0.01 * count * stride, rtol=1e-6)


@pytest.mark.parametrize("frequency", [20, 0, -1])
def test_frequencies_that_the_data_do_not_have_are_refused(frequency):
    with pytest.raises(InputError, match=f"chunks at {frequency} Hz cannot be taken from actions at 15 Hz"):
        chunks.stride(15, frequency)


@pytest.mark.parametrize(
    ("first", "stride", "steps", "real"),
    [
        (5, 1, [3, 4, 5], [True, True, True]),
        (1, 1, [0, 0, 1], [False, True, True]),
        (7, 3, [1, 4, 7], [True, True, True]),
        (4, 3, [0, 1, 4], [False, True, True]),
    ],
)
def test_a_history_ends_with_the_present_and_starts_no_earlier_than_the_episode(first, stride, steps, real):
    places, mask = chunks.history(first, count=3, stride=stride)
    np.testing.assert_array_equal(places, steps)
    np.testing.assert_array_equal(mask, real)


def test_relative_actions_are_seen_from_the_state_where_the_mask_says():
    actions = np.array([[[1.0, 0.5], [2.0, 0.7]]])
    state = np.array([[0.75, 9.0]])
    seen = chunks.relative(actions, state, DELTA)
    np.testing.assert_allclose(seen, [[[0.25, 0.5], [1.25, 0.7]]], rtol=1e-6)
    np.testing.assert_allclose(chunks.absolute(seen, state, DELTA), actions, rtol=1e-6)
