"""Other arms that are commanded by their hand: xArm, Sawyer, PR2, UR5, DLR's, Fanuc and more."""

import dataclasses

import numpy as np

from pizero_jax.data.embodiments.gripper import closing, closing_signed, opening
from pizero_jax.data.embodiments.layout import Layout, absent, gripper, hand, joints, position, rotation
from pizero_jax.data.embodiments.sources import documented, rdt
from pizero_jax.data.embodiments.specification import Derived, Specification

_STATE = "observation/state"
_BASE = {"base": "observation/image"}
_NO_GRIPPER = absent("gripper", 1, fill=1)
_ENDS = "the last column of the action ends the episode"
_CHANGES = "poses in the actions are taken to be changes, as octo does; the catalogue does not say so"
_OPENS = "the action's gripper is taken to open with 1, as octo does"


def _opposed(name: str) -> str:
    return f"the action's gripper opens with 1 in octo's reading, which is followed, closes with 1 in {rdt(name)}"


def _yaw(path: str, start: int, delta: bool) -> Layout:
    """A hand that turns about z only, in the columns of Euler angles."""
    return absent("roll_pitch", 2), joints(path, start, 1, name="yaw", delta=delta)


KUKA_MULTIMODAL = Specification(
    names=("stanford_kuka_multimodal_dataset_converted_externally_to_rlds",),
    robot="Kuka iiwa",
    hz=20,
    cameras=_BASE,
    state=(position("observation/ee_position"), rotation("observation/ee_orientation", 0, "quaternion_xyzw")),
    actions=(position("action", unit="recorded", delta=True), absent("rotation", 3), _NO_GRIPPER),
    fields={"observation/ee_position": (3,), "observation/ee_orientation": (4,), "action": (4,)},
    quirks=("the peg is fixed to the hand, which does not turn; octo reads the last column for a gripper",),
    unverified=(
        "the last column stays within 0.15 of zero and is left out: "
        + rdt("stanford_kuka_multimodal_dataset_converted_externally_to_rlds"),
        "the scale of positions",
        "the quaternion is taken to be x, y, z, w",
    ),
    sources=documented("stanford_kuka_multimodal_dataset_converted_externally_to_rlds"),
)

NYU_ROT = Specification(
    names=("nyu_rot_dataset_converted_externally_to_rlds",),
    robot="xArm",
    hz=3,
    cameras=_BASE,
    state=(position(_STATE), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, closing)),
    actions=hand("action", 0, closing),
    fields={_STATE: (7,), "action": (7,)},
    quirks=("the recorded grippers close with 1; octo leaves them as they are",),
    sources=documented("nyu_rot_dataset_converted_externally_to_rlds"),
)

UCSD_KITCHEN = Specification(
    names=("ucsd_kitchen_dataset_converted_externally_to_rlds",),
    robot="xArm",
    hz=2,
    cameras=_BASE,
    state=(joints(_STATE, 0, 7),),
    actions=hand("action", 0, opening, unit="recorded"),
    fields={_STATE: (21,), "action": (8,)},
    quirks=(_ENDS,),
    unverified=(_CHANGES, "their units", _opposed("ucsd_kitchen_dataset_converted_externally_to_rlds")),
    sources=documented("ucsd_kitchen_dataset_converted_externally_to_rlds"),
)

UCSD_PICK_AND_PLACE = Specification(
    names=("ucsd_pick_and_place_dataset_converted_externally_to_rlds",),
    robot="xArm",
    hz=3,
    cameras=_BASE,
    state=(position(_STATE, scale=0.1), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, unit="recorded")),
    actions=(position("action", unit="recorded", delta=True), absent("rotation", 3), gripper("action", 3, opening)),
    fields={_STATE: (7,), "action": (4,)},
    quirks=("actions are velocities, and the gripper's its torque",),
    unverified=(
        "the state's positions are in dm: " + rdt("ucsd_pick_and_place_dataset_converted_externally_to_rlds"),
        "the unit of velocities",
        _opposed("ucsd_pick_and_place_dataset_converted_externally_to_rlds"),
    ),
    sources=documented("ucsd_pick_and_place_dataset_converted_externally_to_rlds"),
)

