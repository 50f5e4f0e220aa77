import numpy as np
import pytest

from pizero_jax.data.embodiments import layout, mixtures, table
from pizero_jax.data.embodiments.specification import ROLES, check
from pizero_jax.errors import InputError
from tests.data.embodiments.features import FEATURES, UNDOCUMENTED

# The configurations of github.com/octo-models/octo at 241fb35, octo/data/oxe/oxe_dataset_configs.py.
OCTO = (
    "fractal20220817_data",
    "kuka",
    "bridge_dataset",
    "taco_play",
    "jaco_play",
    "berkeley_cable_routing",
    "roboturk",
    "nyu_door_opening_surprising_effectiveness",
    "viola",
    "berkeley_autolab_ur5",
    "toto",
    "language_table",
    "columbia_cairlab_pusht_real",
    "stanford_kuka_multimodal_dataset_converted_externally_to_rlds",
    "nyu_rot_dataset_converted_externally_to_rlds",
    "stanford_hydra_dataset_converted_externally_to_rlds",
    "austin_buds_dataset_converted_externally_to_rlds",
    "nyu_franka_play_dataset_converted_externally_to_rlds",
    "maniskill_dataset_converted_externally_to_rlds",
    "furniture_bench_dataset_converted_externally_to_rlds",
    "cmu_franka_exploration_dataset_converted_externally_to_rlds",
    "ucsd_kitchen_dataset_converted_externally_to_rlds",
    "ucsd_pick_and_place_dataset_converted_externally_to_rlds",
    "austin_sailor_dataset_converted_externally_to_rlds",
    "austin_sirius_dataset_converted_externally_to_rlds",
    "bc_z",
    "utokyo_pr2_opening_fridge_converted_externally_to_rlds",
    "utokyo_pr2_tabletop_manipulation_converted_externally_to_rlds",
    "utokyo_xarm_pick_and_place_converted_externally_to_rlds",
    "utokyo_xarm_bimanual_converted_externally_to_rlds",
    "robo_net",
    "berkeley_mvp_converted_externally_to_rlds",
    "berkeley_rpt_converted_externally_to_rlds",
    "kaist_nonprehensile_converted_externally_to_rlds",
    "stanford_mask_vit_converted_externally_to_rlds",
    "tokyo_u_lsmo_converted_externally_to_rlds",
    "dlr_sara_pour_converted_externally_to_rlds",
    "dlr_sara_grid_clamp_converted_externally_to_rlds",
    "dlr_edan_shared_control_converted_externally_to_rlds",
    "asu_table_top_converted_externally_to_rlds",
    "stanford_robocook_converted_externally_to_rlds",
    "imperialcollege_sawyer_wrist_cam",
    "iamlab_cmu_pickup_insert_converted_externally_to_rlds",
    "uiuc_d3field",
    "utaustin_mutex",
    "berkeley_fanuc_manipulation",
    "cmu_playing_with_food",
    "cmu_play_fusion",
    "cmu_stretch",
    "gnm_dataset",
    "aloha_static_dataset",
    "aloha_dagger_dataset",
    "aloha_mobile_dataset",
    "fmb_dataset",
    "dobbe",
    "roboset",
    "rh20t",
    "mujoco_manip",
)

every_entry = pytest.mark.parametrize("entry", table.ENTRIES, ids=lambda entry: entry.names[0])


def test_all_of_octos_data_sets_have_an_entry():
    assert len(OCTO) == len(set(OCTO)) == 58
    assert set(OCTO) <= set(table.SPECIFICATIONS)


def test_no_two_entries_share_a_name():
    assert sum(len(entry.names) for entry in table.ENTRIES) == len(table.SPECIFICATIONS)


