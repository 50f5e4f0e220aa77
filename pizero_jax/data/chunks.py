"""Chunks of actions and histories of observations by time, and actions that are relative to a state."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from pizero_jax.types import InputError


def stride(hz: float, frequency: float) -> float:
    """Recorded steps for each step of a policy that acts `frequency` times a second; `hz` is the data set's own."""
    if not 0 < frequency <= hz:
        raise InputError(
            f"chunks at {frequency:g} Hz cannot be taken from actions at {hz:g} Hz; "
            f"choose more than 0 and at most {hz:g}"
        )
    return hz / frequency


def chunk(
    actions: Float[np.ndarray, "T A"], delta: Bool[np.ndarray, "A"], first: int, *, count: int, stride: float = 1
) -> tuple[Float32[np.ndarray, "C A"], Bool[np.ndarray, "C"]]:
    """`count` actions from step `first` on, each over `stride` recorded ones, and which of them are there in full.

    Changes over several recorded steps are added up: for positions and joints that is exact, for small rotations it is
    so to first order. What is absolute is taken from the last of these steps, where the movement is to end.
    Past the end changes are zero and what is absolute stays.

    Args:
      delta: which columns are changes over one recorded step; `embodiments.layout.changes` says so of a data set.
    """
    bounds = first + np.rint(np.arange(count + 1) * stride).astype(np.int64)
    ends = np.minimum(bounds, len(actions))
    sums = np.concatenate([np.zeros((1, actions.shape[1])), np.cumsum(actions, axis=0, dtype=np.float64)])
    changes = sums[ends[1:]] - sums[ends[:-1]]
    chosen = np.where(delta, changes, actions[np.maximum(ends[1:], 1) - 1])
    return chosen.astype(np.float32), bounds[1:] <= len(actions)


def history(first: int, *, count: int, stride: float = 1) -> tuple[Int64[np.ndarray, "H"], Bool[np.ndarray, "H"]]:
    """The steps of `count` observations up to and with step `first`, oldest first, and which of them exist.

    Before the start the first step stands in.
    """
    steps = first - np.rint(np.arange(count)[::-1] * stride).astype(np.int64)
    return np.maximum(steps, 0), steps >= 0


def relative(
    actions: Float[np.ndarray, "*batch C A"], reference: Float[np.ndarray, "*batch A"], mask: Bool[np.ndarray, "A"]
) -> Float32[np.ndarray, "*batch C A"]:
    """Absolute actions less `reference` where `mask` is True: targets of joints as seen from where the joints are.

    Args:
      reference: the state when the chunk starts, in the columns of the actions; unread where `mask` is False.
    """
    return (actions - _offset(reference, mask)).astype(np.float32)


def absolute(
    actions: Float[np.ndarray, "*batch C A"], reference: Float[np.ndarray, "*batch A"], mask: Bool[np.ndarray, "A"]
) -> Float32[np.ndarray, "*batch C A"]:
    """The inverse of `relative`, for what a policy answers."""
    return (actions + _offset(reference, mask)).astype(np.float32)


def _offset(reference: Float[np.ndarray, "*batch A"], mask: Bool[np.ndarray, "A"]) -> Float[np.ndarray, "*batch 1 A"]:
    return np.where(mask, reference, 0)[..., None, :]
