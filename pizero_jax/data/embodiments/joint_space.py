"""Arms that are commanded in their joints: two xArms, a Franka, and the two-armed ALOHA."""

import dataclasses

from pizero_jax.data.embodiments.gripper import closing, closing_clipped, opening
from pizero_jax.data.embodiments.layout import Layout, gripper, joints, position
from pizero_jax.data.embodiments.sources import (
    OCTO_CONFIGS,
    OCTO_TRANSFORMS,
    OFT_ALOHA,
    OFT_CONFIGS,
    RDT_FREQUENCIES,
    catalogue,
    documented,
    rdt,
)
from pizero_jax.data.embodiments.specification import Specification

_STATE = "observation/state"

BERKELEY_MVP = Specification(
    names=("berkeley_mvp_converted_externally_to_rlds",),
    robot="xArm",
    hz=5,
    cameras={"wrist": "observation/hand_image"},
    state=(joints("observation/joint_pos", 0, 7), gripper("observation/gripper", 0, closing)),
    actions=(joints("action", 0, 7, delta=True), gripper("action", 7, closing)),
    fields={"observation/joint_pos": (7,), "observation/gripper": (), "action": (8,)},
    quirks=(
        "the recorded grippers close with 1",
        "octo's state is observation/pose, position and rotation of the hand",
    ),
    sources=documented("berkeley_mvp_converted_externally_to_rlds"),
)

BERKELEY_RPT = dataclasses.replace(
    BERKELEY_MVP,
    names=("berkeley_rpt_converted_externally_to_rlds",),
    hz=30,
    quirks=(
        "the recorded grippers close with 1",
        "octo keeps every third step and takes changes from the states; here it is 30 Hz and the recorded changes",
    ),
    sources=documented("berkeley_rpt_converted_externally_to_rlds"),
)

ROBOSET = Specification(
    names=("roboset", "robo_set"),
    robot="Franka",
    hz=5,
    cameras={
        "base": "observation/image_left",
        "secondary": "observation/image_right",
        "wrist": "observation/image_wrist",
    },
    state=(joints(_STATE, 0, 7), gripper(_STATE, 7, unit="recorded")),
    actions=(joints("action", 0, 7), gripper("action", 7, closing_clipped)),
    fields={_STATE: (8,), "action": (8,)},
    quirks=("a fourth camera, image_top, has no role here", "the recorded gripper closes with 1 and opens with -1"),
    unverified=(
        "joints are taken to be absolute targets; octo's list says changes",
        "which number of the state's gripper is open",
    ),
    sources=documented("robo_set"),
)


def _two_arms(path: str) -> Layout:
    """Left arm's six joints and gripper, then the right one's."""
    return (
        joints(path, 0, 6, name="left_joints"),
        gripper(path, 6, opening, name="left_gripper"),
        joints(path, 7, 6, name="right_joints"),
        gripper(path, 13, opening, name="right_gripper"),
    )


_ALOHA_CAMERAS = {
    "base": "observation/cam_high",
    "secondary": "observation/cam_low",
    "left_wrist": "observation/cam_left_wrist",
    "right_wrist": "observation/cam_right_wrist",
}
_OPENS_WITH_ONE = "grippers are normalised so that 1 is open: " + rdt("aloha_static")
_EVERY_FIFTH = "octo keeps every fifth step, 10 Hz of 50"

ALOHA_STATIC = Specification(
    names=("aloha_static_dataset", "aloha_dagger_dataset"),
    robot="ALOHA",
    hz=50,
    cameras=_ALOHA_CAMERAS,
    state=_two_arms(_STATE),
    actions=_two_arms("action"),
    fields={_STATE: (14,), "action": (14,)},
    quirks=(_OPENS_WITH_ONE, _EVERY_FIFTH, "octo's wrist camera is the right one"),
    unverified=(
        "no feature list is public: widths and cameras follow octo's list, the left wrist camera aloha_mobile",
        "the instruction is taken to be in language_instruction",
    ),
    sources={
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_TRANSFORMS,
        "hz": RDT_FREQUENCIES,
        "order": rdt("aloha_static"),
    },
)

ALOHA_MOBILE = Specification(
    names=("aloha_mobile_dataset", "aloha_mobile"),
    robot="Mobile ALOHA",
    hz=50,
    cameras={role: path for role, path in _ALOHA_CAMERAS.items() if role != "secondary"},
    state=_two_arms(_STATE),
    actions=(*_two_arms("action"), position("action", 14, 2, unit="recorded", name="base_velocity", delta=True)),
    fields={_STATE: (14,), "action": (16,)},
    quirks=(_OPENS_WITH_ONE, _EVERY_FIFTH, "the base's columns are its linear, then its angular velocity"),
    unverified=("the units of the base's velocities",),
    sources={
        "fields": catalogue("aloha_mobile"),
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_CONFIGS,
        "hz": RDT_FREQUENCIES,
        "order": rdt("aloha_mobile"),
    },
)

ALOHA_OFT = Specification(
    names=(
        "aloha1_fold_shorts_20_demos",
        "aloha1_fold_shirt_30_demos",
        "aloha1_scoop_X_into_bowl_45_demos",
        "aloha1_put_X_into_pot_300_demos",
    ),
    robot="ALOHA",
    hz=25,
    cameras={
        "base": "observation/image",
        "left_wrist": "observation/left_wrist_image",
        "right_wrist": "observation/right_wrist_image",
    },
    state=_two_arms(_STATE),
    actions=_two_arms("action"),
    fields={_STATE: (14,), "action": (14,)},
    quirks=("joints are absolute", "recorded at 25 Hz, half of ALOHA's own frequency"),
    unverified=("grippers are taken to open with 1, as in act-plus-plus",),
    sources={"cameras": OFT_CONFIGS, "conventions": OFT_CONFIGS, "hz": OFT_ALOHA},
)

ENTRIES = (BERKELEY_MVP, BERKELEY_RPT, ROBOSET, ALOHA_STATIC, ALOHA_MOBILE, ALOHA_OFT)
