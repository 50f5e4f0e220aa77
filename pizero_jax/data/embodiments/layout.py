"""What the columns of a state and of actions mean, and how they follow from the columns that a data set records.

The canonical convention, of every data set that is read by a specification:

* Arms that are commanded by where their hand goes have actions of seven columns: change of position in m, change of
  rotation as Euler angles xyz in rad (`data/rotations.py`), both over one step and in the frame of the robot's base,
  and a gripper of 1 = open, 0 = closed, absolute. Two arms have the left one's seven, then the right one's.
  What a robot lacks is filled, with the gripper open, and is `absent`: masked, so that nothing is learnt from it.
* Arms that are commanded in their joints have these, changes or absolute as `Group.delta` says, then a gripper.
* A robot on wheels has the changes of its place in its own frame.
* States keep the rotation form that is recorded, which the unit of the group names; their grippers open with 1 or are
  widths in m. States come from many robots and have no common width.

Where a data set records a controller's own scale, or does not say what it records, the unit is "recorded" and the
numbers are as they are. Exceptions are written down in the entry (`quirks`, `unverified`).
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from pizero_jax.data import rotations
from pizero_jax.data.embodiments.gripper import Opening
from pizero_jax.errors import InputError

Columns = Float[np.ndarray, "T n"]
Layout = tuple["Group", ...]

UNITS = ("m", "rad", "m/s", "rad/s", "opening", "recorded", *rotations.WIDTHS)


@dataclasses.dataclass(frozen=True)
class Group:
    """Neighbouring columns of a state or of actions that mean one thing."""

    name: str  # unique in its layout
    width: int  # columns
    unit: str  # one of `UNITS`; rotations have that of their form
    path: str = ""  # the field of a step that they are read from; "" if the data set has none
    start: int = 0  # the columns of that field
    stop: int = 0
    read: Callable[[Columns], Columns] | None = None  # recorded columns to these; None: they are the same
    delta: bool = False  # change over one step, or absolute
    fill: float = 0.0  # what stands for an absent one

    def __post_init__(self):
        if self.unit not in UNITS:
            raise InputError(f"the unit of group {self.name!r} is {self.unit!r}; allowed: {', '.join(UNITS)}")

    @property
    def absent(self) -> bool:
        return not self.path


def width(layout: Layout) -> int:
    return sum(group.width for group in layout)


def present(layout: Layout) -> Bool[np.ndarray, "columns"]:
    """False for columns that the data set does not have."""
    return np.repeat([not group.absent for group in layout], [group.width for group in layout]).astype(bool)


def changes(layout: Layout) -> Bool[np.ndarray, "columns"]:
    """True for columns that are recorded changes over one step, False for what is absolute or absent."""
    return np.repeat([group.delta and not group.absent for group in layout], [group.width for group in layout]).astype(
        bool
    )


def column_names(layout: Layout) -> list[str]:
    """`position[0]`, ...: one for each column, for tables and figures."""
    return [
        f"{group.name}[{column}]" if group.width > 1 else group.name
        for group in layout
        for column in range(group.width)
    ]


def absent(name: str, columns: int, fill: float = 0.0) -> Group:
    return Group(name, columns, "opening" if "gripper" in name else "recorded", fill=fill)


def position(
    path: str,
    start: int = 0,
    columns: int = 3,
    *,
    unit: str = "m",
    scale: float = 1,
    name: str = "position",
    delta=False,
) -> Group:
    """`scale` turns recorded numbers into `unit`."""
    read = None if scale == 1 else functools.partial(_scaled, scale=scale)
    return Group(name, columns, unit, path, start, start + columns, read, delta)


def rotation(
    path: str, start: int, form: str, target: str = "", *, scale: float = 1, name: str = "rotation", delta=False
) -> Group:
    """Recorded in `form` and read as `target`, the same unless given; both keys of `rotations.WIDTHS`."""
    target = target or form
    read = None if (form, scale) == (target, 1) else functools.partial(_turned, form=form, target=target, scale=scale)
    stop = start + rotations.WIDTHS[form]
    return Group(name, rotations.WIDTHS[target], target, path, start, stop, read, delta)


def joints(
    path: str, start: int, columns: int, *, unit: str = "rad", name: str = "joints", delta: bool = False
) -> Group:
    return Group(name, columns, unit, path, start, start + columns, None, delta)


def gripper(
    path: str,
    start: int,
    convention: Callable[[Float[np.ndarray, "T"]], Opening] | None = None,
    *,
    unit: str = "opening",
    scale: float = 1,
    name: str = "gripper",
) -> Group:
    """One column; `convention` (`embodiments/gripper.py`) reads it as an opening, after it is scaled."""
    read = None if convention is None and scale == 1 else functools.partial(_opened, convention=convention, scale=scale)
    return Group(name, 1, unit, path, start, start + 1, read)


def hand(
    path: str,
    start: int = 0,
    convention: Callable[[Float[np.ndarray, "T"]], Opening] | None = None,
    *,
    form: str = "euler_xyz",
    unit: str = "m",
    side: str = "",
) -> Layout:
    """Actions that one field records next to each other: change of position, change of rotation, gripper.

    `unit` is that of the position, and says what the rotation has: rad, rad/s or what is recorded.
    """
    turned = rotation(path, start + 3, form, "euler_xyz", name=f"{side}rotation", delta=True)
    turned = dataclasses.replace(turned, unit={"m": "euler_xyz", "m/s": "rad/s"}.get(unit, "recorded"))
    return (
        position(path, start, unit=unit, name=f"{side}position", delta=True),
        turned,
        gripper(path, turned.stop, convention, name=f"{side}gripper"),
    )


def _scaled(values: Columns, scale: float) -> Columns:
    return values * np.float32(scale)


def _turned(values: Columns, form: str, target: str, scale: float) -> Columns:
    return rotations.convert(values * np.float32(scale), form, target)


def _opened(values: Columns, convention: Callable | None, scale: float) -> Columns:
    scaled = _scaled(values, scale)
    return scaled if convention is None else convention(scaled[:, 0])[:, None]
