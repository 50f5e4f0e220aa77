import dataclasses

import numpy as np
import pytest

from pizero_jax.config import AugmentationConfig
from pizero_jax.data import chunks, dimensions, inspection, loader
from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.data.transforms import Processor
from pizero_jax.data.windows import Windows
from tests.data.make_rlds_tiny import LENGTHS


@pytest.fixture
def found(config, data):
    (only,) = inspection.inspect(config, data, windows=24)
    return only


def with_episodes(config, data, change):
    """`data` with episodes in memory, each of the data set after `change`."""
    source = data.sources[0]
    episodes = Episodes.of([change(episode) for episode in source.train.episodes])
    train = Windows(episodes, source.train.chunk)
    return loader.Data((source._replace(train=train),), data.action_tokens)


def warnings(config, data):
    return [suspicion.seen for suspicion in inspection.inspect(config, data)[0].suspicions]


def test_facts_count_what_is_there(config, found):
    facts = found.facts
    train = LENGTHS[:4]
    assert (facts["episodes"], facts["frames"], facts["held-out frames"]) == (4, sum(train), sum(LENGTHS[4:]))
    assert facts["epochs"] == config.steps * config.batch_size / sum(train)
    assert facts["shorter than a chunk"] == 1
    assert (facts["instructions"], facts["without instruction"], facts["left out"], facts["pools"]) == (2, 0, 0, 1)
    assert facts["hz"] is facts["hours"] is None
    assert sorted(found.lengths) == sorted(train)
    assert sorted(found.instructions) == [("drawer_close please", 2), ("reach please", 2)]
    assert found.shapes == {"base_0_rgb": (64, 64), "left_wrist_0_rgb": (64, 64)}


def test_hours_follow_from_the_frequency(config, change):
    config = change(hz=10.0)
    facts = inspection.inspect(config, loader.open_data(config), windows=0)[0].facts
    assert facts["hours"] == pytest.approx(24 / 10 / 3600)


def test_episodes_in_a_batch_are_those_of_the_order(config, data):
    mixed = inspection.batches(config, data)
    order, locate = data.order(config.seed, config.batch_size), data.sources[0].train.locate
    steps = np.linspace(0, config.steps - 1, 20).astype(int)
    counts = [len({locate(int(w))[0] for w in order(int(step)).windows}) for step in steps]
    assert mixed.distinct == [np.mean(counts)]
    assert mixed.pools == [1]


def test_independent_draws_bring_as_many_episodes_as_simulated():
    counts, rng = np.array([5, 9, 3, 7]), np.random.default_rng(0)
    rows = np.repeat(np.arange(4), counts)[rng.integers(0, 24, (20_000, 6))]
    simulated = np.mean([len(set(row)) for row in rows.tolist()])
    assert inspection.independent(counts, 1.0, 6) == pytest.approx(simulated, abs=0.02)  # 4 standard errors
    assert inspection.independent(counts, 0.5, 1) == pytest.approx(0.5)


def test_windows_show_what_was_recorded_and_what_the_policy_reads(found, source):
    assert [(look.episode, look.frame) for look in found.looks] == [source.train.locate(i) for i in range(24)]
    for look in found.looks:
        whole = source.train.episodes[look.episode]
        inside = np.minimum(look.frame + np.arange(4), len(whole) - 1)
        np.testing.assert_array_equal(look.state.recorded, whole.state[inside])
        np.testing.assert_array_equal(look.actions.recorded, whole.actions[inside])
        assert look.actions.real.tolist() == (look.frame + np.arange(4) < len(whole)).tolist()
        mean, std = source.statistics["state"].mean, source.statistics["state"].std
        np.testing.assert_allclose(look.state.normalised, (look.state.recorded - mean) / (std + 1e-6), atol=1e-4)


def test_names_are_field_and_place(found):
    assert found.looks[0].state.names == ["state[0]", "state[1]", "state[2]", "state[3]"]
    assert [row["name"] for row in found.statistics][4:] == ["action[0]", "action[1]", "action[2]", "action[3]"]
    assert [row["flags"] for row in found.statistics] == [[]] * 6 + [["constant"], []]


