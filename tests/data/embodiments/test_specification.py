import dataclasses

import numpy as np
import pytest

from pizero_jax.data.embodiments import layout, table
from pizero_jax.data.embodiments.gripper import closing
from pizero_jax.data.embodiments.layout import absent, gripper, hand, joints, position, rotation
from pizero_jax.data.embodiments.specification import Derived, Specification, check, read_episode
from pizero_jax.errors import InputError
from tests.data.embodiments.features import FEATURES
from tests.data.embodiments.synthetic import episode


@pytest.fixture
def specification() -> Specification:
    return Specification(
        names=("my_robot",),
        robot="an arm",
        hz=10,
        cameras={"base": "observation/image"},
        state=(joints("observation/state", 0, 2), rotation("observation/pose", 0, "quaternion_xyzw")),
        actions=hand("action", 0, closing),
        fields={"observation/state": (2,), "observation/pose": (4,), "action": (7,)},
    )


@pytest.fixture
def recorded() -> dict:
    return {
        "observation/image": [b"a", b"b", b"c"],
        "observation/state": np.arange(6.0).reshape(3, 2),
        "observation/pose": np.tile([0.0, 0, 0, 1], (3, 1)),
        "action": np.array([[0.1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0.2, 1]]),
        "language_instruction": [b"do it"] * 3,
    }


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "fmb_dataset",
            "observation/eef_pose",
            {"observation/eef_pos": ((7,), np.float32)},
            r"'fmb_dataset' should have 'observation/eef_pose' as numbers; did you mean 'observation/eef_pos'\? It has "
            r".*Correct its entry in pizero_jax/data/embodiments",
        ),
        (
            "bridge_dataset",
            "observation/image_0",
            {"observation/images0": ((480, 640, 3), np.uint8)},
            r"'observation/image_0' as the base camera; did you mean",
        ),
        (
            "taco_play",
            "observation/natural_language_instruction",
            {"language_instruction": ((), np.object_)},
            r"'observation/natural_language_instruction' as the instruction; did you mean",
        ),
        (
            "bridge_dataset",
            "action",
            {"action": ((8,), np.float32)},
            r"'bridge_dataset': 'action' \(numbers\) is float32 \[8\]; its entry .* expects the shape \[7\]",
        ),
        (
            "uiuc_d3field",
            "observation/state",
            {"observation/state": ((16,), np.float32)},
            r"is float32 \[16\]; .* the shape \[4, 4\]",
        ),
        ("viola", "observation/joint_states", {"observation/joint_states": ((), np.object_)}, "is text; .* numbers"),
        (
            "viola",
            "observation/agentview_rgb",
            {"observation/agentview_rgb": ((224, 224, 1), np.uint16)},
            r"the base camera\) is uint16 \[224, 224, 1\]; .* uint8 pictures \[h, w, 3\]",
        ),
        (
            "libero_10_no_noops",
            "language_instruction",
            {"language_instruction": ((), np.int64)},
            "is int64.*expects text",
        ),
    ],
)
def test_features_that_differ_from_the_entry_are_named(name, old, new, message):
    features = dict(FEATURES["libero_spatial_no_noops" if name.startswith("libero") else name])
    del features[old]
    with pytest.raises(InputError, match=message):
        check(table.find(name), features | new)


@pytest.mark.parametrize("text", [np.object_, np.dtype("O"), "string", np.str_])
def test_text_goes_by_several_types(specification, text):
    features = {path: (shape, np.float64) for path, shape in specification.fields.items()}
    features |= {"observation/image": ((48, 64, 3), "uint8"), "language_instruction": ((), text)}
    check(specification, features)


def test_an_undocumented_shape_fits_any(specification):
    fields = dict(specification.fields) | {"action": None}
    features = {path: (shape, np.float64) for path, shape in specification.fields.items()}
    features |= {"observation/image": ((48, 64, 3), np.uint8), "language_instruction": ((), np.object_)}
    check(dataclasses.replace(specification, fields=fields), features | {"action": ((9,), np.float32)})


def test_steps_are_what_the_entry_says(specification, recorded):
    steps = read_episode(specification, recorded)
    np.testing.assert_allclose(steps.state, [[0, 1, 0, 0, 0, 1], [2, 3, 0, 0, 0, 1], [4, 5, 0, 0, 0, 1]])
    np.testing.assert_allclose(steps.actions[:, 6], [1, 0, 0])
    assert steps.images == {"base": [b"a", b"b", b"c"]}
    assert steps.instructions[0] == "do it"
    assert steps.keep.all()


