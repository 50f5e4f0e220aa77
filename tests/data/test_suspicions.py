"""Each suspicion on arrays that have the fault, and on such as have it not."""

import numpy as np
import pytest

from pizero_jax.data import suspicions

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c"]
NOISE = RNG.normal(size=(400, 3))
WALK = np.cumsum(0.1 * NOISE, axis=0)  # positions of three joints, and `STEPS`, what they do next
STATE, FOLLOWING = WALK[:-1], WALK[1:]
STEPS = FOLLOWING - STATE
NO, ALL = np.zeros(3, bool), np.ones(3, bool)
GREY = np.full((4, 6, 3), 128, np.uint8)
PICTURES = list(RNG.integers(0, 256, (8, 4, 6, 3), dtype=np.uint8))


def seen(found):
    """What the one suspicion saw; it also says what to change."""
    (only,) = found
    assert len(only.change) > 20
    return only.seen


def test_a_dimension_that_never_moves_is_constant():
    assert seen(suspicions.constant(np.array([1, 0, 1e-9]), NAMES)) == "constant in all frames: b, c"
    assert suspicions.constant(np.array([1, 1e-3, 0.5]), NAMES) == []


def test_a_value_far_outside_the_quantiles_is_outlying():
    quantiles = np.full(3, -0.5), np.full(3, 0.5)
    found = suspicions.outlying(np.array([[-3, -1, -40], [3, 1, 2.0]]), *quantiles, NAMES)
    assert seen(found).startswith("c reaches 40 when normalised, though 98% of its values are from -0.5 to 0.5")
    assert suspicions.outlying(np.array([[-3, -1, -19], [3, 1, 2.0]]), *quantiles, NAMES) == []


def test_commands_that_are_cut_are_at_a_bound():
    cut = NOISE.copy()
    cut[:, 1] = np.clip(3 * cut[:, 1], -1, 1)
    assert seen(suspicions.saturated(cut, NAMES)).startswith("at a bound in many frames: b (3")
    assert suspicions.saturated(NOISE, NAMES) == []


def test_a_switch_is_not_cut_and_a_constant_neither():
    values = NOISE.copy()
    values[:, 0], values[:, 1] = np.sign(values[:, 0]), 0.25
    assert suspicions.saturated(values, NAMES) == []


def test_an_angle_that_wraps_around_jumps():
    angle = np.linspace(0, 12, 401)
    walk = np.stack([angle, (angle + np.pi) % (2 * np.pi) - np.pi, np.sign(np.sin(angle))], axis=1)
    found = seen(suspicions.jumping(walk[:-1], walk[1:], NAMES))
    assert found.startswith("b jumps by up to 6.25")
    assert found.endswith("2 times")
    assert suspicions.jumping(STATE, FOLLOWING, NAMES) == []
    assert suspicions.jumping(STATE[:0], FOLLOWING[:0], NAMES) == []


def test_frames_in_which_nothing_happens_are_idle():
    moved = np.arange(100) >= 20
    assert seen(suspicions.idle(moved)).startswith("in 20% of the frames")
    assert suspicions.idle(moved[15:]) == []
    assert suspicions.idle(np.zeros(0, bool)) == []


def test_what_actions_mean_follows_from_the_state():
    targets, changes = FOLLOWING + 0.01 * NOISE[1:], 3 * STEPS + 0.01
    assert suspicions.meanings(targets, STATE, FOLLOWING) == ["target"] * 3
    assert suspicions.meanings(changes, STATE, FOLLOWING) == ["change"] * 3
    assert suspicions.meanings(STATE, STATE, FOLLOWING) == ["copy"] * 3
    assert suspicions.meanings(NOISE[1:][::-1], STATE, FOLLOWING) == [""] * 3


