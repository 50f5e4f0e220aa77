"""BridgeData V2 (arXiv 2308.12952), a WidowX 250, as its authors publish it and as Open X-Embodiment does."""

import numpy as np

from pizero_jax.data import rotations
from pizero_jax.data.embodiments.gripper import opening, opening_thresholded
from pizero_jax.data.embodiments.layout import gripper, position, rotation
from pizero_jax.data.embodiments.sources import (
    BRIDGE,
    OCTO_CONFIGS,
    OCTO_TRANSFORMS,
    OPENVLA_TRANSFORMS,
    OPENX2LEROBOT,
    RDT_FREQUENCIES,
    catalogue,
)
from pizero_jax.data.embodiments.specification import Derived, Specification

_STATE, _REACHED = "observation/state", "reached"
_RELABELLED = (
    "the change of pose is taken from the state that was reached, as octo and OpenVLA do, not from the command"
)
_NO_ACTION = "the first step has no action and the last no next state"


def _reached(state: np.ndarray) -> np.ndarray:
    """The change of position and of Euler angles [T, 6] up to the next step; none in the last, which is not kept."""
    changes = np.zeros((len(state), 6), state.dtype)
    changes[:-1] = state[1:, :6] - state[:-1, :6]
    changes[:, 3:] = rotations.wrap(changes[:, 3:])  # the hand may turn past 180 degrees
    return changes


_HAND_STATE = (position(_STATE), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, opening))
_CHANGES = (position(_REACHED, delta=True), rotation(_REACHED, 3, "euler_xyz", delta=True))

BRIDGE_DATASET = Specification(
    names=("bridge_dataset", "bridge_orig"),
    robot="WidowX 250",
    hz=5,
    cameras={"base": "observation/image_0", "secondary": "observation/image_1", "wrist": "observation/image_3"},
    state=_HAND_STATE,
    actions=(*_CHANGES, gripper("action", 6, opening_thresholded)),
    fields={_STATE: (7,), "action": (7,)},
    derived={_REACHED: Derived((_STATE,), 6, _reached)},
    skip_first=1,
    skip_last=1,
    quirks=(
        _RELABELLED,
        _NO_ACTION,
        "a camera that an episode lacks is black; episode_metadata/has_image_0 ... has_image_3 say which",
        "an instruction that is missing is empty; episode_metadata/has_language says so",
        "octo and OpenVLA leave the wrist camera image_3 out, as most episodes do",
    ),
    unverified=("the state's gripper is taken to open with 1",),
    sources={
        "fields": BRIDGE,
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_TRANSFORMS,
        "first step": OPENVLA_TRANSFORMS,
        "hz": RDT_FREQUENCIES,
    },
)

BRIDGE_OXE = Specification(
    names=("bridge", "bridge_oxe"),
    robot="WidowX 250",
    hz=5,
    cameras={"base": "observation/image"},
    state=_HAND_STATE,
    actions=(*_CHANGES, gripper("action/open_gripper", 0, opening)),
    fields={_STATE: (7,), "action/open_gripper": ()},
    instruction="observation/natural_language_instruction",
    derived={_REACHED: Derived((_STATE,), 6, _reached)},
    skip_first=1,
    skip_last=1,
    quirks=(
        _RELABELLED,
        _NO_ACTION,
        "an older and smaller copy, with pictures of one camera: prefer bridge_dataset",
        "OpenVLA names a second camera, image_1, that the catalogue does not have",
    ),
    unverified=("the state's gripper is taken to open with 1",),
    sources={"fields": catalogue("bridge"), "conventions": OPENVLA_TRANSFORMS, "hz": OPENX2LEROBOT},
)

ENTRIES = (BRIDGE_DATASET, BRIDGE_OXE)
