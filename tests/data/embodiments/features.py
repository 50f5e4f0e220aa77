"""Fields of a step as they are documented, of data sets whose documentation was read: see each entry's sources.

Written down from the pages, not from the specifications, which are tested against them.
"""

import numpy as np

Feature = tuple[tuple[int, ...], type]

_TYPES = {"": np.float32, "u8": np.uint8, "u16": np.uint16, "i32": np.int32, "i64": np.int64, "f64": np.float64}
_TYPES |= {"?": np.bool_, "s": np.object_}

_STEP = "is_first=:? is_last=:? is_terminal=:? reward="
# What the sets called "converted externally" share.
_CONVERTED = f"{_STEP} discount= language_embedding=512 language_instruction=:s"
_NATURAL = f"{_STEP} observation/natural_language_embedding=512 observation/natural_language_instruction=:s"
_RT1 = "action/world_vector=3 action/rotation_delta=3 action/terminate_episode="


def _parse(text: str) -> dict[str, Feature]:
    """`path=2x3:u8` is a field of shape (2, 3) and type uint8; float32 unless said."""
    fields = {}
    for token in text.split():
        path, _, rest = token.partition("=")
        shape, _, dtype = rest.partition(":")
        fields[path] = (tuple(map(int, shape.split("x"))) if shape else (), _TYPES[dtype])
    return fields


def _named(prefix: str, text: str) -> str:
    return " ".join(f"{prefix}/{token}" for token in text.split())


def _converted(action: int, observation: str, more: str = "") -> dict[str, Feature]:
    return _parse(f"{_CONVERTED} action={action} {_named('observation', observation)} {more}")


def _rt1(action: str, observation: str) -> dict[str, Feature]:
    return _parse(f"{_NATURAL} {_RT1} {_named('action', action)} {_named('observation', observation)}")


_BASE = "base_displacement_vector=2 base_displacement_vertical_rotation=1 gripper_closedness_action=1"
_BUDS = _converted(7, "image=128x128x3:u8 state=24 wrist_image=128x128x3:u8")
_GNM = _parse(
    "is_first=:? is_last=:? is_terminal=:? reward=:f64 discount=:f64 language_embedding=512 language_instruction=:s "
    "action=2:f64 action_angle=3:f64 observation/image=120x160x3:u8 observation/position=2:f64 "
    "observation/state=3:f64 observation/yaw=1:f64"
)
_DROID_ACTION = (
    "cartesian_position=6:f64 cartesian_velocity=6:f64 gripper_position=1:f64 gripper_velocity=1:f64 "
    "joint_position=7:f64 joint_velocity=7:f64"
)
_DROID = _parse(
    f"{_STEP} discount= action=7:f64 language_instruction=:s language_instruction_2=:s language_instruction_3=:s "
    f"{_named('action_dict', _DROID_ACTION)} observation/cartesian_position=6:f64 observation/gripper_position=1:f64 "
    "observation/joint_position=7:f64 observation/exterior_image_1_left=180x320x3:u8 "
    "observation/exterior_image_2_left=180x320x3:u8 observation/wrist_image_left=180x320x3:u8"
)
_LIBERO = _parse(
    f"{_STEP} discount= language_instruction=:s action=7 observation/image=256x256x3:u8 "
    "observation/wrist_image=256x256x3:u8 observation/state=8 observation/joint_state=7"
)
_SIRIUS = "image={0}x{0}x3:u8 state=8 state_ee=16 state_gripper=1 state_joint=7 wrist_image={0}x{0}x3:u8"
_TARGETS = " ".join(
    f"observation/target_object_or_part_{when}_pose=7 observation/target_object_or_part_{when}_pose_valid=7:u8"
    for when in ("initial", "final")
)
_CAMERA_MATRICES = " ".join(
    f"{camera}_cam2world_gl=4x4 {camera}_extrinsic_cv=4x4 {camera}_intrinsic_cv=3x3"
    for camera in ("main_camera", "wrist_camera")
)
_FMB_IMAGES = " ".join(
    f"image_{view}=256x256x3:u8 image_{view}_depth=256x256" for view in ("side_1", "side_2", "wrist_1", "wrist_2")
)