def test_the_prompt_is_decoded_and_counted(found):
    look = next(look for look in found.looks if look.instruction == "drawer_close please")
    assert look.prompt == "drawer close please\n"
    assert look.tokens == 1 + len(look.prompt)


def test_a_prompt_that_is_cut_counts_what_it_takes(config, data):
    short = dataclasses.replace(config, policy=dataclasses.replace(config.policy, prompt_length=10))
    (found,) = inspection.inspect(short, loader.open_data(short))
    assert {(look.prompt, look.tokens) for look in found.looks} <= {("drawer cl", 21), ("reach ple", 14)}
    assert any("2 of 2 prompts take more than 10 tokens" in suspicion.seen for suspicion in found.suspicions)


def test_pictures_are_the_policys_first_as_it_is_then_augmented(config, found, source):
    look = found.looks[0]
    window = source.train[0]
    plain = source.processor.observation(window.images, window.state, window.instruction).images
    for camera, pictures in look.pictures.items():
        np.testing.assert_array_equal(pictures[0], plain[camera])
        assert len(pictures) == 4
        assert len({picture.tobytes() for picture in pictures}) == 4


def test_without_augmentation_all_pictures_are_alike(change):
    config = change(augmentation=AugmentationConfig(1.0, 0.0, 0.0, 0.0, 0.0))
    (found,) = inspection.inspect(config, loader.open_data(config), windows=1)
    assert all(len({p.tobytes() for p in pictures}) == 1 for pictures in found.looks[0].pictures.values())


def test_looking_twice_shows_the_same(config, data):
    one, two = (inspection.inspect(config, data)[0] for _ in range(2))
    assert [(look.episode, look.frame) for look in one.looks] == [(look.episode, look.frame) for look in two.looks]
    assert all(
        np.array_equal(a, b)
        for x, y in zip(one.looks, two.looks, strict=True)
        for camera in x.pictures
        for a, b in zip(x.pictures[camera], y.pictures[camera], strict=True)
    )


def test_whole_episodes_begin_and_end_with_the_recording(found, source):
    for whole in found.episodes:
        recorded = source.train.episodes[whole.episode]
        assert (whole.frames[0], whole.frames[-1]) == (0, len(recorded) - 1)
        np.testing.assert_array_equal(whole.actions.recorded, recorded.actions)
        assert whole.state.normalised.shape == recorded.state.shape


def test_relative_actions_are_flagged_and_normalised_as_distances(change):
    config = change(delta=(2,))
    data = loader.open_data(config)
    (found,) = inspection.inspect(config, data)
    assert [row["flags"] for row in found.statistics[4:]] == [["relative"], ["relative"], ["constant"], []]
    look, statistics = found.looks[0], data.sources[0].statistics["actions"]
    distance = look.actions.recorded[:, 0] - look.state.recorded[0, 0]
    expected = (distance - statistics.mean[0]) / (statistics.std[0] + 1e-6)
    np.testing.assert_allclose(look.actions.normalised[:, 0], expected, atol=1e-4)


def test_a_policy_with_action_tokens_shows_their_number(token_config):
    (found,) = inspection.inspect(token_config, loader.open_data(token_config), windows=2)
    assert all(0 < look.action_tokens <= token_config.policy.token_length for look in found.looks)
    assert all(look.prompt.startswith("Task: ") for look in found.looks)


def test_a_mixture_has_each_data_set_with_its_share(config, change):
    path = config.data.path
    config = change(sets={"a": {"path": path, "weight": 3.0}, "b": {"path": path}})
    one, two = inspection.inspect(config, loader.open_data(config), windows=1, episodes=1)
    assert (one.name, two.name) == ("a", "b")
    assert (one.facts["share of rows"], one.facts["weight"]) == (0.75, 3.0)
    assert one.facts["episodes in a batch"] > two.facts["episodes in a batch"]


def test_the_tiny_data_set_gives_rise_to_one_suspicion(found):
    assert [suspicion.seen for suspicion in found.suspicions] == ["constant in all frames: action[2]"]


