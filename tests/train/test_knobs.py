import pytest

from configs import pi0
from pizero_jax import config as configs
from pizero_jax.config import MeshConfig
from pizero_jax.errors import InputError
from pizero_jax.train import knobs


@pytest.fixture
def config():
    return configs.build(configs.TrainConfig, pi0.get_config())


def test_only_knobs_that_can_be_turned_are_offered(config):
    flags = [change.flags for change in knobs.changes(config, 8)]
    assert flags == [  # remat is full already, and nothing is frozen
        "--config.mesh.fsdp=2",
        "--config.mesh.fsdp=4",
        "--config.mesh.fsdp=8",
        "--config.optimizer.ema_dtype=bfloat16",
        "--config.accumulation=2",
        "--config.batch_size=16",
    ]


def test_the_first_knob_that_suffices_is_turned(config):
    def peak(c):
        return 80 // c.mesh.fsdp

    (step,) = knobs.remedy(config, 8, peak, limit=30)
    assert step.change.flags == "--config.mesh.fsdp=4"
    assert (step.peak, step.change.config.mesh) == (20, MeshConfig(-1, 4, 1))


def test_knobs_add_up_where_none_suffices(config):
    def peak(c):
        return 64 // c.mesh.fsdp // c.accumulation

    steps = knobs.remedy(config, 8, peak, limit=3)
    assert [step.change.flags for step in steps] == [
        "--config.mesh.fsdp=8",
        "--config.accumulation=2",
        "--config.accumulation=4",
    ]


def test_what_is_learnt_is_changed_last(config):
    def peak(c):
        return c.batch_size + 8 // c.accumulation  # half a batch has the greatest effect, two halves nearly none

    steps = knobs.remedy(config, 8, peak, limit=20)
    assert [step.change.flags for step in steps] == ["--config.accumulation=2", "--config.batch_size=16"]


def test_there_is_no_remedy_where_no_knob_has_an_effect(config):
    assert knobs.remedy(config, 8, lambda c: 100, limit=99) is None


def test_a_mesh_that_cannot_be_is_not_offered(config):
    def peak(c):
        if c.mesh.fsdp == 8:
            raise InputError("no")
        return 1

    assert "--config.mesh.fsdp=8" not in [effect.change.flags for effect in knobs.effects(config, 8, peak)]
