import numpy as np
import pytest

from pizero_jax.data.embodiments import gripper

# convention -> (recorded, opening), written by hand
SEQUENCES = [
    (gripper.opening, [0, 0.25, 1], [0, 0.25, 1]),
    (gripper.closing, [0, 0.25, 1], [1, 0.75, 0]),
    (gripper.opening_clipped, [-1, -0.5, 0, 0.25, 1, 1.5], [0, 0, 0, 0.25, 1, 1]),
    (gripper.closing_clipped, [-1, -0.5, 0, 0.25, 1, 1.5], [1, 1, 1, 0.75, 0, 0]),
    (gripper.opening_signed, [-1, -0.5, 0, 1, 2], [0, 0.25, 0.5, 1, 1]),
    (gripper.closing_signed, [-1, -0.5, 0, 1, 2], [1, 0.75, 0.5, 0, 0]),
    # closing takes two steps, opening one; each step on the way belongs to where it leads
    (gripper.opening_thresholded, [1, 0.8, 0.3, 0.0, 0.02, 0.6, 0.99], [1, 0, 0, 0, 0, 1, 1]),
    # cut off on its way: the last definite value stays
    (gripper.opening_thresholded, [0.4, 1, 0.8, 0.7], [1, 1, 1, 1]),
    (gripper.opening_thresholded, [0.5, 0.0, 0.4], [0, 0, 0]),
    (gripper.opening_thresholded, [0.4, 0.6, 0.9], [0, 1, 1]),
    # closes at step 2, opens at step 5: it was open before
    (gripper.closing_relative, [0, 0, 1, 0, 0, -1, 0], [1, 1, 0, 0, 0, 1, 1]),
    # opens first, so it was closed
    (gripper.closing_relative, [0, -1, 0, 1], [0, 1, 1, 0]),
    # the same command twice; a twitch below the threshold
    (gripper.closing_relative, [1, 0, 1, -0.05, 0.05], [0, 0, 0, 0, 0]),
    (gripper.closing_relative, [0, 0.1, -0.1], [1, 1, 1]),
    (gripper.opening_relative, [0, 1, 0, -1], [0, 1, 1, 0]),
    (gripper.opening_relative, [0, 0], [1, 1]),
]


@pytest.mark.parametrize(("convention", "recorded", "expected"), SEQUENCES)
def test_each_convention_gives_the_opening_worked_out_by_hand(convention, recorded, expected):
    result = convention(np.array(recorded))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-7)  # one subtraction in float32


@pytest.mark.parametrize("convention", [gripper.opening_thresholded, gripper.closing_relative])
def test_one_step_is_an_episode(convention):
    assert convention(np.array([1.0])).shape == (1,)


def test_conventions_do_not_change_what_they_are_given():
    recorded = np.array([1, 0.5, 0, -1], np.float32)
    kept = recorded.copy()
    for convention, _, _ in SEQUENCES:
        convention(recorded)
    np.testing.assert_array_equal(recorded, kept)
