import dataclasses
import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import logging

from pizero_jax.config import DropoutConfig
from pizero_jax.data import inspection, loader, normalize, rlds
from pizero_jax.data.embodiments import table
from pizero_jax.data.episodes import Episodes
from pizero_jax.data.transforms import Processor
from pizero_jax.data.windows import Windows
from pizero_jax.errors import InputError
from tests.data.make_rlds_tiny import FOLDER
from tests.data.rewriting import robot


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def draw(data, count=3, **values):
    """The first batches of the training loader."""
    options = dict(seed=0, batch_size=8) | values
    return list(itertools.islice(loader.batches(data, **options), count))


def test_batches_have_the_shapes_of_the_policy(data):
    batch = draw(data, 1)[0]
    assert batch.observation.images.keys() == {"base_0_rgb", "left_wrist_0_rgb"}
    assert batch.observation.images["base_0_rgb"].shape == (8, 64, 64, 3)
    assert batch.observation.images["base_0_rgb"].dtype == np.uint8
    assert batch.observation.image_masks["base_0_rgb"].shape == (8,)
    assert batch.observation.state.shape == (8, 6)
    assert batch.observation.prompt.shape == batch.observation.prompt_mask.shape == (8, 24)
    assert batch.actions.shape == (8, 4, 7)
    assert batch.actions.dtype == np.float32
    assert batch.action_mask.shape == (8, 4)
    assert batch.action_dim_mask.tolist() == [[True] * 4 + [False] * 3] * 8


def test_rows_are_the_windows_that_the_order_names(data, source):
    batch = draw(data, 1)[0]
    for row, window in enumerate(data.order(0, 8)(0).windows):
        raw = source.processor.unnormalize(batch.actions[row], source.train[int(window)].state)
        np.testing.assert_allclose(raw, source.train[int(window)].actions, atol=1e-6)


def test_rows_of_a_step_are_named_by_file_record_and_frame(data, source):
    names = loader.row_names(data, seed=0, batch_size=8)
    windows = data.order(0, 8)(3).windows
    assert names(3, [5, 0]) == [source.train[int(windows[row])].source for row in (5, 0)]
    assert "record" in names(3, [5])[0]
    assert "frame" in names(3, [5])[0]


def test_starting_at_a_step_gives_the_batch_that_would_have_come(data):
    assert_equal(draw(data, 1, start=4)[0], draw(data, 5)[4])


def test_two_processes_make_the_global_batch_of_one(data):
    whole = draw(data)
    halves = [draw(data, process_index=index, process_count=2) for index in range(2)]
    for one, *two in zip(whole, *halves, strict=True):
        assert_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *two), one)


def test_threads_and_prefetching_change_nothing(data):
    for ours, theirs in zip(draw(data, threads=1, prefetch=1), draw(data, threads=4, prefetch=3), strict=True):
        assert_equal(ours, theirs)


def test_augmentation_changes_from_epoch_to_epoch(data, source):
    size = len(source.train)
    first, second = draw(data, 2, batch_size=size)
    places = [np.argsort(data.order(0, size)(step).windows) for step in range(2)]
    ours, theirs = (b.observation.images["base_0_rgb"][p] for b, p in zip((first, second), places, strict=True))
    assert all((a != b).any() for a, b in zip(ours, theirs, strict=True))


def with_history(data, source, config, history):
    """What a policy that sees several moments would train on; there is none yet, and `TrainConfig` refuses it."""
    values = dataclasses.replace(source.config, history=history)
    processor = Processor(config.policy, values, source.statistics)
    splits = {name: Windows(getattr(source, name).episodes, config.policy.chunk, history=history)
              for name in ("train", "val")}  # fmt: skip
    return data._replace(sources=(source._replace(config=values, processor=processor, **splits),))


