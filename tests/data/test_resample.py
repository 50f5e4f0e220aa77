"""Chunks at another rate, in closed form."""

import numpy as np
import pytest

from pizero_jax.data import loader, mixture
from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.data.resample import Resampling
from pizero_jax.data.windows import Windows
from pizero_jax.errors import InputError

RNG = np.random.default_rng(0)
ACTIONS = RNG.normal(size=(60, 4)).astype(np.float32)
CHANGES = np.array([True, False, True, False])
RATIOS = (1.0, 2.0, 3.0, 0.5, 1 / 3, 2.5, 0.3, 1.7, 20 / 15, 5 / 50)


def resampling(ratio: float) -> Resampling:
    return Resampling(ratio, CHANGES)


def test_the_same_rate_is_the_identity():
    np.testing.assert_array_equal(resampling(1.0).chunk(ACTIONS, 20)[:, ~CHANGES], ACTIONS[:20, ~CHANGES])
    np.testing.assert_allclose(resampling(1.0).chunk(ACTIONS, 20), ACTIONS[:20], atol=1e-6)  # sums, then differences


@pytest.mark.parametrize("ratio", [2, 3, 5])
def test_a_slower_chunk_adds_changes_and_takes_the_commands_that_held_first(ratio):
    found, groups = resampling(float(ratio)).chunk(ACTIONS, 10), ACTIONS[: 10 * ratio].reshape(10, ratio, 4)
    np.testing.assert_allclose(found[:, CHANGES], groups.sum(axis=1)[:, CHANGES], atol=1e-5)
    np.testing.assert_array_equal(found[:, ~CHANGES], groups[:, 0, ~CHANGES])


@pytest.mark.parametrize("parts", [2, 3, 10])
def test_a_quicker_chunk_divides_changes_and_holds_commands(parts):
    found, recorded = resampling(1 / parts).chunk(ACTIONS, 30), np.repeat(ACTIONS, parts, axis=0)[:30]
    np.testing.assert_allclose(found[:, CHANGES], recorded[:, CHANGES] / parts, atol=1e-6)
    np.testing.assert_array_equal(found[:, ~CHANGES], recorded[:, ~CHANGES])


