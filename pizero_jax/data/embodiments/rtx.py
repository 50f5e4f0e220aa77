"""Sets of Open X-Embodiment (arXiv 2310.08864) that keep actions by name, as RT-1's does."""

import dataclasses

import numpy as np

from pizero_jax.data import rotations
from pizero_jax.data.embodiments.gripper import (
    closing,
    closing_clipped,
    closing_relative,
    opening,
    opening_clipped,
)
from pizero_jax.data.embodiments.layout import Layout, absent, gripper, hand, joints, position, rotation
from pizero_jax.data.embodiments.sources import (
    OCTO_CONFIGS,
    OCTO_TRANSFORMS,
    OPENVLA_MIXTURES,
    OPENX2LEROBOT,
    RDT_FREQUENCIES,
    TFDS_LANGUAGE_TABLE,
    documented,
    rdt,
)
from pizero_jax.data.embodiments.specification import Derived, Specification

_MOVE, _TURN, _GRIP = "action/world_vector", "action/rotation_delta", "action/gripper_closedness_action"
_INSTRUCTION = "observation/natural_language_instruction"
_NO_GRIPPER = absent("gripper", 1, fill=1)
_RELATIVE = "the gripper's command is relative: 1 closes, -1 opens, 0 leaves it"
_SAME_WORDS = "octo drops the instruction, which says little here; OpenVLA keeps it"
_NO_SCALE = "the scale of the controller's positions and rotations"


def _moves(unit: str = "m") -> Layout:
    """Changes of position and rotation, or what `unit` and its counterpart of angles are."""
    moved = position(_MOVE, unit=unit, delta=True)
    turned = rotation(_TURN, 0, "euler_xyz", delta=True)
    return moved, dataclasses.replace(turned, unit={"m": "euler_xyz", "m/s": "rad/s"}.get(unit, unit))


_MOVES = {_MOVE: (3,), _TURN: (3,)}
_TOOL = "observation/base_pose_tool_reached"

FRACTAL = Specification(
    names=("fractal20220817_data",),
    robot="Google's mobile manipulator",
    hz=3,
    cameras={"base": "observation/image"},
    state=(
        position(_TOOL),
        rotation(_TOOL, 3, "quaternion_xyzw"),
        gripper("observation/gripper_closed", 0, closing),
    ),
    actions=(*_moves(), gripper(_GRIP, 0, closing_relative)),
    fields={**_MOVES, _GRIP: (1,), _TOOL: (7,), "observation/gripper_closed": (1,)},
    instruction=_INSTRUCTION,
    quirks=(_RELATIVE, "the base moves in few episodes: its displacement is left out"),
    sources=documented("fractal20220817_data", quaternion=rdt("fractal20220817_data")),
)

_CLIPPED_TOOL = "observation/clip_function_input/base_pose_tool_reached"

KUKA = Specification(
    names=("kuka",),
    robot="Kuka iiwa",
    hz=10,
    cameras={"base": "observation/image"},
    state=(
        position(_CLIPPED_TOOL),
        rotation(_CLIPPED_TOOL, 3, "quaternion_xyzw"),
        gripper("observation/gripper_closed", 0, closing),
    ),
    actions=(*_moves(), gripper(_GRIP, 0, closing_relative)),
    fields={**_MOVES, _GRIP: (1,), _CLIPPED_TOOL: (7,), "observation/gripper_closed": (1,)},
    instruction=_INSTRUCTION,
    compressed=(_CLIPPED_TOOL, "observation/gripper_closed"),
    quirks=(_RELATIVE, _SAME_WORDS, "many episodes fail: `success`, beside the steps, says which"),
    sources=documented("kuka", quaternion=rdt("kuka")),
)

_ROBOT = "observation/robot_obs"

TACO_PLAY = Specification(
    names=("taco_play",),
    robot="Franka",
    hz=15,
    cameras={"base": "observation/rgb_static", "wrist": "observation/rgb_gripper"},
    state=(position(_ROBOT), rotation(_ROBOT, 3, "euler_xyz"), gripper(_ROBOT, 6, unit="m")),
    actions=hand("action/rel_actions_world", 0, opening_clipped, unit="recorded"),
    fields={_ROBOT: (15,), "action/rel_actions_world": (7,)},
    instruction=_INSTRUCTION,
    quirks=("octo and OpenVLA take column 7, the first joint, for the gripper's width, which is column 6",),
    unverified=(
        "the gripper opens with 1 in octo's and OpenVLA's reading, with -1 in the catalogue and in " + rdt("taco_play"),
        "the angles' order: the catalogue has yaw, pitch, roll; octo reads roll, pitch, yaw",
        _NO_SCALE,
    ),
    sources=documented("taco_play"),
)