def test_a_history_is_an_axis_of_pictures_and_states(data, source, config):
    whole, plain = with_history(data, source, config, 3), draw(data, 1, batch_size=24)[0]
    batch = draw(whole, 1, batch_size=24)[0]
    assert batch.observation.state.shape == (24, 3, 6)
    for camera, pictures in batch.observation.images.items():
        assert pictures.shape == (24, 3, 64, 64, 3)
        np.testing.assert_array_equal(pictures[:, -1], plain.observation.images[camera])
    np.testing.assert_array_equal(batch.observation.state[:, -1], plain.observation.state)
    np.testing.assert_array_equal(batch.actions, plain.actions)
    for row, index in enumerate(data.order(0, 24)(0).windows.tolist()):
        states, pictures = batch.observation.state[row], batch.observation.images["base_0_rgb"][row]
        if source.train.locate(index)[1] == 0:
            assert (states == states[:1]).all()
            assert (pictures == pictures[:1]).all()
        else:
            assert (states[-1] != states[-2]).any()
            assert (pictures[-1] != pictures[-2]).any()


def test_validation_has_the_history_too(data, source, config):
    (batch,) = loader.validation_batches(with_history(data, source, config, 2), batch_size=10, count=1)[""]
    assert batch.observation.images["base_0_rgb"].shape == (10, 2, 64, 64, 3)


WORDINGS = ("reach", "stretch out", "go there")


def reworded(data, source):
    """The data set with three instructions for each episode, the second of which has one only."""
    episodes = [dataclasses.replace(episode, instructions=WORDINGS[: 1 if episode.index == 1 else 3])
                for episode in source.train.episodes]  # fmt: skip
    train = Windows(Episodes.of(episodes), source.train.chunk)
    return data._replace(sources=(source._replace(train=train, val=train),))


def said(batch) -> list[str]:
    prompts = zip(batch.observation.prompt, batch.observation.prompt_mask, strict=True)
    return [bytes(i - 3 for i in ids[mask].tolist() if i > 2).decode().strip() for ids, mask in prompts]


def test_training_draws_all_wordings_alike_and_validation_takes_the_first(data, source):
    whole = reworded(data, source)
    texts, several = [], []
    for step, batch in enumerate(draw(whole, 60, batch_size=24)):
        texts += said(batch)
        several += [whole.sources[0].train.locate(i)[0] != 1 for i in whole.order(0, 24)(step).windows.tolist()]
    drawn = [text for text, many in zip(texts, several, strict=True) if many]
    assert {text for text, many in zip(texts, several, strict=True) if not many} == {"reach"}
    for wording in WORDINGS:
        assert abs(drawn.count(wording) / len(drawn) - 1 / 3) < 4 * np.sqrt(2 / 9 / len(drawn))  # four deviations
    held_out = loader.validation_batches(whole, batch_size=8, count=2)[""]
    assert {text for batch in held_out for text in said(batch)} == {"reach"}


def test_where_the_instruction_changes_each_row_has_that_of_its_frame(data, source):
    """By steps in turn, one text for both of two episodes, the others as they were."""
    episodes = [dataclasses.replace(episode, instructions=("reach", "grasp"), told=np.arange(len(episode)) % 2)
                if episode.index < 2 else episode for episode in source.train.episodes]  # fmt: skip
    train = Windows(Episodes.of(episodes), source.train.chunk)
    whole = data._replace(sources=(source._replace(train=train, val=train),))
    for step, batch in enumerate(draw(whole, 5, batch_size=24)):
        places = [train.locate(i) for i in whole.order(0, 24)(step).windows.tolist()]
        assert said(batch) == [
            ("reach", "grasp")[frame % 2] if number < 2 else episodes[number].instruction.replace("_", " ")
            for number, frame in places
        ]


def test_statistics_are_of_what_is_trained_on(change, monkeypatch):
    """Half of the episodes say nothing, and move a thousand times as far."""
    opened = rlds.open_split

    def half(config, split, cache=None):
        return Episodes.of([dataclasses.replace(e, instructions=("",), actions=1_000 * e.actions) if e.index % 2 else e
                            for e in opened(config, split)])  # fmt: skip

    plain = loader.open_data(change()).sources[0].train.episodes
    monkeypatch.setattr(rlds, "open_split", half)
    skipped = loader.open_data(change(unlabelled="skip")).sources[0].statistics["actions"]
    kept = loader.open_data(change(unlabelled="keep")).sources[0].statistics["actions"]
    actions = np.concatenate([episode.actions for episode in plain if episode.index % 2 == 0])
    np.testing.assert_allclose(skipped.std, actions.std(axis=0), rtol=1e-3)
    assert (kept.std > 100 * skipped.std).all()