FEATURES: dict[str, dict[str, Feature]] = {
    "fractal20220817_data": _rt1(
        _BASE,
        "base_pose_tool_reached=7 gripper_closed=1 gripper_closedness_commanded=1 height_to_bottom=1 "
        "image=256x320x3:u8 orientation_box=2x3 orientation_start=4 robot_orientation_positions_box=3x3 "
        "rotation_delta_to_go=3 src_rotation=4 vector_to_go=3 workspace_bounds=3x3",
    ),
    "kuka": _rt1(
        _BASE,
        "clip_function_input/base_pose_tool_reached=7 clip_function_input/workspace_bounds=3x3 gripper_closed=1 "
        "height_to_bottom=1 image=512x640x3:u8 task_id=1",
    ),
    "bridge": _rt1("open_gripper=:?", "image=480x640x3:u8 state=7"),
    "bridge_dataset": _parse(
        "is_first=:? is_last=:? language_instruction=:s action=7 observation/state=7 observation/depth_0=480x640x1:u16 "
        + " ".join(f"observation/image_{i}=480x640x3:u8" for i in range(4))
    ),
    "taco_play": _parse(
        f"{_NATURAL} action/actions=7 action/rel_actions_gripper=7 action/rel_actions_world=7 "
        "action/terminate_episode= "
        "observation/depth_gripper=84x84 observation/depth_static=150x200 observation/rgb_gripper=84x84x3:u8 "
        "observation/rgb_static=150x200x3:u8 observation/robot_obs=15 observation/structured_language_instruction=:s"
    ),
    "jaco_play": _parse(
        f"{_NATURAL} action/gripper_closedness_action=1 action/terminate_episode=3:i32 action/world_vector=3 "
        "observation/end_effector_cartesian_pos=7 observation/end_effector_cartesian_velocity=6 "
        "observation/image=224x224x3:u8 observation/image_wrist=224x224x3:u8 observation/joint_pos=8"
    ),
    "berkeley_cable_routing": _rt1(
        "",
        "robot_state=7 " + " ".join(f"{view}image=128x128x3:u8" for view in ("", "top_", "wrist45_", "wrist225_")),
    ),
    "roboturk": _rt1("gripper_closedness_action=1", "front_rgb=480x640x3:u8"),
    "nyu_door_opening_surprising_effectiveness": _rt1("gripper_closedness_action=1", "image=720x960x3:u8"),
    "viola": _rt1(
        "gripper_closedness_action=",
        "agentview_rgb=224x224x3:u8 ee_states=16 eye_in_hand_rgb=224x224x3:u8 gripper_states=1 joint_states=7",
    ),
    "berkeley_autolab_ur5": _rt1(
        "gripper_closedness_action=",
        "hand_image=480x640x3:u8 image=480x640x3:u8 image_with_depth=480x640x1 robot_state=15",
    ),
    "toto": _rt1("open_gripper=:?", "image=480x640x3:u8 state=7"),
    "language_table": _parse(
        f"{_STEP} action=2 observation/effector_target_translation=2 observation/effector_translation=2 "
        "observation/instruction=512:i32 observation/rgb=360x640x3:u8"
    ),
    "columbia_cairlab_pusht_real": _rt1(
        "gripper_closedness_action=", "image=240x320x3:u8 robot_state=2 wrist_image=240x320x3:u8"
    ),
    "stanford_kuka_multimodal_dataset_converted_externally_to_rlds": _converted(
        4,
        "contact=50 depth_image=128x128x1 ee_forces_continuous=50x6 ee_orientation=4 ee_orientation_vel=3 "
        "ee_position=3 ee_vel=3 ee_yaw=4 ee_yaw_delta=4 image=128x128x3:u8 joint_pos=7 joint_vel=7 "
        "optical_flow=128x128x2 state=8",
    ),
    "nyu_rot_dataset_converted_externally_to_rlds": _converted(7, "image=84x84x3:u8 state=7"),
    "stanford_hydra_dataset_converted_externally_to_rlds": _converted(
        7, "image=240x320x3:u8 state=27 wrist_image=240x320x3:u8", "is_dense=:?"
    ),
    "austin_buds_dataset_converted_externally_to_rlds": _BUDS,
    "nyu_franka_play_dataset_converted_externally_to_rlds": _converted(
        15,
        "depth=128x128x1:i32 depth_additional_view=128x128x1:i32 image=128x128x3:u8 "
        "image_additional_view=128x128x3:u8 state=13",
    ),
    "maniskill_dataset_converted_externally_to_rlds": _converted(
        7,
        "base_pose=7 depth=256x256x1:u16 image=256x256x3:u8 state=18 tcp_pose=7 wrist_depth=256x256x1:u16 "
        f"wrist_image=256x256x3:u8 {_CAMERA_MATRICES}",
        _TARGETS,
    ),
    "furniture_bench_dataset_converted_externally_to_rlds": _converted(
        8, "image=224x224x3:u8 state=35 wrist_image=224x224x3:u8", "skill_completion="
    ),
    "cmu_franka_exploration_dataset_converted_externally_to_rlds": _converted(
        8, "highres_image=480x640x3:u8 image=64x64x3:u8", "structured_action=8"
    ),
    "ucsd_kitchen_dataset_converted_externally_to_rlds": _converted(8, "image=480x640x3:u8 state=21"),
    "ucsd_pick_and_place_dataset_converted_externally_to_rlds": _converted(4, "image=224x224x3:u8 state=7"),
    "austin_sailor_dataset_converted_externally_to_rlds": _converted(7, _SIRIUS.format(128)),
    "austin_sirius_dataset_converted_externally_to_rlds": _converted(
        7, _SIRIUS.format(84), "action_mode=1 intv_label=1"
    ),
    "bc_z": _parse(
        f"{_NATURAL} action/future/axis_angle_residual=30 action/future/target_close=10:i64 "
        "action/future/xyz_residual=30 observation/episode_success= observation/image=171x213x3:u8 "
        "observation/present/autonomous=:i64 observation/present/axis_angle=3 observation/present/intervention=:i64 "
        "observation/present/sensed_close=1 observation/present/xyz=3 observation/sequence_length=:i64"
    ),
    "utokyo_pr2_opening_fridge_converted_externally_to_rlds": _converted(8, "image=128x128x3:u8 state=7"),
    "utokyo_pr2_tabletop_manipulation_converted_externally_to_rlds": _converted(8, "image=128x128x3:u8 state=7"),
    "utokyo_xarm_pick_and_place_converted_externally_to_rlds": _converted(
        7,
        "end_effector_pose=6 hand_image=224x224x3:u8 image=224x224x3:u8 image2=224x224x3:u8 joint_state=14 "
        "joint_trajectory=21",
    ),
    "utokyo_xarm_bimanual_converted_externally_to_rlds": _converted(
        14, "action_l=7 action_r=7 image=256x256x3:u8 pose_l=6 pose_r=6"
    ),
    "berkeley_mvp_converted_externally_to_rlds": _converted(8, "gripper=:? hand_image=480x640x3:u8 joint_pos=7 pose=7"),
    "berkeley_rpt_converted_externally_to_rlds": _converted(8, "gripper=:? hand_image=480x640x3:u8 joint_pos=7"),
    "kaist_nonprehensile_converted_externally_to_rlds": _converted(
        20, "image=480x640x3:u8 partial_pointcloud=512x3 state=21"
    ),
    "stanford_mask_vit_converted_externally_to_rlds": _converted(
        5, "end_effector_pose=5 finger_sensors=1 high_bound=5 image=480x480x3:u8 low_bound=5 state=15"
    ),
    "tokyo_u_lsmo_converted_externally_to_rlds": _converted(7, "image=120x120x3:u8 state=13"),
    "dlr_sara_pour_converted_externally_to_rlds": _converted(7, "image=480x640x3:u8 state=6"),
    "dlr_sara_grid_clamp_converted_externally_to_rlds": _converted(7, "image=480x640x3:u8 state=12"),
    "dlr_edan_shared_control_converted_externally_to_rlds": _converted(7, "image=360x640x3:u8 state=7"),
    "asu_table_top_converted_externally_to_rlds": _converted(
        7,
        "image=224x224x3:u8 state=7 state_vel=7",
        "action_delta=7 action_inst=:s goal_object=:s "
        + " ".join(f"ground_truth_states/{x}=6" for x in ("EE", "bottle", "bread", "coke", "cube", "milk", "pepsi")),
    ),
    "stanford_robocook_converted_externally_to_rlds": _converted(
        7, "state=7 " + " ".join(f"depth_{i}=256x256 image_{i}=256x256x3:u8" for i in range(1, 5))
    ),
    "imperialcollege_sawyer_wrist_cam": _converted(8, "image=64x64x3:u8 state=1 wrist_image=64x64x3:u8"),
    "iamlab_cmu_pickup_insert_converted_externally_to_rlds": _converted(
        8, "image=360x640x3:u8 state=20 wrist_image=240x320x3:u8"
    ),
    "uiuc_d3field": _converted(
        3, "state=4x4 " + " ".join(f"depth_{i}=360x640x1:u16 image_{i}=360x640x3:u8" for i in range(1, 5))
    ),
    "utaustin_mutex": _BUDS,
    "berkeley_fanuc_manipulation": _converted(
        6, "end_effector_state=7 image=224x224x3:u8 state=13 wrist_image=224x224x3:u8"
    ),
    "cmu_playing_with_food": _converted(
        8, "image=480x640x3:u8 finger_vision_1=480x640x3:u8 finger_vision_2=480x640x3:u8 state=6"
    ),
    "cmu_play_fusion": _converted(9, "image=128x128x3:u8 state=8"),
    "cmu_stretch": _converted(8, "image=128x128x3:u8 state=4"),
    "gnm_dataset": _GNM | _parse("observation/image=64x64x3:u8"),
    "berkeley_gnm_recon": _GNM,
    "fmb_dataset": _converted(
        7,
        f"color_id=:u8 eef_force=3 eef_pose=7 eef_torque=3 eef_vel=6 {_FMB_IMAGES} joint_pos=7 joint_vel=7 length=:s "
        "object_id=:u8 primitive=:s shape_id=:u8 size=:s state_gripper_pose=",
    ),
    "dobbe": _converted(7, "gripper=1 quat=4 rot=3 state=7 wrist_image=256x256x3:u8 xyz=3"),
    "roboset": _parse(
        f"{_STEP} discount= language_instruction=:s action=8 observation/state=8 observation/state_velocity=8 "
        + " ".join(f"observation/image_{view}=240x424x3:u8" for view in ("left", "right", "top", "wrist"))
    ),
    "aloha_mobile": _parse(
        f"{_STEP} discount= language_instruction=:s action=16 observation/state=14 "
        + " ".join(f"observation/cam_{view}=480x640x3:u8" for view in ("high", "left_wrist", "right_wrist"))
    ),
    "droid": _DROID,
    "droid_joint_velocity": _DROID,
    "droid_joint_position": _DROID,
    "libero_spatial_no_noops": _LIBERO,
}

# Field lists that nobody has published: their entries follow what others read, and say so.
UNDOCUMENTED = (
    "aloha_static_dataset",
    "aloha1_fold_shorts_20_demos",
    "robo_net",
    "rh20t",
    "mujoco_manip",
    "berkeley_gnm_cory_hall",  # as berkeley_gnm_recon, whose page was read
    "berkeley_gnm_sac_son",
)