PR2_FRIDGE = Specification(
    names=("utokyo_pr2_opening_fridge_converted_externally_to_rlds",),
    robot="PR2",
    hz=10,
    cameras=_BASE,
    state=(position(_STATE, scale=0.001), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, unit="recorded")),
    actions=(position("action", scale=0.001, delta=True), *hand("action", 0, opening)[1:]),
    fields={_STATE: (7,), "action": (8,)},
    quirks=(_ENDS,),
    unverified=(
        "positions are in mm: " + rdt("utokyo_pr2_opening_fridge_converted_externally_to_rlds"),
        _CHANGES,
        _opposed("utokyo_pr2_opening_fridge_converted_externally_to_rlds"),
    ),
    sources=documented("utokyo_pr2_opening_fridge_converted_externally_to_rlds"),
)

PR2_TABLETOP = dataclasses.replace(
    PR2_FRIDGE,
    names=("utokyo_pr2_tabletop_manipulation_converted_externally_to_rlds",),
    sources=documented("utokyo_pr2_tabletop_manipulation_converted_externally_to_rlds"),
)

XARM_PICK_AND_PLACE = Specification(
    names=("utokyo_xarm_pick_and_place_converted_externally_to_rlds",),
    robot="xArm",
    hz=10,
    cameras={"base": "observation/image", "secondary": "observation/image2", "wrist": "observation/hand_image"},
    state=(
        position("observation/end_effector_pose"),
        rotation("observation/end_effector_pose", 3, "euler_zyx", "euler_xyz"),
    ),
    actions=hand("action", 0, opening, form="euler_zyx"),
    fields={"observation/end_effector_pose": (6,), "action": (7,)},
    quirks=("angles are recorded as yaw, pitch, roll; octo leaves them so",),
    unverified=(_CHANGES, _opposed("utokyo_xarm_pick_and_place_converted_externally_to_rlds")),
    sources=documented("utokyo_xarm_pick_and_place_converted_externally_to_rlds"),
)

XARM_BIMANUAL = Specification(
    names=("utokyo_xarm_bimanual_converted_externally_to_rlds",),
    robot="two xArms",
    hz=10,
    cameras=_BASE,
    state=(
        position("observation/pose_l", name="left_position"),
        rotation("observation/pose_l", 3, "euler_zyx", "euler_xyz", name="left_rotation"),
        position("observation/pose_r", name="right_position"),
        rotation("observation/pose_r", 3, "euler_zyx", "euler_xyz", name="right_rotation"),
    ),
    actions=(
        *hand("action", 0, opening, form="euler_zyx", side="left_"),
        *hand("action", 7, opening, form="euler_zyx", side="right_"),
    ),
    fields={"observation/pose_l": (6,), "observation/pose_r": (6,), "action": (14,)},
    quirks=("angles are recorded as yaw, pitch, roll", "octo keeps the right arm only"),
    unverified=(
        f"{_CHANGES}; {rdt('utokyo_xarm_bimanual_converted_externally_to_rlds')} reads absolute poses",
        _opposed("utokyo_xarm_bimanual_converted_externally_to_rlds"),
    ),
    sources=documented("utokyo_xarm_bimanual_converted_externally_to_rlds"),
)

