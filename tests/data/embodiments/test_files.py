"""Real files of a data set that is read by its entry, through the whole loader."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
from simplejpeg import encode_jpeg

from configs import pi0_metaworld
from pizero_jax import config as configs
from pizero_jax.config import TrainConfig
from pizero_jax.data import loader, rlds
from pizero_jax.errors import InputError

LENGTHS = (6, 4)


def config(path, **data) -> TrainConfig:
    c = pi0_metaworld.get_config()
    c.data.path, c.data.embodiment = str(path), "libero_spatial_no_noops"
    c.data.cameras = dict(image="base", wrist_image="wrist")
    c.data.update(data)
    c.policy.state_dim, c.policy.action_dim, c.policy.chunk, c.env.execute = 8, 8, 4, 4
    return configs.build(TrainConfig, c)


@pytest.fixture(scope="module")
def libero(tmp_path_factory):
    """LIBERO's fields with recorded numbers that are easy to follow: actions are all 0.1 but for the gripper, +-1."""
    if not find_spec("tensorflow"):  # importing it here may crash: another process writes
        pytest.skip("writing needs the extra tf")
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    folder = tmp_path_factory.mktemp("libero") / "libero_spatial_no_noops" / "1.0.0"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(write, str(folder)).result()
    return folder


def episode(seed: int, steps: int):
    from pizero_jax.data.rlds_write import Episode

    picture = encode_jpeg(np.full((64, 64, 3), 30 * seed, np.uint8))
    state = np.zeros((steps, 8), np.float32)
    state[:, 0] = np.arange(steps)
    actions = np.full((steps, 7), 0.1, np.float32)
    actions[:, 6] = np.where(np.arange(steps) < 2, -1, 1)  # open, then closed
    pictures = {"image": [picture] * steps, "wrist_image": [picture] * steps}
    return Episode(pictures, state, actions, np.zeros(steps, np.float32), f"put {seed}", "task", seed, True)


def write(folder: str) -> None:
    from pizero_jax.data import rlds_write

    splits = {name: [episode(i, steps) for i, steps in enumerate(LENGTHS)] for name in ("train", "val")}
    rlds_write.write(folder, "libero_spatial_no_noops", splits)


def test_episodes_are_canonical(libero):
    episodes = rlds.open_split(config(libero).data, "train")
    assert episodes.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(episodes[0].actions[:, 6], [1, 1, 0, 0, 0, 0])  # 1 is open
    np.testing.assert_allclose(episodes[0].actions[:, :6], 0.1)
    np.testing.assert_array_equal(episodes[0].state[:, 0], np.arange(6))
    assert episodes[1].instruction == "put 1"
    assert sorted(episodes[0].images) == ["image", "wrist_image"]


def test_batches_come_out_of_the_loader(libero):
    data = loader.open_data(config(libero))
    batch = next(loader.batches(data, seed=0, batch_size=4))
    assert batch.actions.shape == (4, 4, 8)
    assert batch.action_dim_mask[0].tolist() == [True] * 7 + [False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embodiment": "libero_spatal_no_noops"}, "did you mean 'libero_spatial_no_noops'"),
        ({"embodiment": "bridge_dataset"}, "should have 'observation/"),
        ({"cameras": dict(image="front", wrist_image="wrist")}, r"'front' is no camera of config.data.embodiment"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(libero, changes, message):
    data = dataclasses.replace(config(libero).data, **changes)
    with pytest.raises(InputError, match=message):
        rlds.open_split(data, "train")
