import dataclasses
import pathlib

import numpy as np
import pytest

from configs import base
from pizero_jax import config as configs
from pizero_jax.data import chunks, loader
from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.data.normalize import Statistics
from pizero_jax.types import InputError

GOLDEN = dict(np.load(pathlib.Path(__file__).parent / "golden_delta.npz"))
NAMES = ("mean", "std", "q01", "q99")


def assert_equal(ours: Statistics, theirs: Statistics):
    for name in NAMES:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-7, err_msg=name)
    assert ours.count == theirs.count


def test_relative_chunks_and_their_inverse_are_openpis(change):
    relative = chunks.relative_dimensions(change(delta=(6, -1, 6, -1)).data, 14, 14)
    np.testing.assert_array_equal(relative, np.flatnonzero(GOLDEN["mask"]))
    origin = chunks.origin(GOLDEN["state"], relative, 14)
    np.testing.assert_array_equal(GOLDEN["actions"] - origin, GOLDEN["out"])
    np.testing.assert_array_equal(GOLDEN["out"] + origin, GOLDEN["abs"])


@pytest.mark.parametrize(
    ("delta", "expected"), [((), []), ((-3,), []), ((2,), [0, 1]), ((-1, 2), [1, 2]), ((1, 1, -1, 1), [0, 1, 3])]
)
def test_dimensions_after_the_last_run_are_absolute(change, delta, expected):
    assert chunks.relative_dimensions(change(delta=delta).data, 4, 5).tolist() == expected


@pytest.mark.parametrize(
    ("delta", "P", "A", "message"),
    [
        ((3, -1), 3, 4, r"config.data.delta = \(3, -1\) names 4 dimensions, config.data.state = 'state' has 3"),
        ((5,), 8, 4, r"config.data.delta = \(5,\) names 5 dimensions, config.data.action = 'action' has 4"),
    ],
)
def test_runs_longer_than_state_or_actions_are_refused(change, delta, P, A, message):
    with pytest.raises(InputError, match=message):
        chunks.relative_dimensions(change(delta=delta).data, P, A)


def test_a_run_of_no_dimensions_is_refused():
    c = base.get_config()
    c.data.delta = (6, 0)
    with pytest.raises(InputError, match=r"config.data.delta = \(6, 0\) should be numbers of dimensions"):
        configs.build(configs.TrainConfig, c)


@pytest.mark.parametrize("delta", [(), (-4,)])
def test_statistics_without_relative_dimensions_are_of_frames(change, source, delta):
    found = chunks.statistics(source.train.episodes.table, change(delta=delta).data, C=4)
    for name, frames in (("state", "state"), ("actions", "actions")):
        of_frames = Statistics.of(np.concatenate([getattr(episode, frames) for episode in source.train.episodes]))
        for key in NAMES:
            np.testing.assert_array_equal(getattr(found[name], key), getattr(of_frames, key))


@pytest.mark.parametrize("C", [1, 4, 20])
def test_statistics_of_relative_chunks_are_those_of_what_the_loss_counts(change, C):
    """Window by window, with the mask of the loss; of the tiny data set and with chunks longer than its episodes."""
    config = change(delta=(2, -1, 1))
    config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, chunk=C))
    data = loader.open_data(config)
    real = [(w.actions - w.state * np.float32([1, 1, 0, 1]))[w.action_mask] for w in data.sources[0].train]
    assert_equal(data.sources[0].statistics["actions"], Statistics.of(np.concatenate(real)))
    states = [episode.state for episode in data.sources[0].train.episodes]
    assert_equal(data.sources[0].statistics["state"], Statistics.of(np.concatenate(states)))


def test_statistics_of_many_chunks_of_a_walk(change):
    """300 episodes without pictures; a gripper with two positions makes ties, and few open frames equal quantiles."""
    rng = np.random.default_rng(0)
    episodes, rows = [], []
    for index, length in enumerate(rng.integers(1, 60, size=300)):
        state = np.cumsum(rng.normal(size=(length, 3)), axis=0).astype(np.float32) + 100
        grip = (rng.uniform(size=(length, 1)) < 0.005).astype(np.float32)
        actions = np.concatenate([state[:, :2] + rng.normal(size=(length, 2)).astype(np.float32), grip], axis=1)
        episodes.append(
            Episode(
                images={},
                state=state,
                actions=actions,
                instructions=("",),
                index=index,
                keep=np.ones(len(actions), bool),
            )
        )
        for t in range(length):
            rows.append(actions[t : t + 10] - state[t] * np.float32([1, 1, 0]))
    found = chunks.statistics(Episodes.of(episodes).table, change(delta=(2,)).data, C=10)["actions"]
    assert_equal(found, Statistics.of(np.concatenate(rows)))
    assert found.q01[2] == found.q99[2] == 0


def test_statistics_of_blocks_are_those_of_all_rows():
    values = np.random.default_rng(0).normal(1e3, 1, size=(5_000, 2)).astype(np.float32)
    for cuts in ([], [1, 1, 4_000], [0, 4_999], range(50, 5_000, 50)):
        assert_equal(Statistics.of_blocks(lambda cuts=cuts: np.split(values, cuts)), Statistics.of(values))
    assert_equal(Statistics.of_blocks(lambda: [values[:1]]), Statistics.of(values[:1]))
