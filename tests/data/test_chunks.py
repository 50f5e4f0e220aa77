import dataclasses
import pathlib

import numpy as np
import pytest

from configs import base
from pizero_jax import config as configs
from pizero_jax.data import chunks, loader, normalize
from pizero_jax.data.episodes import Episode, Episodes, Table
from pizero_jax.data.normalize import Statistics
from pizero_jax.errors import InputError

GOLDEN = dict(np.load(pathlib.Path(__file__).parent / "golden_delta.npz"))


def assert_equal(ours: Statistics, theirs: Statistics, *, quantiles: float = 1e-6):
    """Sketches have the quantiles of up to 2^16 different numbers exactly and of more within 5e-4.

    Their means and deviations are exact: 1e-11 is what NumPy loses that adds row to row.
    """
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-11, atol=1e-15, err_msg=name)
    for name in ("q01", "q99"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=quantiles, err_msg=name)
    assert ours.count == theirs.count


def walk(count: int, lengths: tuple[int, int], seed: int = 0) -> Table:
    """Episodes of three state dimensions; two actions near them, and a gripper that is open in 0.5% of the steps."""
    rng = np.random.default_rng(seed)
    episodes = []
    for index, length in enumerate(rng.integers(*lengths, size=count)):
        state = np.cumsum(rng.normal(size=(length, 3)), axis=0).astype(np.float32) + 100
        grip = (rng.uniform(size=(length, 1)) < 0.005).astype(np.float32)
        actions = np.concatenate([state[:, :2] + rng.normal(size=(length, 2)).astype(np.float32), grip], axis=1)
        episodes.append(Episode({}, state, actions, ("",), index, keep=np.ones(length, bool)))
    return Episodes.of(episodes).table


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


@pytest.mark.parametrize("delta", [(), (-3,)])
def test_statistics_without_relative_dimensions_are_of_frames(change, delta):
    table = walk(20, (1, 60))
    found = chunks.statistics(table, change(delta=delta).data, C=4)
    assert_equal(found["state"], Statistics.of(table.state))
    assert_equal(found["actions"], Statistics.of(table.actions))


@pytest.mark.parametrize("C", [1, 4, 20])
def test_statistics_of_relative_chunks_are_those_of_what_the_loss_counts(change, C):
    """Window by window, with the mask of the loss; of the tiny data set and with chunks longer than its episodes."""
    config = change(delta=(2, -1, 1))
    config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, chunk=C))
    (source,) = loader.open_data(config).sources
    real = [(w.actions - w.state * np.float32([1, 1, 0, 1]))[w.action_mask] for w in source.train]
    assert_equal(source.statistics["actions"], Statistics.of(np.concatenate(real)))
    states = [episode.state for episode in source.train.episodes]
    assert_equal(source.statistics["state"], Statistics.of(np.concatenate(states)))


def test_statistics_of_many_chunks_of_a_walk(change):
    """A gripper with two positions makes ties, and few open frames equal quantiles."""
    table = walk(300, (1, 60))
    rows, end = [], 0
    for length in table.lengths:
        begin, end = end, end + length
        rows += [
            table.actions[t : min(t + 10, end)] - table.state[t] * np.float32([1, 1, 0]) for t in range(begin, end)
        ]
    found = chunks.statistics(table, change(delta=(2,)).data, C=10)["actions"]
    assert_equal(found, Statistics.of(np.concatenate(rows)), quantiles=5e-4)
    assert found.q01[2] == found.q99[2] == 0


@pytest.mark.parametrize("delta", [(), (2,)])
def test_steps_to_leave_out_count_neither_as_beginnings_nor_as_actions(change, delta):
    table = walk(40, (1, 30))
    table = dataclasses.replace(table, keep=np.random.default_rng(1).uniform(size=len(table.keep)) < 0.7)
    left = np.concatenate([np.arange(length, 0, -1) for length in table.lengths])
    reach = np.minimum(left, 5 if delta else 1)
    pairs = [(t, t + step) for t in np.flatnonzero(table.keep) for step in range(reach[t]) if table.keep[t + step]]
    begins, steps = np.transpose(pairs)
    relative = np.float32([1, 1, 0] if delta else [0, 0, 0])
    found = chunks.statistics(table, change(delta=delta).data, C=5)
    assert_equal(found["actions"], Statistics.of(table.actions[steps] - table.state[begins] * relative))
    assert_equal(found["state"], Statistics.of(table.state[table.keep]))


@pytest.mark.parametrize("delta", [(), (2,)])
@pytest.mark.parametrize("rows", [1, 70, 1_000])
def test_blocks_that_cut_episodes_and_the_number_of_threads_change_no_bit(change, monkeypatch, delta, rows):
    table, data = walk(30, (1, 40)), change(delta=delta).data
    table.keep[100:200] = False  # whole blocks without a frame
    whole = chunks.statistics(table, data, C=7)
    monkeypatch.setattr(chunks, "_ROWS", rows)
    for threads in (1, 3):
        monkeypatch.setattr(chunks.cores, "available", lambda threads=threads: threads)
        np.testing.assert_equal(normalize.to_dict(chunks.statistics(table, data, C=7)), normalize.to_dict(whole))


def test_a_table_on_disk_has_the_statistics_of_one_in_memory(change, tmp_path):
    table, data = walk(30, (1, 40)), change(delta=(2,)).data
    mapped = {}
    for name in ("state", "actions", "keep"):
        np.save(tmp_path / f"{name}.npy", getattr(table, name))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    found = chunks.statistics(dataclasses.replace(table, **mapped), data, C=7)
    np.testing.assert_equal(normalize.to_dict(found), normalize.to_dict(chunks.statistics(table, data, C=7)))


def test_a_table_without_a_step_to_learn_from_is_refused(change):
    table = walk(3, (5, 10))
    table.keep[:] = False
    with pytest.raises(InputError, match=r"config.data.path = .* has no step to learn from"):
        chunks.statistics(table, change(delta=()).data, C=7)


def test_rare_actions_far_outside_the_quantiles_are_not_clipped(change):
    table, data = walk(300, (1, 60)), change(delta=(), normalization="quantile").data
    table.actions[50] = 1e6
    normalizer = chunks.ChunkNormalizer(chunks.statistics(table, data, C=4), data)
    normalized = normalizer.normalize(table.actions[50:51], table.state[50])
    assert normalized.min() > 90  # in about 9,000 steps, z-scores are the square root of it
    np.testing.assert_allclose(normalizer.unnormalize(normalized, table.state[50]), 1e6, rtol=1e-5)
