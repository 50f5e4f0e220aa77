import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import loader
from pizero_jax.errors import InputError
from pizero_jax.serve import open_loop
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.types import Policy

RLDS_TINY = Path(__file__).parents[1] / "data" / "rlds_tiny"
CHUNK = 4


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    c = base.get_config()
    c.policy.update(dict(dtype="float32", remat="none", cameras=("image", "wrist_image"), image_size=32))
    c.policy.update(dict(prompt_length=24, state_dim=8, action_dim=8, chunk=CHUNK, num_steps=2))
    c.policy.vision.update(dict(patch=16, width=16, depth=1, mlp=16, heads=2))
    c.policy.attention.update(dict(depth=1, heads=2, kv_heads=1, head_dim=8))
    c.policy.language.update(dict(width=16, mlp=16, vocabulary=259))
    c.policy.expert.update(dict(width=16, mlp=16))
    c.data.path = str(RLDS_TINY)
    c.data.cameras = dict(image="image", wrist_image="wrist_image")
    c.data.wrist_cameras = ()
    return build(TrainConfig, c)


@pytest.fixture(scope="module")
def source(config) -> loader.Source:
    return loader.open_data(config).sources[0]


@pytest.fixture
def perfect(config, source) -> TrainedPolicy:
    return knowing(config, source)


@pytest.fixture(scope="module")
def relative(config) -> TrainedPolicy:
    """As `perfect`, but of actions relative to the state, except the third."""
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, delta=(2, -1, 1)))
    return knowing(config, loader.open_data(config).sources[0])


def knowing(config: TrainConfig, source: loader.Data) -> TrainedPolicy:
    """Knows the recorded actions of each validation frame by its state; past an episode's end it predicts rubbish."""
    windows = [source.val[i] for i in range(len(source.val))]
    states = np.stack([source.processor.observation(w.images, w.state, w.instruction).state for w in windows])
    chunks = source.processor.actions(np.stack([w.actions for w in windows]), np.stack([w.state for w in windows]))
    chunks[~np.stack([w.action_mask for w in windows])] = 1e6

    def act(params, key, observation):
        distance = jnp.abs(observation.state[:, None] - states[None]).sum(axis=-1)
        return jnp.asarray(chunks)[jnp.argmin(distance, axis=1)]

    policy = Policy(init=None, loss=None, act=act)
    return TrainedPolicy(policy, None, config, source.statistics, source.processor, 7, {})


def changed(trained: TrainedPolicy, change) -> TrainedPolicy:
    """The policy with `change` applied to its actions in the data's units."""
    processor, act = trained.processor, trained.policy.act
    mean, std = (np.pad(getattr(trained.statistics["actions"], name), (0, 4)) for name in ("mean", "std"))

    def changed_act(*arguments, **keywords):
        raw = act(*arguments, **keywords) * (std + 1e-6) + mean
        return (change(raw) - mean) / (std + 1e-6)

    assert processor.data.normalization == "zscore"
    return dataclasses.replace(trained, policy=trained.policy._replace(act=changed_act))


def check(trained: TrainedPolicy, execute: int = 3) -> list[dict]:
    """The numbers of both validation episodes."""
    episodes = open_loop.open_episodes(trained, str(RLDS_TINY), "val")
    return open_loop.dimensions(
        trained, [open_loop.replay(trained, episode, execute, jax.random.key(0)) for episode in episodes]
    )


def times(dimension: int, factor: float):
    return lambda raw: raw.at[..., dimension].multiply(factor)


@pytest.mark.parametrize("execute", [1, 3, CHUNK])
def test_recorded_actions_as_predictions_have_no_error_and_the_end_of_an_episode_is_masked(perfect, execute):
    rows = check(perfect, execute)
    assert open_loop.suspicions(rows) == []
    for row in rows:
        assert row["rmse"] < 1e-6  # float32, of actions in [-1, 1]
        assert row["round_trip_error"] < 1e-6