def test_a_robot_without_a_recorded_state_is_read_looked_at_and_trained_on(change, config, tmp_path, monkeypatch):
    """As RoboTurk's, which is in most mixtures of Open X-Embodiment."""
    folder, name = robot(tmp_path / "libero", state=8, action=7), "libero_spatial_no_noops"
    without = dataclasses.replace(table.SPECIFICATIONS[name], state=(), derived={})
    monkeypatch.setattr(table, "SPECIFICATIONS", {name: without})
    config = change(path=str(folder), embodiment=name, cameras={"base_0_rgb": "base"})
    data = loader.open_data(config)
    assert data.sources[0].statistics["state"].mean.shape == (0,)
    (batch,) = draw(data, 1)
    np.testing.assert_array_equal(batch.observation.state, np.zeros((8, 6)))
    assert batch.actions.any()
    (found,) = inspection.inspect(config, data)
    assert found.facts["episodes"] == 4


def test_dropout_holds_in_training_only(change):
    data = loader.open_data(change(dropout=DropoutConfig(cameras=0.5, state=0.5, prompt=0.5)))
    masks = [list(batch.observation.image_masks.values()) for batch in draw(data, 3, batch_size=24)]
    assert 0 < np.mean(masks) < 1
    assert np.any(masks, axis=1).all()
    for batch in loader.validation_batches(data, batch_size=8, count=2)[""]:
        assert all(mask.all() for mask in batch.observation.image_masks.values())
        assert "" not in said(batch)
        assert batch.observation.state[:, :4].any(axis=1).all()


def test_a_batch_that_processes_cannot_share_is_refused(data):
    with pytest.raises(InputError, match=r"config.batch_size = 8 does not divide by 3 processes"):
        draw(data, process_count=3)


def test_an_error_in_a_thread_surfaces_in_the_loop(data, source, monkeypatch):
    def fail(*_, **__):
        raise InputError("a picture cannot be decoded")

    monkeypatch.setattr(source.processor, "observation", fail)
    with pytest.raises(InputError, match="a picture cannot be decoded"):
        draw(data)


def test_validation_counts_each_window_once(data, source):
    batches = loader.validation_batches(data, batch_size=8, count=5)[""]
    assert len(batches) == 2  # of ten windows
    counted = np.concatenate([batch.action_mask[:, 0] for batch in batches])  # each window's first action is real
    assert counted.tolist() == [True] * 10 + [False] * 6
    states = np.concatenate([batch.observation.state for batch in batches])[:10]
    everything = [source.processor.observation({}, window.state, "").state for window in source.val]
    np.testing.assert_allclose(sorted(states.tolist()), sorted(np.stack(everything).tolist()), atol=1e-6)


def test_validation_of_fewer_windows_than_rows_wraps(data):
    batch = loader.validation_batches(data, batch_size=32, count=1)[""][0]
    assert batch.action_mask[:, 0].tolist() == [True] * 10 + [False] * 22
    np.testing.assert_array_equal(batch.observation.state[:10], batch.observation.state[10:20])


def test_validation_stops_at_its_count_and_never_augments(data, source):
    batches = loader.validation_batches(data, batch_size=4, count=1)[""]
    assert len(batches) == 1
    window = source.val[int(np.random.default_rng((0, 0, 0)).permutation(10)[0])]
    seen = source.processor.observation(window.images, window.state, window.instruction)
    assert_equal(jax.tree.map(lambda leaf: leaf[0], batches[0].observation), seen)


def test_two_processes_validate_the_global_batches_of_one(data):
    options = dict(batch_size=8, count=2)
    whole = loader.validation_batches(data, **options)[""]
    halves = [loader.validation_batches(data, process_index=i, process_count=2, **options)[""] for i in range(2)]
    for one, *two in zip(whole, *halves, strict=True):
        assert_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *two), one)


def test_open_data_checks_widths(config):
    narrow = dataclasses.replace(config, policy=dataclasses.replace(config.policy, action_dim=2))
    with pytest.raises(InputError, match=r"config.policy.action_dim = 2"):
        loader.open_data(narrow)