def test_actions_without_a_counterpart_or_movement_mean_nothing():
    state, following = STATE.copy(), FOLLOWING.copy()
    state[:, 0] = following[:, 0] = np.nan
    state[:, 1] = following[:, 1] = 0.5
    assert suspicions.meanings(following, state, following) == ["", "", "target"]
    assert suspicions.meanings(following[:5], state[:5], following[:5]) == ["", "", ""]


def test_an_action_that_copies_the_state_says_nothing_new():
    assert seen(suspicions.copied(["copy", "", "copy"], NAMES)).endswith("a, c")
    assert suspicions.copied(["target", "change", ""], NAMES) == []


def test_absolute_targets_suggest_delta_but_for_grippers_and_what_is_relative():
    (found,) = suspicions.absolute_targets(["target"] * 3, NO, [2], NAMES)
    assert found.seen.endswith("targets: a, b")
    assert "config.data.delta = (2,)" in found.change
    (found,) = suspicions.absolute_targets(["target"] * 3, np.array([True, False, False]), [1], NAMES)
    assert "config.data.delta = (1, -1, 1)" in found.change
    assert suspicions.absolute_targets(["target"] * 3, ALL, [], NAMES) == []
    assert suspicions.absolute_targets(["", "", "target"], NO, [2], NAMES) == []
    assert suspicions.absolute_targets(["change", "copy", ""], NO, [], NAMES) == []


@pytest.mark.parametrize(
    ("which", "expected"),
    [([1, 1, 0], (2,)), ([0, 1, 1], (-1, 2)), ([1, 0, 1], (1, -1, 1)), ([0, 0, 0], ()), ([1, 1, 1], (3,))],
)
def test_runs_are_as_delta_has_them(which, expected):
    assert suspicions.runs(np.array(which, bool)) == expected


def test_targets_should_not_be_called_changes():
    found = suspicions.targets_called_changes(
        ["target", "change", "target"], np.array([1, 1, 0], bool), "its entry", NAMES
    )
    assert seen(found).endswith("though its entry calls them changes: a")
    assert suspicions.targets_called_changes(["change", "", "target"], np.array([1, 1, 0], bool), "it", NAMES) == []


def test_delta_should_not_take_the_state_from_changes():
    assert seen(suspicions.changes_made_relative(["change", "change", ""], np.array([0, 1, 1], bool), NAMES)).endswith(
        ": b"
    )
    assert suspicions.changes_made_relative(["target", "", "change"], np.array([1, 1, 0], bool), NAMES) == []


def test_changes_add_up_only_where_they_are_named():
    found = suspicions.changes_not_added(["change", "change", "target"], np.array([1, 0, 0], bool), "config", NAMES)
    assert seen(found).endswith(": b")
    assert suspicions.changes_not_added(["change"] * 3, ALL, "config", NAMES) == []


def test_degrees_beside_radians_gain_nothing_from_delta():
    degrees = np.rad2deg(STATE)
    relative = np.array([True, True, False])
    assert seen(suspicions.relative_without_gain(FOLLOWING, degrees, [""] * 3, relative, NAMES)).endswith(": a, b")
    assert suspicions.relative_without_gain(FOLLOWING, STATE, [""] * 3, ALL, NAMES) == []
    assert suspicions.relative_without_gain(FOLLOWING, degrees, ["change"] * 3, ALL, NAMES) == []


def test_a_gripper_that_begins_closed_may_be_flipped():
    assert seen(suspicions.closed_at_start(np.array([0, 0, 0.1, 1.0]), "g")).startswith(
        "g, where 1 is open, begins 75%"
    )
    assert suspicions.closed_at_start(np.array([1, 1, 0.9, 0.0]), "g") == []
    assert suspicions.closed_at_start(np.zeros(2), "g") == []


def test_a_gripper_against_its_own_measurement_may_be_flipped():
    opening = (np.sin(np.arange(200) / 10) > 0).astype(np.float32)
    measured = np.convolve(opening, np.ones(5) / 5)[:200].astype(np.float32)
    assert seen(suspicions.gripper_against_state(1 - opening, measured, "g", "s")).startswith("g falls where s rises")
    assert suspicions.gripper_against_state(opening, measured, "g", "s") == []
    assert suspicions.gripper_against_state(opening, np.ones(200, np.float32), "g", "s") == []


