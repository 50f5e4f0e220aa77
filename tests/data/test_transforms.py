import dataclasses

import jax
import numpy as np
import pytest
from absl import logging

from pizero_jax.config import AugmentationConfig, DropoutConfig
from pizero_jax.data import action_tokens, tokenizers
from pizero_jax.data.pictures import augment
from pizero_jax.data.transforms import Processor
from pizero_jax.errors import InputError
from tests.data import make_rlds_tiny

STILL = AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
PICTURE = make_rlds_tiny.picture(1, 2, 0)
DELTA = (2, -1, 1)


@pytest.fixture
def process(config, data, source):
    """A processor of the tiny data set with other values in its data or policy group."""

    def make(policy=None, **values) -> Processor:
        changed = dataclasses.replace(config.policy, **(policy or {}))
        return Processor(changed, dataclasses.replace(config.data, **values), source.statistics)

    return make


def observe(processor, images=None, seed=None):
    rng = None if seed is None else np.random.default_rng(seed)
    images = {"base_0_rgb": PICTURE, "left_wrist_0_rgb": PICTURE} if images is None else images
    return processor.observation(images, np.zeros(4, np.float32), "reach please", rng)


def test_wrist_cameras_keep_their_geometry(process):
    geometry = dataclasses.replace(STILL, crop=0.9, rotation=10.0)
    seen = observe(process(augmentation=geometry), seed=0)
    np.testing.assert_array_equal(seen.images["left_wrist_0_rgb"], PICTURE)
    assert (seen.images["base_0_rgb"] != PICTURE).any()


def test_cameras_draw_independently(process):
    colours = dataclasses.replace(STILL, brightness=0.5)
    seen = observe(process(augmentation=colours), seed=0)
    assert (seen.images["left_wrist_0_rgb"] != seen.images["base_0_rgb"]).any()


def test_pictures_of_a_history_are_augmented_alike(process):
    """Three moments of one picture stay one; another camera has its own draws."""
    processor = process(history=3, augmentation=dataclasses.replace(STILL, crop=0.8, rotation=9.0, brightness=0.5))
    images = {"base_0_rgb": [PICTURE] * 3, "left_wrist_0_rgb": [PICTURE] * 3}
    seen = processor.observation(images, np.zeros((3, 4), np.float32), "reach", np.random.default_rng(0))
    assert seen.state.shape == (3, 6)
    for moments in seen.images.values():
        assert moments.shape == (3, 64, 64, 3)
        assert (moments == moments[:1]).all()
        assert (moments != PICTURE).any()
    assert (seen.images["base_0_rgb"] != seen.images["left_wrist_0_rgb"]).any()


def test_one_moment_of_a_history_is_the_picture_alone(process):
    colours = dataclasses.replace(STILL, crop=0.8, brightness=0.5)
    state = np.float32([0.1, 0.2, 0.3, 0.4])
    images = {"base_0_rgb": PICTURE, "left_wrist_0_rgb": PICTURE}
    alone = process(augmentation=colours).observation(images, state, "reach", np.random.default_rng(0))
    three = {camera: [np.zeros_like(PICTURE), 255 - PICTURE, PICTURE] for camera in images}
    states = np.stack([9 * state, -state, state])
    seen = process(augmentation=colours, history=3).observation(three, states, "reach", np.random.default_rng(0))
    for camera in images:
        np.testing.assert_array_equal(seen.images[camera][-1], alone.images[camera])
    np.testing.assert_array_equal(seen.state[-1], alone.state)


ROWS = 4_000


def deviations(count: int, probability: float) -> float:
    """How far a count of independent events is from its mean, in its standard deviations."""
    return abs(count - ROWS * probability) / np.sqrt(ROWS * probability * (1 - probability))


def rows(processor, seeds=range(ROWS)):
    """Observations of two cameras, seen at 8 pixels: dropout is what counts here."""
    images = {"base_0_rgb": PICTURE, "left_wrist_0_rgb": PICTURE}
    state = np.full(4, 3, np.float32)
    return [processor.observation(images, state, "reach", np.random.default_rng(seed)) for seed in seeds]


