"""Episodes in the true layout of each data set, read to values that were worked out by hand."""

import dataclasses
import zlib

import numpy as np
import pytest

from pizero_jax.data.embodiments import table
from pizero_jax.data.embodiments.specification import read_episode
from tests.data.embodiments.synthetic import episode, picture, row

PI, HALF = np.pi, 0.5**0.5  # HALF is the sine and cosine of 45 degrees: half of a quarter turn
KEEP_ALL = None
RT1 = dict(action__world_vector=[[0.1, 0.2, 0.3], [0, 0, 0]], action__rotation_delta=[[0.4, 0.5, 0.6], [0, 0, 0.7]])
RT1_MOVES = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 0, 0, 0, 0.7]]


@dataclasses.dataclass
class Case:
    """Of two steps, unless its numbers are of more."""

    name: str
    recorded: dict
    cameras: dict  # role -> field of the observation
    state: list
    actions: list
    keep: list | None = KEEP_ALL


def moves(*grippers: float) -> list:
    """Actions of `RT1` with these openings."""
    return [[*move, opening] for move, opening in zip(RT1_MOVES, grippers, strict=True)]


CASES = [
    Case(
        "fractal20220817_data",
        RT1
        | dict(
            action__gripper_closedness_action=[0, 1],  # nothing, then close: it was open
            observation__base_pose_tool_reached=[[1, 2, 3, 0, 0, HALF, HALF], [4, 5, 6, 0, 0, 0, 1]],
            observation__gripper_closed=[0.25, 1],
        ),
        {"base": "image"},
        [[1, 2, 3, 0, 0, HALF, HALF, 0.75], [4, 5, 6, 0, 0, 0, 1, 0]],
        moves(1, 0),
    ),
    Case(  # four steps: neither the first nor the last is kept
        "bridge_dataset",
        dict(
            observation__state=[
                [0, 0, 0, 3.0, 0, 0, 1],
                [0.1, 0, 0, 3.1, 0, 0, 1],
                [0.1, 0.2, 0, -3.1, 0, 0.5, 0.5],  # past 180 degrees
                [0.1, 0.2, -0.3, -3.1, 0.1, 0.5, 0],
            ],
            action=[row(7, _6=[opening]) for opening in (1, 0.6, 0.2, 0)],  # on its way from the second step on
        ),
        {"base": "image_0", "secondary": "image_1", "wrist": "image_3"},
        [
            [0, 0, 0, 3.0, 0, 0, 1],
            [0.1, 0, 0, 3.1, 0, 0, 1],
            [0.1, 0.2, 0, -3.1, 0, 0.5, 0.5],
            [0.1, 0.2, -0.3, -3.1, 0.1, 0.5, 0],
        ],
        [
            [0.1, 0, 0, 0.1, 0, 0, 1],
            [0, 0.2, 0, 2 * PI - 6.2, 0, 0.5, 0],
            [0, 0, -0.3, 0, 0.1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],
        ],
        [False, True, True, False],
    ),
    Case(
        "bridge",
        dict(
            observation__state=[[0, 0, 0, 0, 0, 0, 1], [0.1, 0, 0, 0, 0.2, 0, 0.5], [0.1, 0, 0.3, 0, 0.2, 0.1, 0]],
            action__open_gripper=[True, True, False],
        ),
        {"base": "image"},
        [[0, 0, 0, 0, 0, 0, 1], [0.1, 0, 0, 0, 0.2, 0, 0.5], [0.1, 0, 0.3, 0, 0.2, 0.1, 0]],
        [[0.1, 0, 0, 0, 0.2, 0, 1], [0, 0, 0.3, 0, 0, 0.1, 1], [0, 0, 0, 0, 0, 0, 0]],
        [False, True, False],
    ),
    Case(
        "taco_play",
        dict(
            observation__robot_obs=[row(15, _0=[1, 2, 3, 0.1, 0.2, 0.3, 0.08])] * 2,
            action__rel_actions_world=[[0.5, -0.5, 1, 0.1, 0.2, 0.3, 1], [0, 0, 0, 0, 0, 0, -1]],
        ),
        {"base": "rgb_static", "wrist": "rgb_gripper"},
        [[1, 2, 3, 0.1, 0.2, 0.3, 0.08]] * 2,
        [[0.5, -0.5, 1, 0.1, 0.2, 0.3, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "jaco_play",
        dict(
            observation__end_effector_cartesian_pos=[[1, 2, 3, 0, 0, 0, 1]] * 2,
            action__world_vector=[[0.1, 0.2, 0.3], [0, 0, 0]],
            action__gripper_closedness_action=[-1, 0],  # it opens, and stays so
        ),
        {"base": "image", "wrist": "image_wrist"},
        [[1, 2, 3, 0, 0, 0, 1]] * 2,
        [[0.1, 0.2, 0.3, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]],
    ),
    Case(
        "berkeley_cable_routing",
        RT1 | dict(observation__robot_state=[[1, 2, 3, 1, 0, 0, 0]] * 2),
        {"base": "image", "secondary": "top_image", "wrist": "wrist45_image"},
        [[1, 2, 3, 1, 0, 0, 0]] * 2,
        moves(1, 1),  # no gripper: open, and masked
    ),
    Case(
        "roboturk",
        RT1 | dict(action__gripper_closedness_action=[-1, 1]),
        {"base": "front_rgb"},
        [[], []],
        moves(1, 0),
    ),
    Case(
        "viola",
        RT1
        | dict(
            action__gripper_closedness_action=[1, -1],
            observation__joint_states=[[1, 2, 3, 4, 5, 6, 7]] * 2,
            observation__gripper_states=[0.07, 0.01],
        ),
        {"base": "agentview_rgb", "wrist": "eye_in_hand_rgb"},
        [[1, 2, 3, 4, 5, 6, 7, 0.07], [1, 2, 3, 4, 5, 6, 7, 0.01]],
        moves(0, 1),
    ),
    Case(
        "berkeley_autolab_ur5",
        RT1
        | dict(
            action__gripper_closedness_action=[1, 0],
            observation__robot_state=[row(15, _6=[1, 2, 3, 0, 0, 0, 1, 0]), row(15, _6=[1, 2, 3, 0, 0, 0, 1, 1])],
        ),
        {"base": "image", "wrist": "hand_image"},
        [[1, 2, 3, 0, 0, 0, 1, 1], [1, 2, 3, 0, 0, 0, 1, 0]],
        moves(0, 0),
    ),
    Case(
        "toto",
        RT1 | dict(action__open_gripper=[True, False], observation__state=[[1, 2, 3, 4, 5, 6, 7]] * 2),
        {"base": "image"},
        [[1, 2, 3, 4, 5, 6, 7]] * 2,
        moves(1, 0),
    ),
    Case(
        "language_table",
        dict(
            observation__effector_translation=[[0.3, -0.1], [0.4, -0.1]],
            action=[[0.1, 0], [0, 0.02]],
            observation__instruction=[[ord(letter) for letter in "do it"] + [0] * 507] * 2,
        ),
        {"base": "rgb"},
        [[0.3, -0.1], [0.4, -0.1]],
        [[0.1, 0, 0, 0, 0, 0, 1], [0, 0.02, 0, 0, 0, 0, 1]],
    ),
    Case(
        "bc_z",
        {
            "observation__present__xyz": [[1, 2, 3]] * 2,
            "observation__present__axis_angle": [[0, 0, PI / 2], [0, 0, 0]],
            "observation__present__sensed_close": [0.2, 1],
            "action__future__xyz_residual": [row(30, _0=[0.1, 0.2, 0.3])] * 2,
            # from a quarter turn on by 0.1 rad about the same axis; then from none to 0.3 about y
            "action__future__axis_angle_residual": [row(30, _0=[0, 0, 0.1]), row(30, _0=[0, 0.3, 0])],
            "action__future__target_close": [[0] + [7] * 9, [1] + [7] * 9],
        },
        {"base": "image"},
        [[1, 2, 3, 0, 0, PI / 2, 0.8], [1, 2, 3, 0, 0, 0, 0]],
        [[0.1, 0.2, 0.3, 0, 0, 0.1, 1], [0.1, 0.2, 0.3, 0, 0.3, 0, 0]],
    ),
    Case(
        "stanford_hydra_dataset_converted_externally_to_rlds",
        dict(
            observation__state=[row(27, _0=[1, 2, 3], _7=[0.1, 0.2, 0.3], _24=[0.08])] * 2,
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0], [0, 0, 0, 0, 0, 0, 1]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, 0.1, 0.2, 0.3, 0.08]] * 2,
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "austin_buds_dataset_converted_externally_to_rlds",
        dict(
            observation__state=[row(24, _0=[1, 2, 3, 4, 5, 6, 7, 0.08])] * 2,
            action=[[1, -1, 0, 0.5, 0, 0, -1], [0, 0, 0, 0, 0, 0, 1]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, 4, 5, 6, 7, 0.08]] * 2,
        [[1, -1, 0, 0.5, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "nyu_franka_play_dataset_converted_externally_to_rlds",
        dict(
            observation__state=[row(13, _7=[1, 2, 3, 0.1, 0.2, 0.3])] * 2,
            action=[row(15, _7=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1]), row(15, _7=[0, 0, 0, 0, 0, 0, -1])],
        ),
        {"base": "image", "secondary": "image_additional_view"},
        [[1, 2, 3, 0.1, 0.2, 0.3]] * 2,
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "maniskill_dataset_converted_externally_to_rlds",
        dict(
            observation__tcp_pose=[[1, 2, 3, HALF, 0, 0, HALF]] * 2,
            observation__state=[row(18, _7=[0.04])] * 2,
            action=[[1, -0.5, 0, 0, 0, 1, 1], [0, 0, 0, -1, 0, 0, -1]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, HALF, 0, 0, HALF, 0.04]] * 2,
        [[0.1, -0.05, 0, 0, 0, 0.1, 1], [0, 0, 0, -0.1, 0, 0, 0]],
    ),
    Case(
        "furniture_bench_dataset_converted_externally_to_rlds",
        dict(
            observation__state=[row(35, _0=[1, 2, 3, 0, 0, 0, 1], _34=[0.06])] * 2,
            action=[[0.1, 0, 0, 0, 0, HALF, HALF, -1], [0, 0, 0, HALF, 0, 0, HALF, 1]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, 0, 0, 0, 1, 0.06]] * 2,
        [[0.1, 0, 0, 0, 0, PI / 2, 1], [0, 0, 0, PI / 2, 0, 0, 0]],
    ),
    Case(
        "kaist_nonprehensile_converted_externally_to_rlds",
        dict(
            observation__state=[row(21, _14=[1, 2, 3, 0, 0, 0, 1])] * 2,
            action=[row(20, _0=[0.1, 0.2, 0.3, 0, 0.4, 0]), row(20, _0=[0, 0, 0, 0, 0, -0.5])],
        ),
        {"base": "image"},
        [[1, 2, 3, 0, 0, 0, 1]] * 2,
        [[0.1, 0.2, 0.3, 0, 0.4, 0, 1], [0, 0, 0, 0, 0, -0.5, 1]],
    ),
    Case(
        "stanford_mask_vit_converted_externally_to_rlds",
        dict(
            observation__end_effector_pose=[[1, 2, 3, 0.5, 0.02]] * 2,
            action=[[0.1, 0.2, 0.3, 0.4, -1], [0, 0, 0, -0.4, 1]],
        ),
        {"base": "image"},
        [[1, 2, 3, 0.5, 0.02]] * 2,
        [[0.1, 0.2, 0.3, 0, 0, 0.4, 1], [0, 0, 0, 0, 0, -0.4, 0]],
    ),
    Case(
        "nyu_rot_dataset_converted_externally_to_rlds",
        dict(
            observation__state=[[1, 2, 3, 0.1, 0.2, 0.3, 0], [1, 2, 3, 0.1, 0.2, 0.3, 1]],
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0], [0, 0, 0, 0, 0, 0, 1]],
        ),
        {"base": "image"},
        [[1, 2, 3, 0.1, 0.2, 0.3, 1], [1, 2, 3, 0.1, 0.2, 0.3, 0]],
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "utokyo_pr2_opening_fridge_converted_externally_to_rlds",
        dict(
            observation__state=[[1000, 2000, -500, 0.1, 0.2, 0.3, 80]] * 2,
            action=[[10, 0, -20, 0.4, 0.5, 0.6, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1]],
        ),
        {"base": "image"},
        [[1, 2, -0.5, 0.1, 0.2, 0.3, 80]] * 2,
        [[0.01, 0, -0.02, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "utokyo_xarm_pick_and_place_converted_externally_to_rlds",
        dict(  # yaw, pitch, roll
            observation__end_effector_pose=[[1, 2, 3, 0.3, 0.2, 0.1]] * 2,
            action=[[0.1, 0.2, 0.3, 0.6, 0.5, 0.4, 1], [0, 0, 0, 0, 0, 0, 0]],
        ),
        {"base": "image", "secondary": "image2", "wrist": "hand_image"},
        [[1, 2, 3, 0.1, 0.2, 0.3]] * 2,
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "utokyo_xarm_bimanual_converted_externally_to_rlds",
        dict(
            observation__pose_l=[[1, 2, 3, 0.3, 0.2, 0.1]] * 2,
            observation__pose_r=[[4, 5, 6, 0.6, 0.5, 0.4]] * 2,
            action=[[0.1, 0, 0, 0.3, 0.2, 0.1, 1, 0, 0.2, 0, 0.6, 0.5, 0.4, 0]] * 2,
        ),
        {"base": "image"},
        [[1, 2, 3, 0.1, 0.2, 0.3, 4, 5, 6, 0.4, 0.5, 0.6]] * 2,
        [[0.1, 0, 0, 0.1, 0.2, 0.3, 1, 0, 0.2, 0, 0.4, 0.5, 0.6, 0]] * 2,
    ),
    Case(
        "dlr_sara_pour_converted_externally_to_rlds",
        dict(  # angles about z, x, y: one at a time
            observation__state=[[1, 2, 3, 0.3, 0, 0], [1, 2, 3, 0, 0.1, 0]],
            action=[[0.1, 0, 0, 0, 0, 0.2, 1], [0, 0, 0, 0.3, 0, 0, 0]],
        ),
        {"base": "image"},
        [[1, 2, 3, 0, 0, 0.3], [1, 2, 3, 0.1, 0, 0]],
        [[0.1, 0, 0, 0, 0.2, 0, 0], [0, 0, 0, 0, 0, 0.3, 1]],
    ),
    Case(
        "dlr_edan_shared_control_converted_externally_to_rlds",
        dict(
            observation__state=[[1, 2, 3, 0, 0, 0.2, 0], [1, 2, 3, 0, 0, 0, 1]],
            action=[[0.1, 0, 0, 0, 0.1, 0, 0], [0, 0, 0, 0, 0, 0, 1]],
        ),
        {"base": "image"},
        [[1, 2, 3, 0, 0.2, 0, 1], [1, 2, 3, 0, 0, 0, 0]],
        [[0.1, 0, 0, 0.1, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "uiuc_d3field",
        dict(
            # a quarter turn about z, which carries x to y and y to -x
            observation__state=[[[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]] * 2,
            action=[[0.1, 0.2, 0.3], [0, 0, 0]],
        ),
        {"base": "image_1", "secondary": "image_2"},
        [[1, 2, 3, 0, 1, 0, -1, 0, 0]] * 2,
        [[0.1, 0.2, 0.3, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]],
    ),
    Case(
        "berkeley_fanuc_manipulation",
        dict(
            observation__state=[row(13, _0=[1, 2, 3, 4, 5, 6, 0]), row(13, _0=[1, 2, 3, 4, 5, 6, 1])],
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 0, 0, 0, 0]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 6, 0]],
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "berkeley_mvp_converted_externally_to_rlds",
        dict(
            observation__joint_pos=[[1, 2, 3, 4, 5, 6, 7]] * 2,
            observation__gripper=[False, True],
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0], [0, 0, 0, 0, 0, 0, 0, 1]],
        ),
        {"wrist": "hand_image"},
        [[1, 2, 3, 4, 5, 6, 7, 1], [1, 2, 3, 4, 5, 6, 7, 0]],
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1], [0, 0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "cmu_play_fusion",
        dict(
            observation__state=[[1, 2, 3, 4, 5, 6, 7, 0.08]] * 2,
            action=[[0.1, 0, 0, 0, HALF, 0, HALF, 1, 0], [0, 0, 0, 0, 0, 0, 1, 0, 1]],
        ),
        {"base": "image"},
        [[1, 2, 3, 4, 5, 6, 7, 0.08]] * 2,
        [[0.1, 0, 0, 0, PI / 2, 0, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "gnm_dataset",
        dict(observation__state=[[5, 6, 0.1], [5.2, 6, 0.1]], action=[[0.2, 0], [0.1, -0.1]]),
        {"base": "image"},
        [[5, 6, 0.1], [5.2, 6, 0.1]],
        [[0.2, 0], [0.1, -0.1]],
    ),
    Case(
        "roboset",
        dict(
            observation__state=[[1, 2, 3, 4, 5, 6, 7, 0.5]] * 2,
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1], [0, 0, 0, 0, 0, 0, 0, -1]],
        ),
        {"base": "image_left", "secondary": "image_right", "wrist": "image_wrist"},
        [[1, 2, 3, 4, 5, 6, 7, 0.5]] * 2,
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0], [0, 0, 0, 0, 0, 0, 0, 1]],
    ),
    Case(
        "aloha_mobile",
        dict(observation__state=[list(range(14))] * 2, action=[list(range(100, 116))] * 2),
        {"base": "cam_high", "left_wrist": "cam_left_wrist", "right_wrist": "cam_right_wrist"},
        [list(range(14))] * 2,
        [list(range(100, 116))] * 2,
    ),
    Case(
        "fmb_dataset",
        dict(
            observation__eef_pose=[[1, 2, 3, 0, 0, 0, 1]] * 2,
            observation__state_gripper_pose=[0, 1],
            action=[[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
        ),
        {"base": "image_side_1", "secondary": "image_side_2", "wrist": "image_wrist_1"},
        [[1, 2, 3, 0, 0, 0, 1, 1], [1, 2, 3, 0, 0, 0, 1, 0]],
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1], [0, 0, 0, 0, 0, 0, 0]],
    ),
    Case(
        "droid",
        dict(
            observation__cartesian_position=[[1, 2, 3, 0.1, 0.2, 0.3]] * 3,
            observation__gripper_position=[0, 0, 0.25],
            action_dict__cartesian_velocity=[[1, 0, -1, 0, 0, 0.5], [0, 0, 0, 0, 0, 0], [0, 0.1, 0, 1, 0, 0]],
            action_dict__gripper_position=[0, 1, 1],
        ),
        {"base": "exterior_image_1_left", "secondary": "exterior_image_2_left", "wrist": "wrist_image_left"},
        [[1, 2, 3, 0.1, 0.2, 0.3, 1], [1, 2, 3, 0.1, 0.2, 0.3, 1], [1, 2, 3, 0.1, 0.2, 0.3, 0.75]],
        [[0.075, 0, -0.075, 0, 0, 0.075, 1], [0, 0, 0, 0, 0, 0, 0], [0, 0.0075, 0, 0.15, 0, 0, 0]],
        [True, False, True],  # the arm rests in the second, though the gripper closes
    ),
    Case(
        "droid_joint_velocity",
        dict(
            observation__joint_position=[[1, 2, 3, 4, 5, 6, 7]] * 2,
            observation__gripper_position=[0, 1],
            action_dict__joint_velocity=[[0.1, 0, 0, 0, 0, 0, -0.7], [0, 0, 0, 0, 0, 0, 0]],
            action_dict__gripper_position=[0, 1],
        ),
        {"base": "exterior_image_1_left", "secondary": "exterior_image_2_left", "wrist": "wrist_image_left"},
        [[1, 2, 3, 4, 5, 6, 7, 1], [1, 2, 3, 4, 5, 6, 7, 0]],
        [[0.1, 0, 0, 0, 0, 0, -0.7, 1], [0, 0, 0, 0, 0, 0, 0, 0]],
        [True, False],
    ),
    Case(
        "droid_joint_position",
        dict(
            observation__joint_position=[[1, 2, 3, 4, 5, 6, 7]] * 2,
            observation__gripper_position=[0, 0.25],
            action_dict__joint_position=[[1.1, 2, 3, 4, 5, 6, 6.3], [1, 2, 3, 4, 5, 6, 7]],
            action_dict__gripper_position=[0, 1],
        ),
        {"base": "exterior_image_1_left", "secondary": "exterior_image_2_left", "wrist": "wrist_image_left"},
        [[1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7, 0.25]],
        [[1.1, 2, 3, 4, 5, 6, 6.3, 0], [1, 2, 3, 4, 5, 6, 7, 1]],
    ),
    Case(
        "libero_spatial_no_noops",
        dict(
            observation__state=[[1, 2, 3, PI, 0, 0, 0.04, -0.04]] * 2,
            action=[[0.5, -1, 0, 0.1, 0, 0.2, -1], [0, 0, 0.1, 0, 0, 0, 1]],
        ),
        {"base": "image", "wrist": "wrist_image"},
        [[1, 2, 3, PI, 0, 0, 0.04, -0.04]] * 2,
        [[0.5, -1, 0, 0.1, 0, 0.2, 1], [0, 0, 0.1, 0, 0, 0, 0]],
    ),
]