def test_black_pictures_are_seen_and_dark_ones_are_not():
    night = np.full((4, 6, 3), 12, np.uint8)
    night[0, 0] = 40
    assert (
        seen(suspicions.black([PICTURES[0], np.full_like(night, 3)], "base"))
        == "camera base: 1 of 2 pictures are black"
    )
    assert suspicions.black([PICTURES[0], night], "base") == []


def test_a_picture_that_stays_through_episodes_is_frozen():
    still, moving = [GREY] * 3, PICTURES[:3]
    assert seen(suspicions.frozen([still, still, moving], "base")).startswith("camera base: 2 of 3 episodes")
    assert suspicions.frozen([still, moving], "base") == []
    assert suspicions.frozen([[GREY], [GREY]], "base") == []  # episodes of one frame


def test_cameras_that_show_the_same_are_alike():
    assert seen(suspicions.alike(PICTURES, list(PICTURES), ("a", "b"))) == "cameras a and b show the same pictures"
    assert suspicions.alike(PICTURES, PICTURES[::-1], ("a", "b")) == []
    assert suspicions.alike([], [], ("a", "b")) == []


def test_sizes_that_differ_or_are_far_too_large_are_named():
    assert "a 48 x 64, b 64 x 64" in seen(suspicions.sizes({"a": (48, 64), "b": (64, 64)}, 64))
    assert "far larger than the policy's 32 x 32" in seen(suspicions.sizes({"a": (480, 640)}, 32))
    assert suspicions.sizes({"a": (48, 64), "b": (48, 64)}, 64) == []


def test_episodes_that_are_there_twice_or_in_both_splits_are_counted():
    assert seen(suspicions.repeated([b"a", b"b", b"a"], [b"c"])).startswith("1 of 3 episodes repeat")
    assert seen(suspicions.repeated([b"a", b"b"], [b"b", b"c"])).startswith(
        "1 of 2 held-out episodes are in the training"
    )
    assert suspicions.repeated([b"a", b"b"], [b"c"]) == []


def test_damaged_and_unlabelled_episodes_are_counted():
    assert seen(suspicions.left_out(["file: record 3", "other"])).startswith("2 damaged episodes")
    assert suspicions.left_out([]) == []
    assert "1 of 4 episodes have no instruction and are trained on" in seen(suspicions.unlabelled(1, 4, kept=True))
    assert "left out" in seen(suspicions.unlabelled(1, 4, kept=False))
    assert suspicions.unlabelled(0, 4, kept=True) == []


def test_chunks_that_are_longer_than_most_episodes():
    assert seen(suspicions.short(np.array([3, 5, 20]), 10)).startswith(
        "67% of the episodes are shorter than a chunk of 10"
    )
    assert suspicions.short(np.array([3, 50, 20]), 10) == []


def test_prompts_that_do_not_fit_are_cut():
    found = seen(suspicions.cut({"short": 7, "longer": 30, "longest": 40}, 24))
    assert found.startswith("2 of 3 prompts take more than 24 tokens, up to 40, and are cut; the longest: 'longest'")
    assert suspicions.cut({"short": 7, "just": 24}, 24) == []


def test_batches_of_few_episodes_and_missing_validation():
    assert seen(suspicions.clustered(3.0, 10.0)).startswith("a batch holds frames of 3.0 episodes")
    assert suspicions.clustered(9.0, 10.0) == []
    assert seen(suspicions.not_validated(0)) == "no episode is held out"
    assert suspicions.not_validated(5) == []


def test_long_lists_of_names_are_cut():
    names = [f"x[{i}]" for i in range(9)]
    assert suspicions.listed(names, np.ones(9, bool), limit=2) == "x[0], x[1] and 7 more"
