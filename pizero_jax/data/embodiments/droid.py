"""DROID (arXiv 2403.12945): Franka arms on a common stand, commanded at 15 Hz, read by hand or by joints."""

import dataclasses

from pizero_jax.data.embodiments.gripper import closing
from pizero_jax.data.embodiments.layout import gripper, joints, position, rotation
from pizero_jax.data.embodiments.sources import DROID_FEATURES, DROID_SCALE, OPENVLA_DROID, RDT_FREQUENCIES
from pizero_jax.data.embodiments.specification import Specification

_VELOCITY = "action_dict/cartesian_velocity"
_GRIPPER = gripper("action_dict/gripper_position", 0, closing)
_SEEN_GRIPPER = gripper("observation/gripper_position", 0, closing)
_SEEN_JOINTS = joints("observation/joint_position", 0, 7)

DROID = Specification(
    names=("droid",),
    robot="Franka",
    hz=15,
    cameras={
        "base": "observation/exterior_image_1_left",
        "secondary": "observation/exterior_image_2_left",
        "wrist": "observation/wrist_image_left",
    },
    state=(
        position("observation/cartesian_position"),
        rotation("observation/cartesian_position", 3, "euler_xyz"),
        _SEEN_GRIPPER,
    ),
    actions=(
        position(_VELOCITY, scale=0.075, delta=True),
        rotation(_VELOCITY, 3, "euler_xyz", scale=0.15, delta=True),
        _GRIPPER,
    ),
    fields={
        "observation/cartesian_position": (6,),
        "observation/gripper_position": (1,),
        _VELOCITY: (6,),
        "action_dict/gripper_position": (1,),
    },
    other_instructions=("language_instruction_2", "language_instruction_3"),
    idle=1e-6,
    quirks=(
        "Cartesian velocities are commands in [-1, 1]: 1 is 0.075 m or 0.15 rad in a step",
        "the recorded grippers close with 1",
        "steps without a command of movement are dropped, as OpenVLA does",
        "the two exterior cameras stand anywhere; OpenVLA swaps them at random, which nothing here does",
        "language_instruction_2 and language_instruction_3 have other words for some episodes; many have none at all",
    ),
    sources={
        "fields": DROID_FEATURES,
        "cameras": OPENVLA_DROID,
        "conventions": OPENVLA_DROID,
        "scale": DROID_SCALE,
        "hz": RDT_FREQUENCIES,
    },
)

DROID_JOINTS = dataclasses.replace(
    DROID,
    names=("droid_joint_velocity",),
    state=(_SEEN_JOINTS, _SEEN_GRIPPER),
    actions=(joints("action_dict/joint_velocity", 0, 7, unit="recorded", delta=True), _GRIPPER),
    fields={
        "observation/joint_position": (7,),
        "observation/gripper_position": (1,),
        "action_dict/joint_velocity": (7,),
        "action_dict/gripper_position": (1,),
    },
    quirks=(
        "the same episodes, commanded in the joints: velocities as the controller takes them, in [-1, 1]",
        "the recorded grippers close with 1",
        "steps without a command of movement are dropped",
    ),
)

DROID_JOINT_POSITIONS = dataclasses.replace(
    DROID_JOINTS,
    names=("droid_joint_position",),
    state=(_SEEN_JOINTS, gripper("observation/gripper_position", 0, unit="recorded")),
    actions=(joints("action_dict/joint_position", 0, 7), gripper("action_dict/gripper_position", 0, unit="recorded")),
    fields={
        "observation/joint_position": (7,),
        "observation/gripper_position": (1,),
        "action_dict/joint_position": (7,),
        "action_dict/gripper_position": (1,),
    },
    idle=None,
    quirks=(
        "the same episodes as openpi's policies for DROID know them: targets of joints, made relative by data.delta",
        "grippers stay as recorded, 1 = closed, unlike everywhere else: openpi's weights know them so",
        "openpi leaves out idle frames by a list of ranges (droid_sample_ranges_v1_0_1.json), and episodes that failed",
    ),
)

ENTRIES = (DROID, DROID_JOINTS, DROID_JOINT_POSITIONS)