def test_what_a_robot_lacks_is_filled_and_absent(specification, recorded):
    actions = (position("action", delta=True), absent("rotation", 3), absent("gripper", 1, fill=1))
    lacking = dataclasses.replace(specification, actions=actions)
    np.testing.assert_allclose(read_episode(lacking, recorded).actions[0], [0.1, 0, 0, 0, 0, 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(lacking.action_present, [True] * 3 + [False] * 4)
    np.testing.assert_array_equal(layout.changes(actions), [True] * 3 + [False] * 4)


@pytest.mark.parametrize(
    ("values", "keep"),
    [
        (dict(), [True, True, True]),
        (dict(skip_first=1), [False, True, True]),
        (dict(skip_last=2), [True, False, False]),
        (dict(skip_last=5), [False, False, False]),
        (dict(idle=1e-6), [True, False, True]),  # a gripper alone is no movement
        (dict(idle=0.15), [False, False, True]),
        (dict(idle=1e-6, skip_first=1), [False, False, True]),
    ],
)
def test_steps_to_be_left_out_are_marked(specification, recorded, values, keep):
    np.testing.assert_array_equal(read_episode(dataclasses.replace(specification, **values), recorded).keep, keep)


def test_a_task_stands_for_an_instruction_that_is_not_recorded(specification, recorded):
    del recorded["language_instruction"]
    silent = dataclasses.replace(specification, instruction="", task="stack the cups")
    assert read_episode(silent, recorded).instructions[0] == "stack the cups"


def test_a_derived_field_sees_whole_episodes(specification, recorded):
    reached = Derived(
        ("observation/state", "action"), 1, lambda state, action: np.cumsum(state[:, :1] + action[:, :1], 0)
    )
    derived = dataclasses.replace(specification, derived={"sum": reached}, state=(position("sum", 0, 1),))
    np.testing.assert_allclose(read_episode(derived, recorded).state[:, 0], [0.1, 2.1, 6.1], rtol=1e-6)


def without(path: str):
    return lambda recorded: recorded.pop(path)


def put(path: str, values):
    return lambda recorded: recorded.update({path: values})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("action"), "an episode of 'my_robot' has no 'action'"),
        (without("observation/pose"), "has no 'observation/pose'; did you mean"),
        (put("observation/image", [b"a"]), "has 1 steps of 'observation/image', and 3 of others"),
        (
            put("observation/state", np.zeros((3, 3))),
            r"'observation/state' of shape \[3\] in each step; .*expects \[2\]",
        ),
        (
            put("action", np.array([[0.0] * 7, [0, 0, 0, 0, np.inf, 0, 0], [0] * 7])),
            "'action', columns 3 to 6 is not finite at step 1; leave this episode out or repair it",
        ),
    ],
)
def test_a_damaged_episode_is_refused(specification, recorded, damage, message):
    damage(recorded)
    with pytest.raises(InputError, match=message):
        read_episode(specification, recorded)


def test_numbers_that_are_no_rotation_are_refused_where_they_are_turned(specification, recorded):
    turned = (rotation("observation/pose", 0, "quaternion_xyzw", "euler_xyz"),)
    recorded["observation/pose"] = np.zeros((3, 4))
    with pytest.raises(
        InputError, match="'observation/pose', columns 0 to 4: rotations as quaternion_xyzw cannot be read"
    ):
        read_episode(dataclasses.replace(specification, state=turned), recorded)


def test_an_episode_without_steps_is_refused(specification, recorded):
    with pytest.raises(InputError, match="has 0 steps"):
        read_episode(specification, {path: values[:0] for path, values in recorded.items()})


def test_too_few_columns_of_an_undocumented_shape_are_refused(specification, recorded):
    loose = dataclasses.replace(specification, fields=dict(specification.fields) | {"action": None})
    recorded["action"] = recorded["action"][:, :5]
    with pytest.raises(InputError, match="'action', columns 3 to 6: the field has 5 columns only"):
        read_episode(loose, recorded)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(names=()), "needs a name"),
        (dict(hz=0), "hz = 0 should be positive"),
        (dict(cameras={"bases": "observation/image"}), "camera role 'bases'; did you mean 'base'"),
        (dict(cameras={"base": "a", "wrist": "a"}), "one picture two roles"),
        (dict(instruction=""), "either an instruction field or a task"),
        (dict(task="stack"), "either an instruction field or a task"),
        (dict(state=(position("action"), position("action", 3))), "two groups of its state have one name"),
        (dict(state=(position("observation/xyz"),)), "reads 'observation/xyz', which has no shape in `fields`"),
        (
            dict(actions=(gripper("action", 7),)),
            "group 'gripper' of its actions reads 'action' up to column 8; it has 7",
        ),
        (
            dict(derived={"sum": Derived(("velocity",), 1, np.sum)}),
            "'sum' is derived from 'velocity', which has no shape",
        ),
        (dict(compressed=("velocity",)), "compressed field 'velocity' has no shape"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(specification, values, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(specification, **values)


def test_an_unknown_unit_is_refused():
    with pytest.raises(InputError, match="unit of group 'position' is 'mm'; allowed: m, rad"):
        position("action", unit="mm")


def test_columns_have_names_for_tables():
    groups = (position("action", columns=2), *hand("action", 2, side="left_")[2:])
    assert layout.column_names(groups) == ["position[0]", "position[1]", "left_gripper"]


def test_pictures_are_not_copied_or_decoded():
    recorded = episode("viola", 2, "push")
    for path in ("world_vector", "rotation_delta"):
        recorded[f"action/{path}"][:] = 0
    for path in ("action/gripper_closedness_action", "observation/joint_states", "observation/gripper_states"):
        recorded[path][:] = 0
    steps = read_episode(table.find("viola"), recorded)
    assert steps.images["wrist"][1] is recorded["observation/eye_in_hand_rgb"][1]