def test_the_references_are_the_mean_of_the_training_data_and_the_action_before_the_look(perfect, source):
    rows = check(perfect)
    actions = [episode.actions.astype(np.float64) for episode in source.val.episodes]
    mean = source.statistics["actions"].mean
    held = [np.stack([mean if t < 3 else a[t // 3 * 3 - 1] for t in range(len(a))]) for a in actions]
    for a, row in enumerate(rows):
        recorded, repeated = np.concatenate(actions)[:, a], np.concatenate(held)[:, a]
        np.testing.assert_allclose(row["recorded_std"], recorded.std(), atol=1e-12)
        np.testing.assert_allclose(row["rmse_of_mean_action"], np.sqrt(np.mean((recorded - mean[a]) ** 2)), atol=1e-12)
        np.testing.assert_allclose(row["rmse_of_last_action"], np.sqrt(np.mean((recorded - repeated) ** 2)), atol=1e-12)


def test_relative_actions_are_compared_in_the_data_sets_units(relative, perfect, source):
    rows = check(relative)
    assert open_loop.suspicions(rows) == []
    mean = relative.statistics["actions"].mean
    for a, (row, absolute) in enumerate(zip(rows, check(perfect), strict=True)):
        assert row["rmse"] < 1e-5  # float32, of states and actions of a few units
        assert row["round_trip_error"] < 1e-5
        assert row["recorded_std"] == absolute["recorded_std"]
        recorded = np.concatenate([episode.actions[:, a] for episode in source.val.episodes]).astype(np.float64)
        looks = np.concatenate([e.state[np.arange(len(e)) // 3 * 3, a] for e in source.val.episodes]) * (a != 2)
        np.testing.assert_allclose(row["rmse_of_mean_action"], open_loop.rmse(looks + mean[a], recorded), rtol=1e-12)


def test_a_relative_policy_that_says_the_mean_moves_from_where_it_is(relative, source):
    def act(params, key, observation):
        return jnp.zeros((len(observation.state), CHUNK, 8))

    trained = dataclasses.replace(relative, policy=relative.policy._replace(act=act))
    episode = source.val.episodes[0]
    images = {camera: np.zeros((32, 32, 3), np.uint8) for camera in ("image", "wrist_image")}
    observations = [{"images": images, "state": state} for state in (episode.state[0], episode.state[1].tolist())]
    actions = trained.infer_batch(observations, ["reach"] * 2, jax.random.key(0))
    from_state = episode.state[:2] * np.array([1, 1, 0, 1])
    expected = np.repeat((relative.statistics["actions"].mean + from_state)[:, None], CHUNK, axis=1)
    np.testing.assert_allclose(actions, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (times(1, -1), "action[1]", "sign flipped"),
        (times(0, 3), "action[0]", "scale another"),
        (times(3, 0.3), "action[3]", "scale another"),
        (lambda raw: raw.at[..., 0].add(2), "action[0]", "zero another"),
        (lambda raw: raw.at[..., 0].add(2), "action[0]", "worse than the mean"),
    ],
)
def test_a_dimension_of_another_convention_is_reported_and_no_other(perfect, change, name, reason):
    (warning,) = open_loop.suspicions(check(changed(perfect, change)))
    assert warning.startswith(f"{name}: ")
    assert reason in warning


def test_a_dimension_that_was_constant_in_training_and_is_not_here_loses_its_value(perfect, source):
    actions = source.statistics["actions"]
    statistics = {
        **source.statistics,
        "actions": dataclasses.replace(actions, mean=actions.mean + [0, 0, 1, 0]),
    }
    processor = type(source.processor)(perfect.config.policy, perfect.config.data, statistics)
    trained = dataclasses.replace(perfect, statistics=statistics, processor=processor)
    (warning,) = open_loop.suspicions(check(trained))
    assert warning.startswith("action[2]: is its zero another? predictions are off by +1 on average; ")
    assert "normalising loses up to 1: it was constant in the training data" in warning


def test_a_long_episode_is_looked_at_in_batches(perfect, source, monkeypatch):
    episode = max(source.val.episodes, key=len)
    whole = open_loop.replay(perfect, episode, 1, jax.random.key(0))
    monkeypatch.setattr(open_loop, "LOOKS", 4)  # of 6 looks
    parts = open_loop.replay(perfect, episode, 1, jax.random.key(0))
    np.testing.assert_array_equal(parts.predicted, whole.predicted)
    np.testing.assert_array_equal(parts.looks, range(6))


def test_data_of_another_robot_is_refused(perfect, source):
    groups = {name: dataclasses.replace(group, mean=np.zeros(7)) for name, group in source.statistics.items()}
    trained = dataclasses.replace(perfect, statistics=groups)
    with pytest.raises(InputError, match="'state' has 4 dimensions, the checkpoint was trained on 7"):
        check(trained)
    trained = dataclasses.replace(perfect, statistics=groups | {"state": source.statistics["state"]})
    with pytest.raises(InputError, match="'action' has 4 dimensions, the checkpoint was trained on 7"):
        check(trained)