@every_entry
def test_arms_commanded_by_the_hand_have_seven_columns_for_each(entry):
    names = [group.name for group in entry.actions]
    if not any(name.endswith("position") for name in names):
        return
    arms = sum(name.endswith("gripper") for name in names)
    assert layout.width(entry.actions) == 7 * arms
    widths = np.cumsum([0, *(group.width for group in entry.actions)])
    starts = {name: int(start) for name, start in zip(names, widths, strict=False)}
    for arm, side in enumerate(("left_", "right_") if arms == 2 else ("",)):
        assert starts[f"{side}position"] == 7 * arm
        assert starts[f"{side}gripper"] == 7 * arm + 6


@every_entry
def test_widths_agree_with_what_is_said_of_columns(entry):
    for groups in (entry.state, entry.actions):
        assert len(layout.column_names(groups)) == len(layout.present(groups)) == layout.width(groups)
    assert entry.action_present.any()
    assert set(entry.cameras) <= set(ROLES)
    assert entry.cameras


@every_entry
def test_movement_is_a_change_and_grippers_are_not(entry):
    """Joints may be either."""
    for group in entry.actions:
        if "gripper" in group.name:
            assert not group.delta
        elif "joints" not in group.name and not group.absent:
            assert group.delta, group


@every_entry
def test_every_entry_has_sources(entry):
    assert {"cameras", "conventions"} <= set(entry.sources) or entry.names[0] == "bridge"
    assert entry.hz is None or "hz" in entry.sources
    assert all(address.startswith("https://") for address in entry.sources.values())


@every_entry
def test_an_entry_without_a_documented_frequency_or_field_list_says_so(entry):
    if entry.hz is None or entry.names[0] in UNDOCUMENTED[:5]:
        assert entry.unverified


def test_features_are_written_down_for_every_data_set_that_documents_them():
    known = {name for entry in table.ENTRIES for name in entry.names if set(entry.names) & set(FEATURES)}
    assert {entry.names[0] for entry in table.ENTRIES} - known == set(UNDOCUMENTED)


@pytest.mark.parametrize("name", FEATURES)
def test_every_entry_fits_the_documented_features(name):
    check(table.find(name), FEATURES[name])


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="no data set is called 'bridge_datset'; did you mean 'bridge_dataset'"):
        table.find("bridge_datset")


@pytest.mark.parametrize("name", mixtures.MIXTURES)
def test_mixtures_name_known_data_sets_once_with_positive_weights(name):
    entries = [table.find(data_set) for data_set, _ in mixtures.MIXTURES[name]]
    if not name.startswith("libero"):  # its suites share an entry
        assert len({entry.names[0] for entry in entries}) == len(entries)
    assert all(weight > 0 for _, weight in mixtures.MIXTURES[name])
    assert mixtures.SOURCES[name].startswith("https://")


def test_mixtures_have_the_sizes_of_their_sources():
    sizes = {name: len(mixture) for name, mixture in mixtures.MIXTURES.items()}
    assert sizes == {
        "bridge": 1,
        "rtx": 11,
        "rtx_franka": 25,
        "oxe_magic_soup": 25,
        "oxe_flex_act_soup": 32,
        "oxe_magic_soup_plus": 27,
        "oxe_magic_soup_plus_minus": 25,
        "libero_4_task_suites_no_noops": 4,
    }


@pytest.mark.parametrize(
    ("mixture", "data_set", "weight"),
    [
        ("rtx", "berkeley_cable_routing", 3.0),
        ("rtx_franka", "berkeley_cable_routing", 3.0),  # once more with 1.0 in its second part
        ("rtx_franka", "cmu_franka_exploration_dataset_converted_externally_to_rlds", 5.0),
        ("oxe_magic_soup", "fractal20220817_data", 0.54087122203),
        ("oxe_flex_act_soup", "aloha_static_dataset", 3.0),
        ("oxe_magic_soup_plus", "droid", 0.06),
        ("oxe_magic_soup_plus", "dobbe", 0.2),
        ("oxe_magic_soup_plus_minus", "fractal20220817_data", 1.0),
    ],
)
def test_weights_are_those_of_their_sources(mixture, data_set, weight):
    assert dict(mixtures.MIXTURES[mixture])[data_set] == weight