def test_faults_of_a_data_set_are_suspected(config, data):
    def change(episode):
        steps = len(episode)
        state = np.cumsum(episode.state, axis=0) if episode.index else episode.state
        following = np.concatenate([state[1:], state[-1:]])
        grey = [np.full((64, 64, 3), 128, np.uint8)] * steps
        black = [np.zeros((32, 64, 3), np.uint8)] * steps
        pictures = {"base_0_rgb": grey, "left_wrist_0_rgb": black}
        return Episode(pictures, state, following, ("",), episode.index, episode.keep)

    seen = "\n".join(warnings(config, with_episodes(config, data, change)))
    for fault in (
        "nearly equal to the next frame's state, absolute targets: action[0], action[1], action[2], action[3]",
        "camera left_wrist_0_rgb: 15 of 15 pictures are black",
        "camera base_0_rgb: 4 of 4 episodes show one and the same picture",
        "cameras have pictures of different sizes (height x width): base_0_rgb 64 x 64, left_wrist_0_rgb 32 x 64",
        "4 of 4 episodes have no instruction",
    ):
        assert fault in seen, fault


def test_damaged_pictures_are_left_out_or_raised_as_the_config_says(config, data):
    def change(episode):
        pictures = {camera: [b"no picture"] * len(episode) for camera in episode.images}
        return dataclasses.replace(episode, images=pictures)

    broken = with_episodes(config, data, change)
    with pytest.raises(ValueError, match="record"):
        inspection.inspect(config, broken)
    source = broken.sources[0]
    skipping = source._replace(config=dataclasses.replace(source.config, on_corrupt="skip"))
    (found,) = inspection.inspect(config, loader.Data((skipping,), None))
    assert (found.looks, found.shapes) == ([], {})


@pytest.fixture
def bridge(config, source):
    """A function of the sign of the commanded gripper: data of that embodiment, in memory."""

    def make(sign: int) -> loader.Data:
        def episode(index: int) -> Episode:
            rng, t = np.random.default_rng(index), np.arange(30)
            opening = (t < 15).astype(np.float32)
            steps = 0.02 * rng.normal(size=(30, 6))
            state = np.concatenate([np.cumsum(steps, axis=0), opening[:, None]], axis=1)
            commanded = np.roll(opening, -1) if sign > 0 else 1 - np.roll(opening, -1)
            actions = np.concatenate([np.roll(steps, -1, axis=0), commanded[:, None]], axis=1)
            picture = rng.integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
            numbers = state.astype(np.float32), actions.astype(np.float32)
            return Episode({"base_0_rgb": list(picture)}, *numbers, ("open it",), index, np.ones(30, bool))

        data = dataclasses.replace(
            config.data, embodiment="bridge_dataset", cameras={"base_0_rgb": "base"}, val_split=""
        )
        train = Windows(Episodes.of([episode(index) for index in range(4)]), config.policy.chunk)
        statistics = chunks.statistics(train.episodes.table, data, config.policy.chunk)
        processor = Processor(dataclasses.replace(config.policy, state_dim=7), data, statistics)
        return loader.Data((loader.Source("", data, 1.0, train, None, statistics, processor),), None)

    return make


def test_an_embodiments_dimensions_have_its_names(config, bridge):
    data = bridge(sign=1)
    (found,) = inspection.inspect(config, data)
    names = found.looks[0].actions.names
    assert (names[0], names[3], names[6]) == ("action position[0]", "action rotation[0]", "action gripper")
    assert dimensions.openings(data.sources[0]) == [6]
    assert found.facts["hz"] == 5
    assert found.facts["hours"] == pytest.approx(120 / 5 / 3600)


def test_a_flipped_gripper_of_an_embodiment_is_suspected(config, bridge):
    right, flipped = ("\n".join(warnings(config, bridge(sign))) for sign in (1, -1))
    assert "gripper" not in right
    assert "action gripper falls where state gripper rises: correlation -1.00" in flipped
    assert "action gripper, where 1 is open, begins 100% of the episodes closed" in flipped
