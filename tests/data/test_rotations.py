import warnings

import numpy as np
import pytest

from pizero_jax.data import rotations
from pizero_jax.errors import InputError

# From Euler angles and back the rotation survives, in float64, to a few rounding errors; near gimbal lock the
# cosine of the pitch, and with it roll and yaw, are known to the square root of those only.
ROUNDING, GIMBAL_ROUNDING = 1e-12, 1e-7

TARGETS = [form for form in rotations.WIDTHS if form != "euler_zxy"]


def random_matrices(count: int) -> np.ndarray:
    """Orthonormal right-handed ones, by QR decomposition."""
    q, r = np.linalg.qr(np.random.default_rng(0).normal(size=(count, 3, 3)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    q[:, :, 2] *= np.linalg.det(q)[:, None]
    return q.reshape(count, 9)


@pytest.mark.parametrize("form", TARGETS)
def test_a_round_trip_through_each_form_keeps_the_rotation(form):
    matrices = random_matrices(200)
    there = rotations.convert(matrices, "matrix", form)
    assert there.shape == (200, rotations.WIDTHS[form])
    np.testing.assert_allclose(rotations.convert(there, form, "matrix"), matrices, atol=ROUNDING)


@pytest.mark.parametrize("source", rotations.WIDTHS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_pair_of_forms_agrees_with_the_way_through_matrices(source, target):
    values = np.random.default_rng(1).uniform(-1, 1, size=(50, rotations.WIDTHS[source]))
    values = random_matrices(50) if source == "matrix" else values
    direct = rotations.convert(values, source, target)
    around = rotations.convert(rotations.convert(values, source, "matrix"), "matrix", target)
    np.testing.assert_allclose(direct, around, atol=ROUNDING)


# A quarter turn about z carries x to y; worked out by hand in every form.
QUARTER = {
    "euler_xyz": [0, 0, np.pi / 2],
    "euler_zyx": [np.pi / 2, 0, 0],
    "euler_zxy": [np.pi / 2, 0, 0],
    "quaternion_xyzw": [0, 0, 0.5**0.5, 0.5**0.5],
    "quaternion_wxyz": [0.5**0.5, 0, 0, 0.5**0.5],
    "axis_angle": [0, 0, np.pi / 2],
    "matrix": [0, -1, 0, 1, 0, 0, 0, 0, 1],
    "rotation_6d": [0, 1, 0, -1, 0, 0],
}


@pytest.mark.parametrize("source", QUARTER)
@pytest.mark.parametrize("target", TARGETS)
def test_a_quarter_turn_is_what_it_is_by_hand(source, target):
    turned = rotations.convert(np.array(QUARTER[source], float), source, target)
    np.testing.assert_allclose(turned, QUARTER[target], atol=ROUNDING)


def test_euler_angles_turn_about_x_first_and_z_last():
    a, b, c = 0.3, -0.4, 1.2
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = rotations.convert(np.array([a, b, c]), "euler_xyz", "matrix")
    np.testing.assert_allclose(matrix, (rz @ ry @ rx).ravel(), atol=ROUNDING)
    np.testing.assert_allclose(rotations.convert(matrix, "matrix", "euler_xyz"), [a, b, c], atol=ROUNDING)
    matrix = rotations.convert(np.array([c, a, b]), "euler_zxy", "matrix")
    np.testing.assert_allclose(matrix, (ry @ rx @ rz).ravel(), atol=ROUNDING)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2, np.pi / 2 - 1e-9])
def test_gimbal_lock_keeps_the_rotation_without_a_warning_and_has_no_yaw(pitch):
    locked = np.array([[0.3, pitch, 1.1], [-2.0, pitch, 0.4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrices = rotations.convert(locked, "euler_xyz", "matrix")
        angles = rotations.convert(matrices, "matrix", "euler_xyz")
    np.testing.assert_array_equal(angles[:, 2], 0)
    np.testing.assert_allclose(rotations.convert(angles, "euler_xyz", "matrix"), matrices, atol=GIMBAL_ROUNDING)


@pytest.mark.parametrize("form", ["quaternion_xyzw", "quaternion_wxyz"])
def test_antipodal_quaternions_are_one_rotation(form):
    quaternions = np.random.default_rng(2).normal(size=(100, 4))
    for target in TARGETS:
        one, other = (rotations.convert(sign * quaternions, form, target) for sign in (1, -1))
        np.testing.assert_allclose(one, other, atol=ROUNDING)
    scalar = rotations.convert(quaternions, form, "quaternion_wxyz")[:, 0]
    assert (scalar >= 0).all()


def test_half_turns_survive():
    turns = np.pi * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
    matrices = rotations.convert(turns, "axis_angle", "matrix")
    for form in TARGETS:
        back = rotations.convert(rotations.convert(matrices, "matrix", form), form, "matrix")
        np.testing.assert_allclose(back, matrices, atol=ROUNDING)


def test_two_columns_that_are_not_orthonormal_are_made_so():
    matrix = rotations.convert(np.array([2.0, 0, 0, 5, 3, 0]), "rotation_6d", "matrix")
    np.testing.assert_allclose(matrix, np.eye(3).ravel(), atol=ROUNDING)


def test_leading_axes_and_the_floating_type_stay():
    values = np.zeros((2, 5, 3), np.float32)
    turned = rotations.convert(values, "euler_xyz", "rotation_6d")
    assert turned.shape == (2, 5, 6)
    assert turned.dtype == np.float32


def test_the_difference_turns_the_start_into_the_end():
    start, to = random_matrices(40)[:20], random_matrices(40)[20:]
    change = rotations.convert(rotations.difference(to, start, "matrix"), "euler_xyz", "matrix")
    turned = change.reshape(-1, 3, 3) @ start.reshape(-1, 3, 3)
    np.testing.assert_allclose(turned.reshape(-1, 9), to, atol=ROUNDING)


def test_wrapped_angles_differ_by_full_turns():
    angles = np.array([-0.1, np.pi - 0.1, np.pi + 0.1, -np.pi - 0.2, 6.5 * np.pi])
    np.testing.assert_allclose(
        rotations.wrap(angles), [-0.1, np.pi - 0.1, -np.pi + 0.1, np.pi - 0.2, 0.5 * np.pi], atol=ROUNDING
    )


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [
        ([[0, 0, 0, 1], [0, 0, 0, 0]], "quaternion_xyzw", "quaternion_xyzw cannot be read.*zero norm"),
        ([[1, 0, 0, 2, 0, 0]], "rotation_6d", "rotation_6d cannot be read.*parallel"),
        ([[0, 0, 0, 1]], "euler_xyz", "euler_xyz have 3 numbers; these have 4"),
    ],
)
def test_what_is_no_rotation_is_refused(values, form, message):
    with pytest.raises(InputError, match=message):
        rotations.convert(np.array(values, float), form, "matrix")