_JACO = "observation/end_effector_cartesian_pos"

JACO_PLAY = Specification(
    names=("jaco_play",),
    robot="Jaco 2",
    hz=10,
    cameras={"base": "observation/image", "wrist": "observation/image_wrist"},
    state=(position(_JACO), rotation(_JACO, 3, "quaternion_xyzw")),
    actions=(position(_MOVE, delta=True), absent("rotation", 3), gripper(_GRIP, 0, closing_relative)),
    fields={_JACO: (7,), _MOVE: (3,), _GRIP: (1,)},
    instruction=_INSTRUCTION,
    quirks=(_RELATIVE, "the hand does not turn"),
    unverified=(
        f"the state is position and quaternion in {rdt('jaco_play')}, which is followed; octo takes its columns for "
        "position, Euler angles and gripper",
    ),
    sources=documented("jaco_play"),
)

CABLE_ROUTING = Specification(
    names=("berkeley_cable_routing",),
    robot="Franka",
    hz=10,
    cameras={"base": "observation/image", "secondary": "observation/top_image", "wrist": "observation/wrist45_image"},
    state=(position("observation/robot_state"), rotation("observation/robot_state", 3, "quaternion_xyzw")),
    actions=(*_moves("m/s"), _NO_GRIPPER),
    fields={**_MOVES, "observation/robot_state": (7,)},
    instruction=_INSTRUCTION,
    quirks=(
        "actions are velocities, angular ones about z only",
        "the gripper holds the cable throughout; octo has it closed",
        "a second wrist camera, wrist225_image, has no role here",
        _SAME_WORDS,
    ),
    unverified=(
        f"the state is position and quaternion in {rdt('berkeley_cable_routing')}, which is followed; octo calls it "
        "joints",
    ),
    sources=documented("berkeley_cable_routing"),
)

ROBOTURK = Specification(
    names=("roboturk",),
    robot="Sawyer",
    hz=10,
    cameras={"base": "observation/front_rgb"},
    state=(),
    actions=(*_moves(), gripper(_GRIP, 0, closing_clipped)),
    fields={**_MOVES, _GRIP: (1,)},
    instruction=_INSTRUCTION,
    quirks=("no state is recorded", _SAME_WORDS),
    unverified=("positions are taken to be in m",),
    sources=documented("roboturk", hz=OPENX2LEROBOT),
)

NYU_DOOR = Specification(
    names=("nyu_door_opening_surprising_effectiveness",),
    robot="Hello Stretch",
    hz=3,
    cameras={"wrist": "observation/image"},
    state=(),
    actions=(*_moves(), gripper(_GRIP, 0, closing_clipped)),
    fields={**_MOVES, _GRIP: (1,)},
    instruction=_INSTRUCTION,
    quirks=("no state is recorded", _SAME_WORDS),
    unverified=(
        "the gripper runs from -0.28, open, to 0.96, closed, which is followed: "
        f"{rdt('nyu_door_opening_surprising_effectiveness')}; octo takes it for a relative command",
        "positions are taken to be changes in m over a step; the catalogue calls them velocities",
    ),
    sources=documented("nyu_door_opening_surprising_effectiveness"),
)

VIOLA = Specification(
    names=("viola",),
    robot="Franka",
    hz=20,
    cameras={"base": "observation/agentview_rgb", "wrist": "observation/eye_in_hand_rgb"},
    state=(joints("observation/joint_states", 0, 7), gripper("observation/gripper_states", 0, unit="m")),
    actions=(*_moves("recorded"), gripper(_GRIP, 0, closing_clipped)),
    fields={**_MOVES, _GRIP: (), "observation/joint_states": (7,), "observation/gripper_states": (1,)},
    instruction=_INSTRUCTION,
    quirks=("the recorded gripper closes with 1 and opens with -1", _SAME_WORDS),
    unverified=(_NO_SCALE,),
    sources=documented("viola"),
)

_UR5 = "observation/robot_state"

AUTOLAB_UR5 = Specification(
    names=("berkeley_autolab_ur5",),
    robot="UR5",
    hz=5,
    cameras={"base": "observation/image", "wrist": "observation/hand_image"},
    state=(position(_UR5, 6), rotation(_UR5, 9, "quaternion_xyzw"), gripper(_UR5, 13, closing)),
    actions=(*_moves(), gripper(_GRIP, 0, closing_relative)),
    fields={**_MOVES, _GRIP: (), _UR5: (15,)},
    instruction=_INSTRUCTION,
    quirks=(_RELATIVE, "octo leaves the state's gripper as it is recorded, 1 = closed"),
    sources=documented("berkeley_autolab_ur5", state=rdt("berkeley_autolab_ur5")),
)