def test_dropout_comes_as_often_as_the_config_says_and_one_camera_always_stays(process):
    """Of two cameras with p = 0.4 each goes with p - p^2 / 2, both stay with (1 - p)^2, and none with 0."""
    processor = process(augmentation=STILL, dropout=DropoutConfig(cameras=0.4, state=0.2, prompt=0.1))
    seen = rows(processor)
    masks = np.array([[row.image_masks[camera] for camera in processor.cameras] for row in seen])
    assert masks.any(axis=1).all()
    assert deviations(np.sum(masks.all(axis=1)), 0.6**2) < 4
    for column in masks.T:
        assert deviations(np.sum(~column), 0.4 - 0.4**2 / 2) < 4
    without_state = np.array([not row.state.any() for row in seen])
    empty = processor.observation({}, np.zeros(4), "").prompt
    without_prompt = np.array([np.array_equal(row.prompt, empty) for row in seen])
    assert deviations(np.sum(without_state), 0.2) < 4
    assert deviations(np.sum(without_prompt), 0.1) < 4
    assert deviations(np.sum(without_state & without_prompt), 0.2 * 0.1) < 4
    assert deviations(np.sum(without_state & ~masks[:, 0]), 0.2 * (0.4 - 0.4**2 / 2)) < 4


def test_a_dropped_camera_is_black_and_others_are_whole(process):
    for row in rows(process(augmentation=STILL, dropout=DropoutConfig(cameras=0.5, state=0, prompt=0)), range(50)):
        for camera, image in row.images.items():
            np.testing.assert_array_equal(image, PICTURE if row.image_masks[camera] else 0)


def test_a_dropped_state_is_the_mean_of_the_training_data_in_the_prompt_too(process, source):
    dropout = DropoutConfig(cameras=0, state=0.999, prompt=0)
    processor = process(policy=dict(prompt_length=80), prompt="pi05", dropout=dropout)
    mean = source.statistics["state"].mean
    dropped = rows(processor, range(1))[0]
    expected = process(policy=dict(prompt_length=80), prompt="pi05").observation({}, mean, "reach")
    np.testing.assert_allclose(dropped.state, expected.state, atol=1e-6)
    text = bytes(i - 3 for i in dropped.prompt[dropped.prompt_mask][1:].tolist()).decode()
    assert text == "Task: reach, State: 128 128 128 128;\nAction: "


def test_without_dropout_no_number_is_drawn_for_it(process):
    """So that runs of before it existed, and those without it, see the same pictures."""
    colours = dataclasses.replace(STILL, brightness=0.5)
    ours = observe(process(augmentation=colours), seed=0)
    draws = np.random.default_rng(0)
    for camera in ("base_0_rgb", "left_wrist_0_rgb"):
        expected = augment(PICTURE, draws, colours, geometric=camera == "base_0_rgb")
        np.testing.assert_array_equal(ours.images[camera], expected)