ROBO_NET = Specification(
    names=("robo_net",),
    robot="seven arms",
    hz=1,
    cameras={"base": "observation/image", "secondary": "observation/image1"},
    state=(position(_STATE, unit="recorded"), joints(_STATE, 3, 1, name="yaw"), gripper(_STATE, 4, unit="recorded")),
    actions=(
        position("action", unit="recorded", delta=True),
        *_yaw("action", 3, delta=True),
        gripper("action", 4, closing_signed),
    ),
    fields={_STATE: (5,), "action": (5,)},
    quirks=(
        "hands turn about z only; octo puts that turn in the place of roll",
        f"the recorded gripper closes with 1 and opens with -1: {rdt('robo_net')}; octo leaves it as it is",
    ),
    unverified=(
        "no feature list of this copy is public: names and widths follow " + rdt("robo_net"),
        "units",
        "the instruction is taken to be in language_instruction",
    ),
    sources=documented("robo_net", fields=rdt("robo_net")),
)

STANFORD_MASK_VIT = Specification(
    names=("stanford_mask_vit_converted_externally_to_rlds",),
    robot="Sawyer",
    hz=None,
    cameras=_BASE,
    state=(
        position("observation/end_effector_pose", unit="recorded"),
        joints("observation/end_effector_pose", 3, 1, name="yaw"),
        gripper("observation/end_effector_pose", 4, unit="recorded"),
    ),
    actions=(position("action", delta=True), *_yaw("action", 3, delta=True), gripper("action", 4, closing_signed)),
    fields={"observation/end_effector_pose": (5,), "action": (5,)},
    quirks=(
        "the hand turns about z only; octo puts that turn in the place of roll",
        "the recorded gripper closes with 1 and opens with -1; octo leaves it as it is",
    ),
    unverified=("positions are taken to be in m; those of the state may be normalised by its recorded bounds",),
    sources=documented("stanford_mask_vit_converted_externally_to_rlds"),
)

TOKYO_U_LSMO = Specification(
    names=("tokyo_u_lsmo_converted_externally_to_rlds",),
    robot="Cobotta",
    hz=10,
    cameras=_BASE,
    state=(position(_STATE), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 12, unit="recorded")),
    actions=hand("action", 0, opening),
    fields={_STATE: (13,), "action": (7,)},
    unverified=(_CHANGES, "units are taken to be m and rad", _opposed("tokyo_u_lsmo_converted_externally_to_rlds")),
    sources=documented("tokyo_u_lsmo_converted_externally_to_rlds"),
)

_ZXY = "angles are recorded about z, x, y; octo leaves them so"
_WATCHED = "the recorded gripper closes with 1, which was seen in the pictures: "

SARA_POUR = Specification(
    names=("dlr_sara_pour_converted_externally_to_rlds",),
    robot="DLR SARA",
    hz=10,
    cameras=_BASE,
    state=(position(_STATE), rotation(_STATE, 3, "euler_zxy", "euler_xyz")),
    actions=hand("action", 0, closing, form="euler_zxy"),
    fields={_STATE: (6,), "action": (7,)},
    quirks=(_ZXY, _WATCHED + rdt("dlr_sara_pour_converted_externally_to_rlds") + "; octo leaves it as it is"),
    unverified=(_CHANGES,),
    sources=documented("dlr_sara_pour_converted_externally_to_rlds"),
)

SARA_GRID_CLAMP = dataclasses.replace(
    SARA_POUR,
    names=("dlr_sara_grid_clamp_converted_externally_to_rlds",),
    fields={_STATE: (12,), "action": (7,)},
    sources=documented("dlr_sara_grid_clamp_converted_externally_to_rlds"),
)

EDAN_SHARED_CONTROL = dataclasses.replace(
    SARA_POUR,
    names=("dlr_edan_shared_control_converted_externally_to_rlds",),
    robot="DLR EDAN",
    hz=5,
    state=(*SARA_POUR.state, gripper(_STATE, 6, closing)),
    fields={_STATE: (7,), "action": (7,)},
    quirks=(_ZXY, _WATCHED + rdt("dlr_edan_shared_control_converted_externally_to_rlds") + "; octo inverts it, too"),
    sources=documented("dlr_edan_shared_control_converted_externally_to_rlds"),
)

