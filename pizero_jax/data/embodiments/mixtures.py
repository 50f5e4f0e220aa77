"""Named mixtures of data sets, with the weights that others trained on.

octo and OpenVLA multiply a weight by the number of frames of its data set (`balance_weights`), so that equal weights
mean that every frame is seen equally often. Where a mixture is joined from two, a data set of both keeps its first
weight, as it does with them.
"""

from collections.abc import Mapping

from pizero_jax.data.embodiments.sources import OCTO_MIXTURES, OFT_CONFIGS, OPENVLA_MIXTURES

Mixture = tuple[tuple[str, float], ...]

_RTX: Mixture = (
    ("fractal20220817_data", 0.54087122203),
    ("kuka", 0.8341046294),
    ("bridge_dataset", 1.0),
    ("taco_play", 2.0),
    ("jaco_play", 2.0),
    ("berkeley_cable_routing", 3.0),
    ("roboturk", 1.0),
    ("nyu_door_opening_surprising_effectiveness", 5.0),
    ("viola", 2.0),
    ("berkeley_autolab_ur5", 1.0),
    ("toto", 1.0),
)

_FRANKA: Mixture = (
    ("taco_play", 1.0),
    ("berkeley_cable_routing", 1.0),
    ("viola", 1.0),
    ("toto", 1.0),
    ("stanford_hydra_dataset_converted_externally_to_rlds", 1.0),
    ("austin_buds_dataset_converted_externally_to_rlds", 3.0),
    ("nyu_franka_play_dataset_converted_externally_to_rlds", 3.0),
    ("maniskill_dataset_converted_externally_to_rlds", 0.1),
    ("furniture_bench_dataset_converted_externally_to_rlds", 0.1),
    ("cmu_franka_exploration_dataset_converted_externally_to_rlds", 5.0),
    ("austin_sailor_dataset_converted_externally_to_rlds", 1.0),
    ("austin_sirius_dataset_converted_externally_to_rlds", 1.0),
    ("berkeley_rpt_converted_externally_to_rlds", 1.0),
    ("kaist_nonprehensile_converted_externally_to_rlds", 3.0),
    ("stanford_robocook_converted_externally_to_rlds", 1.0),
    ("iamlab_cmu_pickup_insert_converted_externally_to_rlds", 1.0),
    ("utaustin_mutex", 1.0),
    ("cmu_play_fusion", 1.0),
)

_MAGIC_SOUP: Mixture = (
    ("fractal20220817_data", 0.54087122203),
    ("kuka", 0.8341046294),
    ("bridge_dataset", 1.0),
    ("taco_play", 2.0),
    ("jaco_play", 1.0),
    ("berkeley_cable_routing", 1.0),
    ("roboturk", 2.0),
    ("nyu_door_opening_surprising_effectiveness", 1.0),
    ("viola", 2.0),
    ("berkeley_autolab_ur5", 2.0),
    ("toto", 1.0),
    ("language_table", 0.1),
    ("stanford_hydra_dataset_converted_externally_to_rlds", 2.0),
    ("austin_buds_dataset_converted_externally_to_rlds", 1.0),
    ("nyu_franka_play_dataset_converted_externally_to_rlds", 3.0),
    ("furniture_bench_dataset_converted_externally_to_rlds", 0.1),
    ("ucsd_kitchen_dataset_converted_externally_to_rlds", 2.0),
    ("austin_sailor_dataset_converted_externally_to_rlds", 1.0),
    ("austin_sirius_dataset_converted_externally_to_rlds", 1.0),
    ("bc_z", 0.2),
    ("dlr_edan_shared_control_converted_externally_to_rlds", 1.0),
    ("iamlab_cmu_pickup_insert_converted_externally_to_rlds", 1.0),
    ("utaustin_mutex", 1.0),
    ("berkeley_fanuc_manipulation", 2.0),
    ("cmu_stretch", 1.0),
)

_FLEX_ACT_SOUP: Mixture = (
    *_MAGIC_SOUP,
    ("berkeley_mvp_converted_externally_to_rlds", 1.0),
    ("gnm_dataset", 1.0),
    ("aloha_static_dataset", 3.0),
    ("aloha_mobile_dataset", 2.0),
    ("dobbe", 1.0),
    ("roboset", 0.5),
    ("rh20t", 0.5),
)

_MAGIC_SOUP_PLUS: Mixture = (  # without the set that has a wrist camera only
    *(entry for entry in _MAGIC_SOUP if entry[0] != "nyu_door_opening_surprising_effectiveness"),
    ("fmb_dataset", 1.0),
    ("dobbe", 0.2),
    ("droid", 0.06),
)

_PLUS_MINUS: Mixture = (
    ("fractal20220817_data", 1.0),
    *(entry for entry in _MAGIC_SOUP_PLUS if entry[0] not in ("fractal20220817_data", "language_table", "droid")),
)

_IN_BOTH = {name for name, _ in _RTX}

MIXTURES: Mapping[str, Mixture] = {
    "bridge": (("bridge_dataset", 1.0),),
    "rtx": _RTX,
    "rtx_franka": (*_RTX, *(entry for entry in _FRANKA if entry[0] not in _IN_BOTH)),
    "oxe_magic_soup": _MAGIC_SOUP,
    "oxe_flex_act_soup": _FLEX_ACT_SOUP,
    "oxe_magic_soup_plus": _MAGIC_SOUP_PLUS,
    "oxe_magic_soup_plus_minus": _PLUS_MINUS,
    "libero_4_task_suites_no_noops": (
        ("libero_spatial_no_noops", 1.0),
        ("libero_object_no_noops", 1.0),
        ("libero_goal_no_noops", 1.0),
        ("libero_10_no_noops", 1.0),
    ),
}

SOURCES: Mapping[str, str] = {
    "bridge": OCTO_MIXTURES,
    "rtx": OCTO_MIXTURES,
    "rtx_franka": OCTO_MIXTURES,
    "oxe_magic_soup": OCTO_MIXTURES,  # OpenVLA's of this name lacks nyu_door_opening_surprising_effectiveness and bc_z
    "oxe_flex_act_soup": OCTO_MIXTURES,
    "oxe_magic_soup_plus": OPENVLA_MIXTURES,
    "oxe_magic_soup_plus_minus": OPENVLA_MIXTURES,
    "libero_4_task_suites_no_noops": OFT_CONFIGS.replace("configs.py", "mixtures.py"),
}