def test_acting_and_validation_drop_nothing(process):
    seen = observe(process(dropout=DropoutConfig(cameras=0.9, state=0.9, prompt=0.9)))
    plain = observe(process())
    for ours, theirs in zip(jax.tree.leaves(seen), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_generator_means_no_augmentation(process):
    seen = observe(process())
    np.testing.assert_array_equal(seen.images["base_0_rgb"], PICTURE)
    assert seen.images["base_0_rgb"].dtype == np.uint8


def test_blind_zeroes_pictures_even_when_augmenting(process):
    seen = observe(process(blind=True), seed=0)
    assert not any(image.any() for image in seen.images.values())
    assert all(seen.image_masks.values())


def test_a_camera_absent_from_the_run_is_left_out_and_one_absent_from_a_request_is_masked(process):
    seen = observe(process(), images={"base_0_rgb": PICTURE})
    assert list(seen.images) == ["base_0_rgb", "left_wrist_0_rgb"]
    assert seen.image_masks == {"base_0_rgb": True, "left_wrist_0_rgb": False}
    assert not seen.images["left_wrist_0_rgb"].any()


def test_state_is_normalised_and_padded(process, source):
    state = source.statistics["state"].mean + source.statistics["state"].std
    seen = process().observation({}, state, "reach")
    np.testing.assert_allclose(seen.state, [1, 1, 1, 1, 0, 0], atol=1e-5)


def test_actions_come_back_as_they_were(process, source):
    raw, state = source.train[0].actions, source.train[0].state
    normalised = process().actions(raw, state)
    assert normalised.shape == (4, 7)
    assert not normalised[:, 4:].any()
    np.testing.assert_allclose(process().unnormalize(normalised, state), raw, atol=1e-6)
    assert process().action_dim_mask.tolist() == [True] * 4 + [False] * 3


@pytest.mark.parametrize("normalization", ["zscore", "quantile"])
def test_relative_actions_come_back_as_they_were_in_batches_too(config, process, source, normalization):
    processor = process(delta=DELTA, normalization=normalization)
    raw, states = (np.stack([getattr(source.train[i], name) for i in range(5)]) for name in ("actions", "state"))
    normalised = processor.actions(raw, states)
    np.testing.assert_array_equal(normalised[2], processor.actions(raw[2], states[2]))
    np.testing.assert_allclose(processor.unnormalize(normalised, states), raw, atol=1e-6)
    np.testing.assert_allclose(processor.finish(normalised, states)[0], raw, atol=1e-6)
    farther = states + np.array([0.5, 1, 2, 4], np.float32)
    moved = processor.unnormalize(normalised, farther) - processor.unnormalize(normalised, states)
    np.testing.assert_allclose(moved, np.broadcast_to([0.5, 1, 0, 4], moved.shape), atol=1e-6)


def test_tokens_are_those_of_relative_chunks(process_tokens, source):
    processor, window = process_tokens(delta=DELTA), source.train[0]
    shift = np.array([0.5, -1, 0, 2], np.float32)
    ids, _ = processor.tokens(window.actions, window.state)
    np.testing.assert_array_equal(processor.tokens(window.actions + shift, window.state + shift)[0], ids)
    assert (processor.tokens(window.actions, window.state + shift)[0] != ids).any()
    (here,), _ = processor.finish(ids[None], window.state[None])
    (there,), _ = processor.finish(ids[None], window.state[None] + shift)
    np.testing.assert_allclose(there - here, np.tile(shift, (4, 1)), atol=1e-6)


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    seen = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: seen.append(message % values))
    return seen


def test_each_prompt_is_tokenised_once(process, monkeypatch):
    processor, calls = process(), []
    monkeypatch.setattr(tokenizers, "prompt", lambda *_: calls.append(1) or [2])
    for value in range(3):
        processor.observation({}, np.full(4, value), "reach")
    assert len(calls) == 1


@pytest.mark.parametrize("prompt", ["pi0", "pi05"])
def test_a_prompt_that_is_cut_is_named_once_whatever_the_state(process, warnings, prompt):
    processor = process(policy=dict(prompt_length=5), prompt=prompt)
    warnings.clear()
    for value in range(3):
        assert processor.observation({}, np.full(4, value), "reach please").prompt_mask.all()
    assert len(warnings) == 1
    assert "prompt 'reach please' takes" in warnings[0]
    assert "cut to config.policy.prompt_length = 5" in warnings[0]


@pytest.mark.parametrize(("openpi", "lowest"), [(False, "0"), (True, "-1")])
def test_the_prompt_holds_the_bins_of_the_normalised_state_without_its_padding(process, source, openpi, lowest):
    processor = process(policy=dict(prompt_length=80), prompt="pi05", openpi_state_bins=openpi)
    statistics = source.statistics["state"]
    state = statistics.mean + np.array([-2.0, 0.0, 0.5, 2.0]) * statistics.std
    seen = processor.observation({}, state + 1e-4, "reach")  # off the edges of bins
    text = bytes(i - 3 for i in seen.prompt[seen.prompt_mask][1:].tolist()).decode()
    assert text == f"Task: reach, State: {lowest} 128 192 255;\nAction: "


@pytest.fixture
def process_tokens(token_config, source):
    """A processor of a policy over bins, whose sequences take 8 + 16 + 2 ids."""

    def make(delta=(), **policy) -> Processor:
        changed = dataclasses.replace(token_config.policy, **policy)
        bins = dataclasses.replace(token_config.data.action_tokens, kind="bins")
        config = dataclasses.replace(token_config.data, action_tokens=bins, delta=delta)
        return Processor(changed, config, source.statistics, action_tokens.Bins())

    return make