ASU_TABLE_TOP = Specification(
    names=("asu_table_top_converted_externally_to_rlds",),
    robot="UR5",
    hz=12.5,
    cameras=_BASE,
    state=(
        position("ground_truth_states/EE"),
        rotation("ground_truth_states/EE", 3, "euler_xyz"),
        gripper(_STATE, 6, unit="recorded"),
    ),
    actions=hand("action", 0, opening, unit="recorded"),
    fields={"ground_truth_states/EE": (6,), _STATE: (7,), "action": (7,)},
    unverified=(
        "the action is a change of the hand's pose in octo's list, which is followed; the catalogue describes more "
        "velocities of joints than there are columns",
        _OPENS,
    ),
    sources=documented("asu_table_top_converted_externally_to_rlds"),
)

SAWYER_WRIST_CAM = Specification(
    names=("imperialcollege_sawyer_wrist_cam",),
    robot="Sawyer",
    hz=10,
    cameras={"wrist": "observation/wrist_image"},
    state=(gripper(_STATE, 0, unit="recorded"),),
    actions=hand("action", 0, opening),
    fields={_STATE: (1,), "action": (8,)},
    quirks=("changes are in the frame of the hand", "the camera called image is the wrist camera again", _ENDS),
    unverified=(
        "the angles, called ZYX, are taken to be recorded as roll, pitch, yaw",
        _opposed("imperialcollege_sawyer_wrist_cam"),
    ),
    sources=documented("imperialcollege_sawyer_wrist_cam"),
)

_MATRIX_COLUMNS = [3, 7, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10]  # of a 4 x 4 matrix row by row: position, rotation


def _pose(matrix: np.ndarray) -> np.ndarray:
    return matrix[:, _MATRIX_COLUMNS]


UIUC_D3FIELD = Specification(
    names=("uiuc_d3field",),
    robot="Kinova Gen3",
    hz=1,
    cameras={"base": "observation/image_1", "secondary": "observation/image_2"},
    state=(position("pose"), rotation("pose", 3, "matrix", "rotation_6d")),
    actions=(position("action", delta=True), absent("rotation", 3), _NO_GRIPPER),
    fields={_STATE: (4, 4), "action": (3,)},
    derived={"pose": Derived((_STATE,), 12, _pose)},
    quirks=(
        "octo and OpenVLA leave this set out of their mixtures: its data are broken",
        "image_3 and image_4 have no role here",
    ),
    unverified=("positions are taken to be in m",),
    sources=documented("uiuc_d3field"),
)

FANUC_MANIPULATION = Specification(
    names=("berkeley_fanuc_manipulation",),
    robot="Fanuc Mate",
    hz=10,
    cameras={"base": "observation/image", "wrist": "observation/wrist_image"},
    state=(joints(_STATE, 0, 6), gripper(_STATE, 6, closing)),
    actions=(*hand("action")[:2], gripper(_STATE, 6, closing)),
    fields={_STATE: (13,), "action": (6,)},
    quirks=("no command of the gripper is recorded: its state stands for it, and closes with 1",),
    sources=documented("berkeley_fanuc_manipulation", gripper=rdt("berkeley_fanuc_manipulation")),
)

ENTRIES = (
    KUKA_MULTIMODAL,
    NYU_ROT,
    UCSD_KITCHEN,
    UCSD_PICK_AND_PLACE,
    PR2_FRIDGE,
    PR2_TABLETOP,
    XARM_PICK_AND_PLACE,
    XARM_BIMANUAL,
    ROBO_NET,
    STANFORD_MASK_VIT,
    TOKYO_U_LSMO,
    SARA_POUR,
    SARA_GRID_CLAMP,
    EDAN_SHARED_CONTROL,
    ASU_TABLE_TOP,
    SAWYER_WRIST_CAM,
    UIUC_D3FIELD,
    FANUC_MANIPULATION,
)
