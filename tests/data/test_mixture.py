"""Mixtures of real files: who is in, in which share, with whose statistics and cameras."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from pizero_jax import config as configs
from pizero_jax.config import TrainConfig
from pizero_jax.data import loader, mixture
from pizero_jax.data.embodiments.mixtures import MIXTURES
from pizero_jax.errors import InputError
from pizero_jax.train.loop import averages
from tests.data.make_rlds_tiny import FOLDER
from tests.data.rewriting import robot

LIBERO = MIXTURES["libero_4_task_suites_no_noops"]


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """The same episodes of a robot with two numbers of state and three of action, in other units."""
    return robot(tmp_path_factory.mktemp("other") / "1.0.0", state=2, action=3, scale=5.0, shift=2.0)


@pytest.fixture
def mixed(other):
    """A function: the config of a mixture of both, with other values of the sets, or of the data group."""

    def make(one=None, two=None, **values) -> TrainConfig:
        c = base.get_config()
        c.policy.image_size, c.policy.vision.patch, c.policy.prompt_length = 64, 16, 24
        c.policy.chunk, c.policy.state_dim, c.policy.action_dim = 4, 8, 7
        c.batch_size = 8
        c.data.index_dir = ""
        c.data.sets = {"one": {"path": str(FOLDER)} | (one or {}), "two": {"path": str(other)} | (two or {})}
        c.data.update(values)
        return configs.build(TrainConfig, c)

    return make


def draw(data, count, **values):
    return list(itertools.islice(loader.batches(data, **(dict(seed=0, batch_size=8) | values)), count))


def test_one_data_set_is_a_mixture_without_a_name(config):
    assert mixture.members(config.data) == {"": mixture.Member(config.data, 1.0)}


def test_a_set_is_the_data_group_with_its_own_values(mixed):
    config = mixed(two=dict(delta=[1, -2], hz=5, weight=3, cameras={"base_0_rgb": "wrist_image"})).data
    one, two = mixture.members(config).values()
    assert (one.weight, two.weight) == (1.0, 3.0)
    assert one.config == dataclasses.replace(config, sets={}, path=str(FOLDER))
    expected = dict(delta=(1, -2), hz=5.0, cameras={"base_0_rgb": "wrist_image"})
    assert two.config == dataclasses.replace(config, sets={}, path=config.sets["two"]["path"], **expected)


def test_a_config_of_a_mixture_survives_its_file(mixed):
    config = mixed(two=dict(delta=(1, -2), cameras=ConfigDict(dict(base_0_rgb="wrist_image"))))
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    assert configs.build(TrainConfig, saved) == config
    assert configs.differences(saved, dataclasses.asdict(config)) == []


def test_members_of_a_named_mixture_are_its_data_sets_in_folders_of_their_names(mixed, tmp_path):
    for version in ("1.0.0", "0.9.1", "1.10.0"):
        (tmp_path / LIBERO[0][0] / version).mkdir(parents=True)
        (tmp_path / LIBERO[0][0] / version / "dataset_info.json").write_text("{}")
    name, cameras = "libero_4_task_suites_no_noops", {"base_0_rgb": "base", "left_wrist_0_rgb": "wrist"}
    config = dataclasses.replace(mixed().data, sets={}, path=str(tmp_path), mixture=name, cameras=cameras)
    found = mixture.members(config)
    assert [(name, member.weight) for name, member in found.items()] == list(LIBERO)
    assert [member.config.embodiment for member in found.values()] == [name for name, _ in LIBERO]
    assert found[LIBERO[0][0]].config.path == str(tmp_path / LIBERO[0][0] / "1.10.0")
    assert found[LIBERO[1][0]].config.path == str(tmp_path / LIBERO[1][0])


def test_sets_change_members_of_a_named_mixture_and_add_to_them(mixed):
    sets = {"bridge_dataset": {"weight": 7.0}, "mine": {"path": "/mine"}, "kuka": {"path": "/elsewhere"}}
    cameras = {"base_0_rgb": "base", "left_wrist_0_rgb": "wrist"}
    config = dataclasses.replace(mixed().data, sets=sets, path="/all", mixture="rtx", cameras=cameras)
    found = mixture.members(config)
    assert list(found) == [*(name for name, _ in MIXTURES["rtx"]), "mine"]
    assert found["bridge_dataset"].weight == 7.0
    assert found["taco_play"].weight == 2.0
    assert found["kuka"].config.path == "/elsewhere"
    assert found["jaco_play"].config.path == "/all/jaco_play"
    assert (found["mine"].config.path, found["mine"].config.embodiment) == ("/mine", "")


def test_an_embodiment_goes_without_cameras_that_it_lacks(mixed):
    cameras = {"base_0_rgb": "base", "left_wrist_0_rgb": "wrist"}
    config = dataclasses.replace(mixed().data, sets={}, mixture="rtx", cameras=cameras)
    found = {name: set(member.config.cameras.values()) for name, member in mixture.members(config).items()}
    assert found["fractal20220817_data"] == {"base"}
    assert found["viola"] == {"base", "wrist"}
    wrist = dataclasses.replace(config, cameras={"left_wrist_0_rgb": "wrist"})
    with pytest.raises(InputError, match=r"data set 'fractal20220817_data': .* the roles wrist; it has base"):
        mixture.members(wrist)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("given", [1 / 4, 3 / 4]),
        ("size", [1 * 100 / (1 * 100 + 3 * 900), 2_700 / 2_800]),
        ("power", [1 / (1 + 3 * 9**0.43), 3 * 9**0.43 / (1 + 3 * 9**0.43)]),  # 0.115 and 0.885
    ],
)
def test_shares_are_weights_times_a_power_of_the_frames(weighting, expected):
    np.testing.assert_allclose(mixture.shares([1.0, 3.0], [100, 900], weighting), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("one", "values", "message"),
    [
        ({}, dict(mixture="oxe_magic_sop"), r"config.data.mixture = 'oxe_magic_sop'; did you mean 'oxe_magic_soup'"),
        (dict(wieght=2.0), {}, r"config.data.sets.one.wieght is not a key of a data set; did you mean weight"),
        (dict(history=2), {}, r"config.data.sets.one.history is not a key of a data set"),
        (dict(delta=2), {}, r"config.data.sets.one.delta = 2 should be a tuple of int"),
        (dict(cameras="image"), {}, r"config.data.sets.one.cameras = 'image' should be a group"),
        *(
            (dict(weight=weight), {}, rf"config.data.sets.one.weight = {weight} should be positive")
            for weight in (0.0, -1.0, float("inf"), float("nan"))
        ),
        (dict(hz=-1.0), {}, r"data set 'one': config.data.hz = -1.0 should be 0 or more"),
        (dict(delta=(0,)), {}, r"data set 'one': config.data.delta"),
        (dict(embodiment="bridge_datset"), {}, r"data set 'one': .*did you mean 'bridge_dataset'"),
        (dict(train_split="tran"), {}, r"data set 'one': .* has no split 'tran'; it has train, val"),
        (dict(val_split="test"), {}, r"data set 'one': .* has no split 'test'"),
        (dict(path="/nowhere"), {}, r"data set 'one': config.data.path = '/nowhere' has neither dataset_info.json"),
        (dict(delta=(5,)), {}, r"data set 'one': config.data.delta = \(5,\) names 5 dimensions"),
        ({}, dict(cameras={"front": "image"}), r"data set 'one': config.data.cameras.front is not in config.policy"),
        (dict(state="stat"), {}, r"data set 'one': config.data.state = 'stat' .*did you mean 'state'"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_data_set(mixed, one, values, message):
    with pytest.raises(InputError, match=message):
        loader.open_data(mixed(one, **values))


@pytest.mark.parametrize("name", ["", "a/b"])
def test_a_data_set_needs_a_name_without_slashes(config, name):
    with pytest.raises(InputError, match="a name without slashes"):
        dataclasses.replace(config.data, sets={name: {}})


def test_each_data_set_has_the_statistics_and_the_chain_that_it_has_alone(mixed):
    config = mixed()
    data = loader.open_data(config)
    for name, source in zip(("one", "two"), data.sources, strict=True):
        member = mixture.members(config.data)[name].config
        alone = loader.open_data(dataclasses.replace(config, data=member)).sources[0]
        jax.tree.map(
            np.testing.assert_array_equal, vars(source.statistics["actions"]), vars(alone.statistics["actions"])
        )
        jax.tree.map(np.testing.assert_array_equal, vars(source.statistics["state"]), vars(alone.statistics["state"]))
    one, two = (source.statistics["actions"] for source in data.sources)
    np.testing.assert_allclose(two.mean, 5 * one.mean[:3] + 2, rtol=1e-5)
    assert [source.processor.action_dim_mask.sum() for source in data.sources] == [4, 3]


def test_rows_are_those_of_their_data_set_in_the_shares_of_the_mixture(mixed):
    """Both data sets have the same episodes, in other units: normalised they agree where both have a dimension."""
    data = loader.open_data(mixed(one=dict(weight=3.0)))
    batches = draw(data, 40, batch_size=24)
    sets = np.concatenate([batch.dataset for batch in batches])
    assert sets.dtype == np.int32
    assert abs(np.mean(sets == 0) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(sets))  # deviations of independent draws
    for step, batch in enumerate(batches[:3]):
        rows = data.order(0, 24)(step)
        np.testing.assert_array_equal(rows.sets, batch.dataset)
        for row, (number, index) in enumerate(zip(*rows, strict=True)):
            source = data.sources[number]
            window = source.train[int(index)]
            raw = source.processor.unnormalize(batch.actions[row], window.state)
            np.testing.assert_allclose(raw, window.actions, atol=1e-5)
            assert batch.action_dim_mask[row].sum() == (4, 3)[number]
            assert not batch.observation.state[row, (4, 2)[number] :].any()


def test_a_batch_has_all_cameras_and_masks_those_that_a_data_set_lacks(mixed):
    config = mixed(one=dict(cameras={"base_0_rgb": "image"}), two=dict(cameras={"left_wrist_0_rgb": "wrist_image"}))
    batch = draw(loader.open_data(config), 1, batch_size=24)[0]
    seen = batch.observation
    assert set(seen.images) == set(seen.image_masks) == {"base_0_rgb", "left_wrist_0_rgb"}
    for camera, number in (("base_0_rgb", 0), ("left_wrist_0_rgb", 1)):
        here = batch.dataset == number
        np.testing.assert_array_equal(seen.image_masks[camera], here)
        assert not seen.images[camera][~here].any()
        assert seen.images[camera][here].reshape(here.sum(), -1).any(axis=1).all()


def test_validation_is_by_data_set_and_one_may_have_none(mixed):
    data = loader.open_data(mixed())
    found = loader.validation_batches(data, batch_size=4, count=2)
    assert {name: len(batches) for name, batches in found.items()} == {"one": 2, "two": 2}
    assert [set(batch.dataset.tolist()) for batches in found.values() for batch in batches] == [{0}, {0}, {1}, {1}]
    only = loader.open_data(mixed(one=dict(val_split="")))
    assert list(loader.validation_batches(only, batch_size=4, count=2)) == ["two"]


def test_no_batches_of_validation_are_no_validation(mixed):
    assert loader.validation_batches(loader.open_data(mixed()), batch_size=4, count=0) == {}


def test_the_loss_of_a_data_set_is_over_its_rows_that_came_up():
    """Sums and weights of three data sets over two steps, of which the last never came up."""
    sums = [(np.array([2.0, 6.0, 0.0]), np.array([1.0, 2.0, 0.0])), (np.array([4.0, 0.0, 0.0]), np.array([2.0, 0, 0]))]
    sets = [{"": x, "flow": x} for x in sums]
    recent = [{"loss": np.float32(2 + i), "skipped": False, "by_data_set": x} for i, x in enumerate(sets)]
    assert averages(recent, ("a", "b", "c")) == {
        "loss": 2.5, "loss/a": 2.0, "loss/b": 3.0, "loss_flow/a": 2.0, "loss_flow/b": 3.0,
    }  # fmt: skip


def test_action_tokens_are_trained_on_the_normalised_chunks_of_all(mixed, token_config):
    values = {name: getattr(token_config.data, name) for name in ("prompt", "normalization", "action_tokens")}
    policy = dataclasses.replace(token_config.policy, state_dim=8)
    config = mixed()
    config = dataclasses.replace(config, policy=policy, data=dataclasses.replace(config.data, **values))
    data = loader.open_data(config)
    for batch in draw(data, 2):
        for row, number in enumerate(batch.dataset.tolist()):
            chunk, ok = data.sources[number].processor.decode(batch.action_tokens[row : row + 1])
            assert ok.all()
            width = (4, 3)[number]
            assert np.sqrt(((chunk - batch.actions[row])[0, :, :width] ** 2).mean()) <= 0.5 / 20  # half a step


def test_a_mixture_by_name_comes_out_of_the_loader(mixed, tmp_path):
    """LIBERO's four suites in the folders that TFDS makes, each in its own version."""
    for number, (name, _) in enumerate(LIBERO):
        robot(tmp_path / name / f"1.0.{number}", state=8, action=7)
    cameras = {"base_0_rgb": "base", "left_wrist_0_rgb": "wrist"}
    config = mixed()
    values = dict(sets={}, path=str(tmp_path), mixture="libero_4_task_suites_no_noops", cameras=cameras)
    data = loader.open_data(dataclasses.replace(config, data=dataclasses.replace(config.data, **values)))
    batches = draw(data, 8, batch_size=16)
    sets = np.concatenate([batch.dataset for batch in batches])
    assert set(sets.tolist()) == {0, 1, 2, 3}
    assert all(batch.action_dim_mask.all() for batch in batches)