def test_open_data_opens_both_splits(source):
    assert isinstance(source.train, Windows)
    assert (len(source.train), len(source.val)) == (24, 10)


def test_training_data_never_imports_tensorflow():
    """Though it is installed where data sets are written: it costs 8 s and 600 MB."""
    script = f"""
import itertools, sys
from configs import base
from pizero_jax import config
from pizero_jax.data import loader
c = base.get_config()
c.data.path = {str(FOLDER)!r}
c = config.build(config.TrainConfig, c)
data = loader.open_data(c)
drawn = list(itertools.islice(loader.batches(data, seed=0, batch_size=4), 3))
loader.validation_batches(data, batch_size=4, count=2)
assert len(drawn) == 3
print("tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=FOLDER.parents[2], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr


def test_batches_without_action_tokens_have_none(data):
    batch = draw(data, 1)[0]
    assert batch.action_tokens is batch.action_token_mask is data.action_tokens is None


@pytest.mark.parametrize("delta", [(), (2, -1, 1)])
def test_batches_carry_tokens_that_decode_to_their_actions(token_config, delta):
    data = loader.open_data(dataclasses.replace(token_config, data=dataclasses.replace(token_config.data, delta=delta)))
    batches = draw(data, 5)
    for batch in batches:
        assert batch.action_tokens.shape == batch.action_token_mask.shape == (8, 40)
        assert batch.action_tokens.dtype == np.int32
        assert not batch.action_tokens[~batch.action_token_mask].any()
        states = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)  # any: they are added and subtracted
        raw, ok = data.sources[0].processor.finish(batch.action_tokens, states)
        assert ok.all()
        error = (data.sources[0].processor.actions(raw, states) - batch.actions)[..., :4]
        assert np.sqrt((error**2).mean(axis=(1, 2))).max() <= 0.5 / 20  # of training chunks, past the end, too
    assert not batches[0].action_mask.all()


def test_training_the_action_tokenizer_is_repeated_exactly_and_skipped_where_one_was_saved(token_config, monkeypatch):
    saved = loader.open_data(token_config).action_tokens.to_dict()
    assert loader.open_data(token_config).action_tokens.to_dict() == saved
    monkeypatch.setattr(loader.action_tokens, "train", None)
    assert loader.open_data(token_config, saved).action_tokens.to_dict() == saved


@pytest.mark.parametrize("delta", [(), (2, -1, 1)])
@pytest.mark.parametrize(("count", "expected"), [(3, [0, 12, 23]), (24, range(24)), (10_000, range(24))])
def test_the_action_tokenizer_is_trained_on_evenly_spaced_windows(monkeypatch, token_config, count, expected, delta):
    token_config = dataclasses.replace(token_config, data=dataclasses.replace(token_config.data, delta=delta))
    seen = []
    monkeypatch.setattr(loader, "_TRAINING_CHUNKS", count)
    train = loader.action_tokens.train
    monkeypatch.setattr(loader.action_tokens, "train", lambda chunks, *args: train(seen.extend(chunks) or seen, *args))
    data = loader.open_data(token_config)
    assert len(seen) == len(expected)
    normalizer = normalize.Normalizer(data.sources[0].statistics["actions"], "quantile", "actions")
    for chunk, window in zip(seen, (data.sources[0].train[index] for index in expected), strict=True):
        from_state = window.actions - window.state * np.float32([1, 1, 0, 1]) if delta else window.actions
        np.testing.assert_array_equal(chunk, normalizer.normalize(from_state))


@pytest.mark.parametrize(("normalization", "warned"), [("quantile", False), ("zscore", True)])
def test_bins_that_clip_much_are_reported(token_config, monkeypatch, normalization, warned):
    levels = []
    monkeypatch.setattr(logging, "log", lambda level, message, *values: levels.append((level, message % values)))
    tokens = dataclasses.replace(token_config.data.action_tokens, kind="bins")
    values = dict(action_tokens=tokens, normalization=normalization, val_split="train")
    loader.open_data(dataclasses.replace(token_config, data=dataclasses.replace(token_config.data, **values)))
    ((level, message),) = [entry for entry in levels if "of the held-out numbers" in entry[1]]
    assert (level == logging.WARNING) == warned, message
