import jax
import numpy as np
import pytest

from pizero_jax.errors import InputError

PICTURE = np.full((8, 8, 3), 9, np.uint8)
STATE = np.zeros(3)


@pytest.mark.parametrize(
    ("observation", "instruction", "message"),
    [
        ({"state": STATE}, "reach", "the observation has no 'images'"),
        ({"images": {"front": PICTURE, "wrist": PICTURE}}, "reach", "the observation has no 'state'"),
        ({"images": {"front": PICTURE}, "state": STATE}, "reach", "camera 'wrist' is missing; it may be None"),
        ({"images": {"front": None, "wrist": None}, "state": STATE}, "reach", "all cameras are None"),
        ({"images": {"front": PICTURE, "wrist": None}, "state": STATE * np.nan}, "reach", "not finite"),
        ({"images": {"front": PICTURE, "wrist": None}, "state": STATE}, None, "of type NoneType; it is a string"),
    ],
)
def test_what_a_server_refuses_is_refused_in_process(seeing, observation, instruction, message):
    with pytest.raises(InputError, match=message):
        seeing.infer(observation, instruction, jax.random.key(0))


def test_a_camera_that_the_robot_does_not_have_is_masked(seeing):
    one, both = (
        seeing.infer({"images": {"front": PICTURE, "wrist": wrist}, "state": STATE}, "reach", jax.random.key(0))
        for wrist in (None, PICTURE)
    )
    np.testing.assert_allclose(one, both + 5, rtol=1e-6)  # what the policy of these tests adds for the mask
