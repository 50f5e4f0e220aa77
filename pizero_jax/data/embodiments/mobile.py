"""Robots on wheels, and hands that people carry."""

import dataclasses

from pizero_jax.data.embodiments.gripper import opening
from pizero_jax.data.embodiments.layout import gripper, hand, joints, position, rotation
from pizero_jax.data.embodiments.sources import (
    DOBBE,
    GNM,
    OCTO_CONFIGS,
    OCTO_TRANSFORMS,
    OPENX2LEROBOT,
    documented,
    rdt,
)
from pizero_jax.data.embodiments.specification import Specification

_STATE = "observation/state"

CMU_STRETCH = Specification(
    names=("cmu_stretch",),
    robot="Hello Stretch",
    hz=10,
    cameras={"base": "observation/image"},
    state=(position(_STATE), gripper(_STATE, 3, opening)),
    actions=hand("action", 0, opening),
    fields={_STATE: (4,), "action": (8,)},
    quirks=("the last column of the action ends the episode",),
    unverified=(
        "poses in the actions are taken to be changes and to be in m and rad, as octo does",
        "grippers are taken to open with 1",
    ),
    sources=documented("cmu_stretch"),
)

DOBBE_HOMES = Specification(
    names=("dobbe",),
    robot="a stick with the gripper and camera of a Hello Stretch, carried by people",
    hz=30,
    cameras={"wrist": "observation/wrist_image"},
    state=(position(_STATE), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, opening)),
    actions=hand("action", 0, opening),
    fields={_STATE: (7,), "action": (7,)},
    quirks=(
        "changes of position are in the frame of the recording, those of rotation in the frame of the hand",
        "the action's gripper is the next step's",
        "positions jump where tracking failed: " + rdt("dobbe") + " clips them to 10 m",
    ),
    unverified=(
        "grippers are taken to open with 1",
        f"30 Hz as in {rdt('dobbe')}; 3.75 Hz in {OPENX2LEROBOT}",
    ),
    sources=documented("dobbe", fields=DOBBE),
)

GNM_ALL = Specification(
    names=("gnm_dataset",),
    robot="several on wheels",
    hz=None,
    cameras={"base": "observation/image"},
    state=(position(_STATE, 0, 2), joints(_STATE, 2, 1, name="yaw")),
    actions=(position("action", 0, 2, name="waypoint", delta=True),),
    fields={_STATE: (3,), "action": (2,)},
    quirks=(
        "the action is the next place in the robot's frame: x ahead, y to its left",
        "octo keeps every third step, computes the waypoints anew and scales them by the robot's usual stride",
        "the instruction is the same everywhere: tasks are pictures of a goal",
    ),
    unverified=("positions are taken to be in m",),
    sources={"fields": GNM, "cameras": OCTO_CONFIGS, "conventions": OCTO_TRANSFORMS},
)


def _gnm(name: str, robot: str, hz: float) -> Specification:
    """One of its sets as TFDS has it."""
    return dataclasses.replace(
        GNM_ALL, names=(name,), robot=robot, hz=hz, sources=documented(name, conventions=GNM, robot=OPENX2LEROBOT)
    )


ENTRIES = (
    CMU_STRETCH,
    DOBBE_HOMES,
    GNM_ALL,
    _gnm("berkeley_gnm_recon", "Jackal", 3),
    _gnm("berkeley_gnm_cory_hall", "RC car", 5),
    _gnm("berkeley_gnm_sac_son", "TurtleBot 2", 10),
)
