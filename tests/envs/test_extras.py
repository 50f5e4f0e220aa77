"""What an environment says where its extra is missing, and, nightly, whether all extras of simulators work together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["aloha", "pusht"])
def test_a_missing_simulator_names_the_extra(monkeypatch, name):
    monkeypatch.setattr(envs, "check_rendering", lambda config: None)
    for missing in ("dm_control", "gym_pusht.envs.pusht", "mujoco"):
        monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"pizero_jax.envs.{name}", raising=False)
    with pytest.raises(InputError, match=rf"pip install 'pizero_jax\[{name}\]'"):
        envs.make(EnvConfig(name, ("any",), 64, max_steps=10, execute=1), "any")


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_all_simulators_work_in_one_environment(tmp_path):
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "venv/bin/python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    packages = ["--editable", ".[metaworld,aloha,pusht]", "pytest", "beartype"]
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], cwd=ROOT, check=True)
    tests = [f"tests/envs/test_{name}.py" for name in ("metaworld", "aloha", "pusht")]
    ran = subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
    listed = subprocess.run([uv, "pip", "list", "--python", python], capture_output=True, text=True, check=True).stdout
    assert "opencv-python-headless" in listed
    assert "opencv-python " not in listed
