"""Franka arms that are commanded by their hand; those of DROID, LIBERO and RT-X have files of their own."""

from pizero_jax.data.embodiments.gripper import (
    closing,
    closing_clipped,
    opening,
    opening_clipped,
    opening_signed,
)
from pizero_jax.data.embodiments.layout import absent, gripper, hand, joints, position, rotation
from pizero_jax.data.embodiments.sources import (
    FURNITURE_BENCH,
    OCTO_CONFIGS,
    OCTO_TRANSFORMS,
    PLAYING_WITH_FOOD,
    documented,
    rdt,
)
from pizero_jax.data.embodiments.specification import Specification

_STATE = "observation/state"
_CAMERAS = {"base": "observation/image", "wrist": "observation/wrist_image"}
_JOINTS = (joints(_STATE, 0, 7), gripper(_STATE, 7, unit="m"))  # and the gripper's width
_CLOSES = "the recorded gripper closes with 1 and opens with -1"
_ENDS = "the last column of the action ends the episode"
_SAME_WORDS = "octo drops the instruction, which says little here; OpenVLA keeps it"
_NO_SCALE = "the scale of the controller's positions and rotations"
_CHANGES = "poses in the actions are taken to be changes, as octo does; the catalogue does not say so"
_OPENS = "the action's gripper is taken to open with 1, as octo does"
_SCALAR_LAST = "quaternions are taken to be x, y, z, w"

