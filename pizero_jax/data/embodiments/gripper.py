"""What data sets mean by a gripper's number, as functions to one meaning: the opening, 1 = open and 0 = closed.

Each takes the numbers of an episode in order, [T], and returns as many, float32.
"""

import numpy as np
from jaxtyping import Float, Float32

Numbers = Float[np.ndarray, "T"]
Opening = Float32[np.ndarray, "T"]

_OPEN, _CLOSED = 0.95, 0.05  # beyond these a commanded opening is meant to be full or none
_MOVES = 0.1  # size from which a relative command moves the gripper


def opening(x: Numbers) -> Opening:
    """Recorded as 1 = open, 0 = closed, or as an opening in another unit: as it is."""
    return np.asarray(x, np.float32)


def closing(x: Numbers) -> Opening:
    """Recorded as 1 = closed, 0 = open."""
    return 1 - opening(x)


def opening_clipped(x: Numbers) -> Opening:
    """Recorded as 1 = open and 0 or less = closed."""
    return np.clip(opening(x), 0, 1)


def closing_clipped(x: Numbers) -> Opening:
    """Recorded as 1 = closed and 0 or less = open."""
    return 1 - opening_clipped(x)


def opening_signed(x: Numbers) -> Opening:
    """Recorded as 1 = open, -1 = closed, with everything between them."""
    return np.clip((opening(x) + 1) / 2, 0, 1)


def closing_signed(x: Numbers) -> Opening:
    """Recorded as 1 = closed, -1 = open, with everything between them."""
    return 1 - opening_signed(x)


def opening_thresholded(x: Numbers) -> Opening:
    """Recorded as 1 = open, 0 = closed, passing through values between them while it moves.

    A value above 0.95 is open, one below 0.05 closed. One between is on its way to the next such value and gets that;
    after the last such value it keeps that one. An episode without any is cut at one half.
    """
    x = opening(x)
    definite = (x > _OPEN) | (x < _CLOSED)
    if not definite.any():
        return (x > 0.5).astype(np.float32)
    places = np.arange(len(x))
    following = np.where(definite, places, len(x))
    following = np.minimum.accumulate(following[::-1])[::-1]  # of each step, the next definite one from here on
    last = places[definite][-1]
    return (x[np.minimum(following, last)] > _OPEN).astype(np.float32)


def closing_relative(x: Numbers) -> Opening:
    """Recorded as commands: positive closes, negative opens, and less than 0.1 in size changes nothing.

    A command holds until the next. Before the first one the gripper was where that one moves it from; without any it
    is open.
    """
    x = opening(x)
    commands = np.abs(x) > _MOVES
    if not commands.any():
        return np.ones(len(x), np.float32)
    places = np.arange(len(x))
    latest = np.maximum.accumulate(np.where(commands, places, -1))  # -1 before the first command
    opens = x < 0
    before = ~opens[places[commands][0]]
    return np.where(latest < 0, before, opens[latest]).astype(np.float32)


def opening_relative(x: Numbers) -> Opening:
    """Recorded as commands: positive opens, negative closes; otherwise as `closing_relative`."""
    return closing_relative(-opening(x))