def test_at_least_twenty_data_sets_are_read():
    assert len({case.name for case in CASES}) == len(CASES) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_episode_in_the_true_layout_is_read_to_values_worked_out_by_hand(case):
    count = len(case.state)
    steps = read_episode(table.find(case.name), episode(case.name, count, "do it", **case.recorded))
    # three roundings in float32 of numbers up to 7
    np.testing.assert_allclose(steps.actions, np.array(case.actions), atol=1e-6)
    np.testing.assert_allclose(steps.state, np.array(case.state), atol=1e-6)
    assert steps.state.dtype == steps.actions.dtype == np.float32
    assert steps.instructions[0] == "do it"
    np.testing.assert_array_equal(steps.keep, [True] * count if case.keep is None else case.keep)
    assert steps.images == {
        role: [picture(f"observation/{field}", step) for step in range(count)] for role, field in case.cameras.items()
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_kukas_state_is_read_whether_or_not_it_is_still_compressed(compressed):
    poses = np.array([[1, 2, 3, 0, 0, 0, 1], [4, 5, 6, HALF, 0, 0, HALF]], np.float32)
    closed = np.array([[0.25], [1]], np.float32)
    recorded = episode("kuka", 2, "pick anything", action__gripper_closedness_action=[0, -1], **RT1)
    for path, values in (("clip_function_input/base_pose_tool_reached", poses), ("gripper_closed", closed)):
        packed = [zlib.compress(value.tobytes()) for value in values]
        recorded[f"observation/{path}"] = packed if compressed else values
    steps = read_episode(table.find("kuka"), recorded)
    np.testing.assert_allclose(steps.state, np.concatenate([poses, [[0.75], [0]]], axis=1), atol=1e-6)
    np.testing.assert_allclose(steps.actions, moves(0, 1), atol=1e-6)  # it opens, so it was closed


def test_openness_and_absence_of_a_filled_gripper_are_told_apart():
    mask = table.find("berkeley_cable_routing").action_present
    np.testing.assert_array_equal(mask, [True] * 6 + [False])
    mask = table.find("language_table").action_present
    np.testing.assert_array_equal(mask, [True, True, False, False, False, False, False])
    assert table.find("viola").action_present.all()
