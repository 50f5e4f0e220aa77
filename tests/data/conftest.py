import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from configs import base
from pizero_jax import config as configs
from pizero_jax.data import loader

RLDS_TINY = pathlib.Path(__file__).parent / "rlds_tiny"


@pytest.fixture
def config() -> configs.TrainConfig:
    c = base.get_config()
    c.data.path = str(RLDS_TINY)
    c.policy.image_size = 64
    c.policy.vision.patch = 16
    c.policy.chunk = 4
    c.policy.prompt_length = 24
    c.policy.state_dim = 6
    c.policy.action_dim = 7
    c.data.index_dir = ""
    c.batch_size = 8
    return configs.build(configs.TrainConfig, c)


@pytest.fixture
def change(config):
    """`config` with other values in its data group."""
    return lambda **values: dataclasses.replace(config, data=dataclasses.replace(config.data, **values))


@pytest.fixture
def data(config) -> loader.Data:
    return loader.open_data(config)


@pytest.fixture
def source(data) -> loader.Source:
    """The only data set."""
    return data.sources[0]


@pytest.fixture
def token_config(config) -> configs.TrainConfig:
    """The same data for a policy that reads actions as FAST's tokens, sixteen numbers a chunk."""
    fields = {field.name: getattr(config.policy, field.name) for field in dataclasses.fields(config.policy)}
    fields |= dict(name="pi05_insulated", token_length=40, prompt_length=80)
    tokens = configs.ActionTokensConfig(kind="fast", path="", vocabulary=400, scale=20.0, skip=0)
    values = dict(prompt="pi0_fast", normalization="quantile", action_tokens=tokens)
    return dataclasses.replace(
        config, policy=configs.InsulatedConfig(**fields), data=dataclasses.replace(config.data, **values)
    )


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """A copy of the data set to be broken."""
    return pathlib.Path(shutil.copytree(RLDS_TINY, tmp_path / "rlds_tiny"))


@pytest.fixture(scope="session")
def lerobot_python(tmp_path_factory) -> pathlib.Path:
    """Python of an environment with lerobot."""
    folder = tmp_path_factory.mktemp("environment")
    uv = shutil.which("uv") or str(pathlib.Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--python", os.environ.get("PIZERO_NIGHTLY_PYTHON", "3.12"), folder], check=True)
    packages = ["lerobot[dataset]==0.6.1", "torch==2.11.0"]
    subprocess.run([uv, "pip", "install", "--python", folder / "bin" / "python", *packages], check=True)
    return folder / "bin" / "python"