TOTO = Specification(
    names=("toto",),
    robot="Franka",
    hz=30,
    cameras={"base": "observation/image"},
    state=(joints("observation/state", 0, 7),),
    actions=(*_moves(), gripper("action/open_gripper", 0, opening)),
    fields={**_MOVES, "action/open_gripper": (), "observation/state": (7,)},
    instruction=_INSTRUCTION,
    quirks=(_SAME_WORDS,),
    unverified=("positions are taken to be in m",),
    sources=documented("toto"),
)


def _codepoints(recorded: np.ndarray) -> str:
    """Text as numbers of its characters, padded with zeros."""
    return "".join(chr(number) for number in np.asarray(recorded).ravel() if number)


LANGUAGE_TABLE = Specification(
    names=("language_table",),
    robot="xArm with a stick",
    hz=10,
    cameras={"base": "observation/rgb"},
    state=(position("observation/effector_translation", 0, 2),),
    actions=(
        position("action", 0, 2, name="position_xy", delta=True),
        absent("position_z", 1),
        absent("rotation", 3),
        _NO_GRIPPER,
    ),
    fields={"action": (2,), "observation/effector_translation": (2,), "observation/instruction": (512,)},
    instruction="observation/instruction",
    read_instruction=_codepoints,
    quirks=("the instruction is recorded as numbers of characters, 512 of them with zeros at the end",),
    sources={
        "fields": TFDS_LANGUAGE_TABLE,
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_TRANSFORMS,
        "hz": RDT_FREQUENCIES,
    },
)

PUSHT_REAL = Specification(
    names=("columbia_cairlab_pusht_real",),
    robot="UR5 with a stick",
    hz=10,
    cameras={"base": "observation/image", "wrist": "observation/wrist_image"},
    state=(position("observation/robot_state", 0, 2),),
    actions=(*_moves(), gripper(_GRIP, 0, closing_relative)),
    fields={**_MOVES, _GRIP: (), "observation/robot_state": (2,)},
    instruction=_INSTRUCTION,
    quirks=(_RELATIVE, "there is no gripper: it is open throughout, as no command comes"),
    sources=documented("columbia_cairlab_pusht_real"),
)

_ANGLE, _ANGLE_CHANGE, _TURNED = "observation/present/axis_angle", "action/future/axis_angle_residual", "turned"


def _turns(axis_angle: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """The turn from the present rotation to the first of the next ten, which differ from it in their axis-angles."""
    return rotations.difference(axis_angle + changes[:, :3], axis_angle, "axis_angle")


BC_Z = Specification(
    names=("bc_z",),
    robot="Google's mobile manipulator",
    hz=10,
    cameras={"base": "observation/image"},
    state=(
        position("observation/present/xyz"),
        rotation(_ANGLE, 0, "axis_angle"),
        gripper("observation/present/sensed_close", 0, closing),
    ),
    actions=(
        position("action/future/xyz_residual", delta=True),
        rotation(_TURNED, 0, "euler_xyz", delta=True),
        gripper("action/future/target_close", 0, closing),
    ),
    fields={
        "observation/present/xyz": (3,),
        _ANGLE: (3,),
        "observation/present/sensed_close": (1,),
        "action/future/xyz_residual": (30,),
        _ANGLE_CHANGE: (30,),
        "action/future/target_close": (10,),
    },
    derived={_TURNED: Derived((_ANGLE, _ANGLE_CHANGE), 3, _turns)},
    instruction=_INSTRUCTION,
    quirks=(
        "actions are the next ten; the first of them is read",
        "rotations are differences of axis-angles, which octo and OpenVLA read as Euler angles; here they are composed",
        "versions after 0.1.0 are broken: " + OPENVLA_MIXTURES,
    ),
    sources=documented("bc_z"),
)

ENTRIES = (
    FRACTAL,
    KUKA,
    TACO_PLAY,
    JACO_PLAY,
    CABLE_ROUTING,
    ROBOTURK,
    NYU_DOOR,
    VIOLA,
    AUTOLAB_UR5,
    TOTO,
    LANGUAGE_TABLE,
    PUSHT_REAL,
    BC_Z,
)
