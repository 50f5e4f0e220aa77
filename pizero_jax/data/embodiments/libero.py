"""LIBERO (arXiv 2306.03310), a simulated Franka, in the RLDS form that OpenVLA was fine-tuned on."""

from pizero_jax.data.embodiments.gripper import closing_signed
from pizero_jax.data.embodiments.layout import Group, gripper, position, rotation
from pizero_jax.data.embodiments.sources import (
    LIBERO_FEATURES,
    OFT_CONFIGS,
    OFT_LIBERO,
    OFT_TRANSFORMS,
    OPENX2LEROBOT,
    ROBOSUITE_OSC,
)
from pizero_jax.data.embodiments.specification import Specification

_STATE = "observation/state"

LIBERO = Specification(
    names=("libero_spatial_no_noops", "libero_object_no_noops", "libero_goal_no_noops", "libero_10_no_noops"),
    robot="Franka, simulated",
    hz=20,
    cameras={"base": "observation/image", "wrist": "observation/wrist_image"},
    state=(position(_STATE), rotation(_STATE, 3, "axis_angle"), Group("fingers", 2, "m", _STATE, 6, 8)),
    actions=(
        position("action", unit="recorded", delta=True),
        Group("rotation", 3, "recorded", "action", 3, 6, delta=True),
        gripper("action", 6, closing_signed),
    ),
    fields={_STATE: (8,), "action": (7,)},
    quirks=(
        "positions and rotations are commands in [-1, 1] of robosuite's OSC_POSE, which the simulator takes back: 1 is "
        "0.05 m, or 0.5 rad of an axis-angle",
        "the recorded gripper closes with 1 and opens with -1",
        "steps that do nothing are gone, and pictures turned by 180 degrees, compared with LIBERO's own files",
        "the two fingers mirror each other: positions of opposite sign",
    ),
    sources={
        "fields": LIBERO_FEATURES,
        "cameras": OFT_CONFIGS,
        "conventions": OFT_TRANSFORMS,
        "state, dropped steps": OFT_LIBERO,
        "scale": ROBOSUITE_OSC,
        "hz": OPENX2LEROBOT,
    },
)

ENTRIES = (LIBERO,)