@pytest.mark.parametrize("ratio", RATIOS)
def test_changes_add_up_to_the_path_at_each_time(ratio):
    """After j actions the hand is where the recorded path, linear within a step, is at time j * ratio."""
    found = np.cumsum(resampling(ratio).chunk(ACTIONS, 20).astype(np.float64), axis=0)
    for column in np.flatnonzero(CHANGES):
        path = np.concatenate([[0], np.cumsum(ACTIONS[:, column], dtype=np.float64)])
        expected = np.interp(np.arange(1, 21) * ratio, np.arange(61), path)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_commands_are_those_that_held_at_the_time(ratio):
    at = [int(np.floor(round(j * ratio, 6))) for j in range(20)]
    np.testing.assert_array_equal(resampling(ratio).chunk(ACTIONS, 20)[:, ~CHANGES], ACTIONS[at][:, ~CHANGES])


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_straight_line_stays_one(ratio):
    line = np.tile(np.float32([0.2, 0.7, -0.1, 1.0]), (60, 1))
    expected = line[:20] * np.where(CHANGES, ratio, 1)
    np.testing.assert_allclose(resampling(ratio).chunk(line, 20), expected, rtol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_action_needs_all_steps_that_it_spans_and_no_other(ratio):
    """Numbers behind what `ends` says change nothing, and those before do."""
    for j, end in enumerate(resampling(ratio).ends(20)):
        assert end == int(np.ceil(round((j + 1) * ratio, 6)))
        later, last = ACTIONS.copy(), ACTIONS.copy()
        later[end:] += 1
        last[end - 1] += 1
        whole, same, other = (resampling(ratio).chunk(actions, 20)[j] for actions in (ACTIONS, later, last))
        np.testing.assert_allclose(same, whole, atol=1e-6)
        assert np.abs(other - whole)[CHANGES].min() > 0.01


def test_a_chunk_does_not_change_what_was_recorded():
    before = ACTIONS.copy()
    for ratio in RATIOS:
        resampling(ratio).chunk(ACTIONS, 20)
    np.testing.assert_array_equal(ACTIONS, before)


def episodes(lengths=(7, 1, 12), A=4) -> Episodes:
    def episode(number, length):
        numbers = np.random.default_rng(number).normal(size=(length, A)).astype(np.float32)
        keep = np.arange(length) != 2
        return Episode({"camera": [b"%d" % t for t in range(length)]}, numbers, numbers, ("go",), number, keep)

    return Episodes.of([episode(*item) for item in enumerate(lengths)])


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_mask_of_a_chunk_ends_where_its_episode_does(ratio):
    windows = Windows(episodes(), 6, resampling=resampling(ratio))
    ends = np.ceil(np.round(np.arange(1, 7) * ratio, 6))
    for index in range(len(windows)):
        number, frame = windows.locate(index)
        length, window = len(windows.episodes[number]), windows[index]
        inside = frame + ends <= length
        last = np.minimum(frame + ends - 1, length - 1)
        np.testing.assert_array_equal(window.action_mask, inside & (last != 2))
        expected = windows.resampling.chunk(windows.episodes[number].actions[frame:], 6)
        np.testing.assert_array_equal(window.actions, expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_frames_begin_a_window_where_one_action_fits(ratio):
    windows, needed = Windows(episodes(), 6, resampling=resampling(ratio)), int(np.ceil(ratio - 1e-9))
    located = [windows.locate(index) for index in range(len(windows))]
    lengths = windows.episodes.lengths.tolist()
    assert located == [(n, t) for n, T in enumerate(lengths) for t in range(T - needed + 1) if t != 2]
    assert windows.counts.tolist() == [sum(number == n for number, _ in located) for n in range(3)]


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_first_actions_of_a_table_are_those_of_its_chunks(ratio):
    opened, found = episodes(), resampling(ratio)
    table, row = found.first(opened.table), 0
    for episode in opened:
        for frame in range(len(episode)):
            np.testing.assert_allclose(table.actions[row], found.chunk(episode.actions[frame:], 3)[0], atol=1e-6)
            assert table.keep[row] == (episode.keep[frame] and frame + np.ceil(ratio - 1e-9) <= len(episode))
            row += 1
    assert row == len(table.actions)
    np.testing.assert_array_equal(table.state, opened.table.state)


@pytest.mark.parametrize("chunk_hz", [20.0, 10.0, 15.0, 7.0, 40.0])
def test_statistics_are_those_of_the_first_actions_of_chunks(change, chunk_hz):
    data = loader.open_data(change(hz=20.0, chunk_hz=chunk_hz, changes=(2, -1, 1)))
    source = data.sources[0]
    assert all(window.action_mask[0] for window in source.train)
    first = np.stack([window.actions[0] for window in source.train]).astype(np.float64)
    found = source.statistics["actions"]
    np.testing.assert_allclose(found.mean, first.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.std, first.std(axis=0), atol=1e-5)
    np.testing.assert_allclose([found.min, found.max], [first.min(axis=0), first.max(axis=0)], atol=1e-6)
    states = np.stack([window.state for window in source.train])
    np.testing.assert_allclose(source.statistics["state"].mean, states.mean(axis=0), atol=1e-5)


def test_the_rate_of_the_data_set_itself_is_left_alone(change, config):
    assert mixture.resampling(change(hz=20.0, chunk_hz=20.0).data, 4) is None
    assert mixture.resampling(config.data, 4) is None


def test_what_changes_is_what_the_config_or_the_embodiment_says(change):
    found = mixture.resampling(change(hz=20.0, chunk_hz=10.0, changes=(1, -1, 1)).data, 4)
    assert (found.ratio, found.changes.tolist()) == (2.0, [True, False, True, False])
    found = mixture.resampling(change(embodiment="libero_spatial_no_noops", chunk_hz=10.0).data, 7)
    assert (found.ratio, found.changes.tolist()) == (2.0, [True] * 6 + [False])
    found = mixture.resampling(change(embodiment="libero_spatial_no_noops", chunk_hz=10.0, hz=5.0).data, 7)
    assert found.ratio == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(chunk_hz=10.0), r"config.data.chunk_hz = 10.0 needs the rate .* which nothing states: give it as hz"),
        (dict(chunk_hz=10.0, hz=20.0, changes=(3, -2)), r"config.data.changes = \(3, -2\) names 5 dimensions"),
    ],
)
def test_a_rate_that_cannot_be_made_is_refused(change, values, message):
    with pytest.raises(InputError, match=message):
        loader.open_data(change(**values))


def test_batches_hold_resampled_chunks(change):
    data = loader.open_data(change(hz=20.0, chunk_hz=10.0, changes=(2,)))
    batch = next(loader.batches(data, seed=0, batch_size=8))
    train, processor = data.sources[0].train, data.sources[0].processor
    for row, index in enumerate(data.order(0, 8)(0).windows.tolist()):
        number, frame = train.locate(index)
        steps = frame + np.arange(8)
        recorded = train.episodes[number].actions
        inside = (steps < len(recorded)).reshape(4, 2).all(axis=1)
        recorded = recorded[np.minimum(steps, len(recorded) - 1)].reshape(4, 2, 4)
        np.testing.assert_array_equal(batch.action_mask[row], inside)
        raw = processor.unnormalize(batch.actions[row], train[index].state)
        np.testing.assert_allclose(raw[inside, :2], recorded.sum(axis=1)[inside, :2], atol=1e-5)
        np.testing.assert_allclose(raw[inside, 2:], recorded[inside, 0, 2:], atol=1e-5)