STANFORD_HYDRA = Specification(
    names=("stanford_hydra_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=10,
    cameras=_CAMERAS,
    state=(position(_STATE), rotation(_STATE, 7, "euler_xyz"), gripper(_STATE, 24, unit="m")),
    actions=hand("action", 0, closing),
    fields={_STATE: (27,), "action": (7,)},
    quirks=("the recorded gripper closes with 1", _SAME_WORDS),
    sources=documented(
        "stanford_hydra_dataset_converted_externally_to_rlds",
        gripper=rdt("stanford_hydra_dataset_converted_externally_to_rlds"),
    ),
)

AUSTIN_BUDS = Specification(
    names=("austin_buds_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=20,
    cameras=_CAMERAS,
    state=_JOINTS,
    actions=hand("action", 0, closing_clipped, unit="recorded"),
    fields={_STATE: (24,), "action": (7,)},
    quirks=(_CLOSES, _SAME_WORDS),
    unverified=(_NO_SCALE,),
    sources=documented("austin_buds_dataset_converted_externally_to_rlds"),
)

AUSTIN_SAILOR = Specification(
    names=("austin_sailor_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=20,
    cameras=_CAMERAS,
    state=(position(_STATE), rotation(_STATE, 3, "quaternion_xyzw"), gripper(_STATE, 7, unit="m")),
    actions=hand("action", 0, closing_clipped, unit="recorded"),
    fields={_STATE: (8,), "action": (7,)},
    quirks=(_CLOSES, _SAME_WORDS),
    unverified=(_NO_SCALE, _SCALAR_LAST),
    sources=documented("austin_sailor_dataset_converted_externally_to_rlds"),
)

AUSTIN_SIRIUS = Specification(
    names=("austin_sirius_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=20,
    cameras=_CAMERAS,
    state=_JOINTS,
    actions=hand("action", 0, closing_clipped, unit="recorded"),
    fields={_STATE: (8,), "action": (7,)},
    quirks=(_CLOSES, _SAME_WORDS, "octo calls the state position and quaternion; the catalogue calls it joints"),
    unverified=(_NO_SCALE,),
    sources=documented("austin_sirius_dataset_converted_externally_to_rlds"),
)

UTAUSTIN_MUTEX = Specification(
    names=("utaustin_mutex",),
    robot="Franka",
    hz=20,
    cameras=_CAMERAS,
    state=_JOINTS,
    actions=hand("action", 0, closing_clipped, unit="recorded"),
    fields={_STATE: (24,), "action": (7,)},
    quirks=(_CLOSES, "octo drops the instruction, several long sentences; OpenVLA keeps it"),
    unverified=(_NO_SCALE,),
    sources=documented("utaustin_mutex"),
)

NYU_FRANKA_PLAY = Specification(
    names=("nyu_franka_play_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=3,
    cameras={"base": "observation/image", "secondary": "observation/image_additional_view"},
    state=(position(_STATE, 7), rotation(_STATE, 10, "euler_xyz")),
    actions=hand("action", 7, opening_clipped),
    fields={_STATE: (13,), "action": (15,)},
    quirks=("columns 0 to 6 of the action are velocities of the joints", _ENDS, _SAME_WORDS),
    sources=documented(
        "nyu_franka_play_dataset_converted_externally_to_rlds",
        gripper=rdt("nyu_franka_play_dataset_converted_externally_to_rlds"),
    ),
)

MANISKILL = Specification(
    names=("maniskill_dataset_converted_externally_to_rlds",),
    robot="Franka, simulated",
    hz=20,
    cameras=_CAMERAS,
    state=(
        position("observation/tcp_pose"),
        rotation("observation/tcp_pose", 3, "quaternion_wxyz"),
        gripper(_STATE, 7, unit="m"),
    ),
    actions=(
        position("action", scale=0.1, delta=True),
        rotation("action", 3, "axis_angle", "euler_xyz", scale=0.1, delta=True),
        gripper("action", 6, opening_signed),
    ),
    fields={"observation/tcp_pose": (7,), _STATE: (18,), "action": (7,)},
    quirks=(
        "1 in the action is 0.1 m or 0.1 rad; the gripper opens with 1 and closes with -1; octo leaves all as it is",
    ),
    sources=documented("maniskill_dataset_converted_externally_to_rlds"),
)

FURNITURE_BENCH_DATA = Specification(
    names=("furniture_bench_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=10,
    cameras=_CAMERAS,
    state=(position(_STATE), rotation(_STATE, 3, "quaternion_xyzw"), gripper(_STATE, 34, unit="m")),
    actions=hand("action", 0, closing_clipped, form="quaternion_xyzw"),
    fields={_STATE: (35,), "action": (8,)},
    quirks=(_CLOSES,),
    unverified=(
        "changes are taken to be in m over a step; the builder calls them velocities",
        "the quaternions' order is that of " + rdt("furniture_bench_dataset_converted_externally_to_rlds"),
    ),
    sources=documented("furniture_bench_dataset_converted_externally_to_rlds", fields=FURNITURE_BENCH),
)

CMU_EXPLORATION = Specification(
    names=("cmu_franka_exploration_dataset_converted_externally_to_rlds",),
    robot="Franka",
    hz=10,
    cameras={"base": "observation/highres_image"},
    state=(),
    actions=hand("action", 0, opening),
    fields={"action": (8,)},
    quirks=("no state is recorded", _ENDS),
    unverified=(_CHANGES,),
    sources=documented(
        "cmu_franka_exploration_dataset_converted_externally_to_rlds",
        gripper=rdt("cmu_franka_exploration_dataset_converted_externally_to_rlds"),
    ),
)

CMU_FOOD = Specification(
    names=("cmu_playing_with_food",),
    robot="Franka",
    hz=15,
    cameras={
        "base": "observation/image",
        "left_wrist": "observation/finger_vision_1",
        "right_wrist": "observation/finger_vision_2",
    },
    state=(joints(_STATE, 0, 6, unit="recorded", name="force"),),
    actions=hand("action", 0, opening, form="quaternion_xyzw"),
    fields={_STATE: (6,), "action": (8,)},
    quirks=(
        "the state is the force on the hand, not a pose as octo's list has it",
        "the cameras in the two fingers are black in episodes of pressing, the forces zero in the others",
        "OpenX lists have 10 Hz; the data set's own description has 15",
    ),
    unverified=(_CHANGES, _OPENS, _SCALAR_LAST, "which finger is the left one"),
    sources={
        "fields": PLAYING_WITH_FOOD,
        "cameras": OCTO_CONFIGS,
        "conventions": OCTO_TRANSFORMS,
        "hz": PLAYING_WITH_FOOD.rpartition("/")[0] + "/README.md",
    },
)

CMU_PLAY_FUSION = Specification(
    names=("cmu_play_fusion",),
    robot="Franka",
    hz=5,
    cameras={"base": "observation/image"},
    state=_JOINTS,
    actions=hand("action", 0, opening, form="quaternion_xyzw"),
    fields={_STATE: (8,), "action": (9,)},
    quirks=(_ENDS, "octo reads the last four columns for rotation and gripper, which end with the episode's"),
    unverified=(_OPENS, _SCALAR_LAST),
    sources=documented("cmu_play_fusion"),
)

KAIST_NONPREHENSILE = Specification(
    names=("kaist_nonprehensile_converted_externally_to_rlds",),
    robot="Franka",
    hz=10,
    cameras={"base": "observation/image"},
    state=(position(_STATE, 14), rotation(_STATE, 17, "quaternion_xyzw")),
    actions=(
        position("action", delta=True),
        rotation("action", 3, "axis_angle", "euler_xyz", delta=True),
        absent("gripper", 1, fill=1),
    ),
    fields={_STATE: (21,), "action": (20,)},
    quirks=("the gripper does not move; the rest of the action are gains of the controller",),
    sources=documented("kaist_nonprehensile_converted_externally_to_rlds"),
)

ROBOCOOK = Specification(
    names=("stanford_robocook_converted_externally_to_rlds",),
    robot="Franka",
    hz=5,
    cameras={"base": "observation/image_1", "secondary": "observation/image_2"},
    state=(position(_STATE), rotation(_STATE, 3, "euler_xyz"), gripper(_STATE, 6, unit="m")),
    actions=hand("action", 0, unit="m/s")[:2] + (gripper("action", 6, unit="recorded"),),
    fields={_STATE: (7,), "action": (7,)},
    quirks=("actions are velocities, that of the gripper too", "image_3 and image_4 have no role here"),
    unverified=("which sign of the gripper's velocity opens it",),
    sources=documented("stanford_robocook_converted_externally_to_rlds"),
)

IAMLAB_PICKUP_INSERT = Specification(
    names=("iamlab_cmu_pickup_insert_converted_externally_to_rlds",),
    robot="Franka",
    hz=20,
    cameras=_CAMERAS,
    state=(joints(_STATE, 0, 7), gripper(_STATE, 7, opening)),
    actions=hand("action", 0, opening, form="quaternion_xyzw"),
    fields={_STATE: (20,), "action": (8,)},
    unverified=(_CHANGES, _OPENS, _SCALAR_LAST),
    sources=documented("iamlab_cmu_pickup_insert_converted_externally_to_rlds"),
)

FMB = Specification(
    names=("fmb_dataset", "fmb"),
    robot="Franka",
    hz=10,
    cameras={
        "base": "observation/image_side_1",
        "secondary": "observation/image_side_2",
        "wrist": "observation/image_wrist_1",
    },
    state=(
        position("observation/eef_pose"),
        rotation("observation/eef_pose", 3, "quaternion_xyzw"),
        gripper("observation/state_gripper_pose", 0, closing),
    ),
    actions=hand("action", 0, opening, unit="recorded"),
    fields={"observation/eef_pose": (7,), "observation/state_gripper_pose": (), "action": (7,)},
    quirks=("a second wrist camera, image_wrist_2, has no role here",),
    unverified=(
        f"actions are changes in octo's list, absolute poses in {rdt('fmb')}; octo is followed, the scale is not known",
        f"the state's gripper closes with 1, and the quaternion is x, y, z, w, in {rdt('fmb')}",
        _OPENS,
    ),
    sources=documented("fmb"),
)

ENTRIES = (
    STANFORD_HYDRA,
    AUSTIN_BUDS,
    AUSTIN_SAILOR,
    AUSTIN_SIRIUS,
    UTAUSTIN_MUTEX,
    NYU_FRANKA_PLAY,
    MANISKILL,
    FURNITURE_BENCH_DATA,
    CMU_EXPLORATION,
    CMU_FOOD,
    CMU_PLAY_FUSION,
    KAIST_NONPREHENSILE,
    ROBOCOOK,
    IAMLAB_PICKUP_INSERT,
    FMB,
)