def test_tokens_are_padded_and_finish_gives_actions_back(process_tokens, source):
    processor, raw, state = process_tokens(), source.train[0].actions, source.train[0].state
    ids, mask = processor.tokens(raw, state)
    assert mask.tolist() == [True] * 26 + [False] * 14
    actions, ok = processor.finish(np.stack([ids, ids[::-1], np.zeros(40, np.int32)]), np.stack([state] * 3))
    assert ok.tolist() == [True, False, False]
    span = source.statistics["actions"].q99 - source.statistics["actions"].q01
    clipped = np.clip(raw, source.statistics["actions"].q01, source.statistics["actions"].q99)
    assert (np.abs(actions[0] - clipped) <= span / 512 + 1e-5).all()  # half a bin
    middle = np.where(span > 0, source.statistics["actions"].q01 + span / 2, raw[0])  # what a normalised 0 means
    np.testing.assert_allclose(actions[2], np.tile(middle, (4, 1)), atol=1e-5)


def test_finish_of_numbers_is_unnormalise(process, source):
    raw, states = (np.stack([getattr(source.train[i], name) for i in range(2)]) for name in ("actions", "state"))
    normalised = process().actions(raw, states)
    actions, ok = process().finish(normalised, states)
    np.testing.assert_array_equal(actions, process().unnormalize(normalised, states))
    assert ok.tolist() == [True, True]
    assert process().tokens(raw[0], states[0]) is None


def test_tokens_that_are_cut_are_named_once_and_still_read(process_tokens, source, warnings):
    processor, whole = process_tokens(token_length=20), process_tokens()
    warnings.clear()
    states = np.stack([source.train[index].state for index in range(3)])
    rows = [processor.tokens(source.train[index].actions, state)[0] for index, state in enumerate(states)]
    assert warnings == ["a chunk as action tokens takes 26 tokens and is cut to config.policy.token_length = 20"]
    actions, ok = processor.finish(np.stack(rows), states)
    assert not ok.any()
    uncut = whole.tokens(source.train[0].actions, states[0])[0]
    np.testing.assert_array_equal(actions[0, :3], whole.finish(uncut[None], states[:1])[0][0, :3])


def test_action_tokens_that_do_not_fit_the_vocabulary_are_refused(token_config, process_tokens):
    language = dataclasses.replace(token_config.policy.language, vocabulary=300)
    with pytest.raises(InputError, match=r"config.policy.language.vocabulary = 300 has no room for 256 action tokens"):
        process_tokens(language=language)


@pytest.mark.parametrize(
    ("policy", "values", "message"),
    [
        (dict(state_dim=3), {}, r"config.policy.state_dim = 3 is less than the 4 dimensions of config.data.state"),
        (dict(action_dim=3), {}, r"config.policy.action_dim = 3 is less than the 4 dimensions of config.data.action"),
        ({}, dict(delta=(4, -1)), r"config.data.delta = \(4, -1\) names 5 dimensions, config.data.state .* has 4"),
        ({}, dict(cameras={"base_rgb": "image"}), r"config.data.cameras.base_rgb is not.*did you mean 'base_0_rgb'"),
    ],
)
def test_what_does_not_fit_the_policy_is_refused_at_construction(process, policy, values, message):
    with pytest.raises(InputError, match=message):
        process(policy=policy, **values)


def test_a_vocabulary_beyond_the_policys_is_refused(config, process):
    language = dataclasses.replace(config.policy.language, vocabulary=100)
    with pytest.raises(InputError, match=r"config.policy.language.vocabulary = 100 .* config.data.tokenizer = 'bytes'"):
        process(policy=dict(language=language))


def test_requests_that_do_not_fit_are_refused(process):
    with pytest.raises(InputError, match=r"camera 'base_rgb' is unknown; did you mean 'base_0_rgb'"):
        observe(process(), images={"base_rgb": PICTURE})
    with pytest.raises(InputError, match="picture of camera 'base_0_rgb' cannot be decoded"):
        observe(process(), images={"base_0_rgb": b"\xff\xd8 cut"})
    with pytest.raises(InputError, match=r"should be uint8 grey levels \[h, w, 3\]; it is float64 \[64, 64, 3\]"):
        observe(process(), images={"base_0_rgb": PICTURE / 255})
    with pytest.raises(InputError, match="another embodiment"):
        process().observation({}, np.zeros(7), "reach")
