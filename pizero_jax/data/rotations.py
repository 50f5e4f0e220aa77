"""Rotations of bodies in the forms that data sets record.

All are active rotations: they turn a vector of the body into the frame in which the body is seen.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pizero_jax.errors import InputError

WIDTHS: Mapping[str, int] = {
    "euler_xyz": 3,  # roll, pitch, yaw in rad about the fixed axes x, y, z in turn: R = Rz(yaw) Ry(pitch) Rx(roll)
    "euler_zyx": 3,  # the same three angles, recorded as yaw, pitch, roll
    "euler_zxy": 3,  # about the fixed axes z, x, y in turn: scipy's "zxy"
    "quaternion_xyzw": 4,  # q and -q are one rotation; what is returned has w >= 0
    "quaternion_wxyz": 4,
    "axis_angle": 3,  # axis times angle in rad; what is returned has an angle of at most pi
    "matrix": 9,  # row by row
    "rotation_6d": 6,  # the first two columns of the matrix, one after the other: arXiv 1812.07035, section 4.2
}
"""Numbers of each form."""

_GIMBAL = 1e-6  # cosine of the pitch below which roll and yaw turn about one axis


def convert(values: Float[np.ndarray, "*batch n"], source: str, target: str) -> Float[np.ndarray, "*batch m"]:
    """The same rotations in another form, of the same floating type.

    Args:
      source: a key of `WIDTHS`.
      target: any of them but "euler_zxy". In gimbal lock (pitch of +-90 degrees) Euler angles have a yaw of 0.

    Raises:
      InputError: for numbers that are no rotation: a quaternion of length zero, a matrix that mirrors or is singular.
    """
    values = np.asarray(values)
    if values.shape[-1] != WIDTHS[source]:
        raise InputError(f"rotations as {source} have {WIDTHS[source]} numbers; these have {values.shape[-1]}")
    try:
        rotations = _FROM[source](values.reshape(-1, WIDTHS[source]).astype(np.float64))
    except ValueError as error:
        raise InputError(f"rotations as {source} cannot be read: {error}") from error
    return _TO[target](rotations).reshape(*values.shape[:-1], WIDTHS[target]).astype(values.dtype)


def difference(
    to: Float[np.ndarray, "*batch n"], start: Float[np.ndarray, "*batch n"], form: str
) -> Float[np.ndarray, "*batch 3"]:
    """What turns `start` into `to`, as Euler angles xyz in the fixed frame: R_to = R_difference R_start."""
    ends, starts = (_matrices(x, form) for x in (to, start))
    turned = ends @ np.swapaxes(starts, -1, -2)
    return convert(turned.reshape(*turned.shape[:-2], 9), "matrix", "euler_xyz").astype(np.asarray(to).dtype)


def wrap(angles: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Angles in rad moved by full turns into [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _matrices(values: Float[np.ndarray, "*batch n"], form: str) -> Float[np.ndarray, "*batch 3 3"]:
    matrices = convert(np.asarray(values, np.float64), form, "matrix")
    return matrices.reshape(*matrices.shape[:-1], 3, 3)


def _from_6d(columns: Float[np.ndarray, "n 6"]) -> Rotation:
    """Gram-Schmidt, as the paper has it, so that any two independent columns make a rotation."""
    first, second = columns[:, :3], columns[:, 3:]
    with np.errstate(invalid="ignore"):  # 0 / 0, refused below
        x = first / np.linalg.norm(first, axis=-1, keepdims=True)
        y = second - np.sum(x * second, axis=-1, keepdims=True) * x
        y /= np.linalg.norm(y, axis=-1, keepdims=True)
    if not np.isfinite(y).all():
        raise ValueError("two columns are parallel or zero")
    return Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=-1))


def _to_euler(rotations: Rotation) -> Float[np.ndarray, "n 3"]:
    """scipy's own conversion prints a warning for each gimbal lock; it can be silenced from version 1.17 on only."""
    m = rotations.as_matrix()
    cosine = np.hypot(m[:, 0, 0], m[:, 1, 0])
    locked = cosine < _GIMBAL
    roll = np.where(locked, np.arctan2(-m[:, 1, 2], m[:, 1, 1]), np.arctan2(m[:, 2, 1], m[:, 2, 2]))
    pitch = np.arctan2(-m[:, 2, 0], cosine)
    yaw = np.where(locked, 0.0, np.arctan2(m[:, 1, 0], m[:, 0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1) + 0.0  # so that zeros have no sign


_FROM: Mapping[str, Callable[[np.ndarray], Rotation]] = {
    "euler_xyz": lambda x: Rotation.from_euler("xyz", x),
    "euler_zyx": lambda x: Rotation.from_euler("xyz", x[:, ::-1]),
    "euler_zxy": lambda x: Rotation.from_euler("zxy", x),
    "quaternion_xyzw": Rotation.from_quat,
    "quaternion_wxyz": lambda x: Rotation.from_quat(x[:, [1, 2, 3, 0]]),
    "axis_angle": Rotation.from_rotvec,
    "matrix": lambda x: Rotation.from_matrix(x.reshape(-1, 3, 3)),
    "rotation_6d": _from_6d,
}

_TO: Mapping[str, Callable[[Rotation], np.ndarray]] = {
    "euler_xyz": _to_euler,
    "euler_zyx": lambda r: _to_euler(r)[:, ::-1],
    "quaternion_xyzw": lambda r: r.as_quat(canonical=True),
    "quaternion_wxyz": lambda r: r.as_quat(canonical=True)[:, [3, 0, 1, 2]],
    "axis_angle": lambda r: r.as_rotvec(),
    "matrix": lambda r: r.as_matrix().reshape(-1, 9),
    "rotation_6d": lambda r: np.concatenate([r.as_matrix()[:, :, 0], r.as_matrix()[:, :, 1]], axis=-1),
}
