import subprocess
import sys

import pytest

COMMAND = """
from absl import flags
from ml_collections import config_flags
import launch
from pizero_jax.types import InputError
CONFIG = config_flags.DEFINE_config_file("config")
flags.DEFINE_bool("json", False, "")

def main():
    c = CONFIG.value
    if c.steps == 13:
        raise InputError("config.steps = 13; choose another number")
    if c.steps == 14:
        raise RuntimeError("our own fault")
    print(c.env.tasks, c.optimizer.peak, c.steps, c.policy.remat)

launch.run(main)
"""
BASE = "--config=configs/base.py"


def command(*arguments):
    return subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            [BASE, "--config.optimizer.peek=3"],
            "config.optimizer.peek is not a key; did you mean config.optimizer.peak?",
        ),
        ([BASE, "--config.peak=3"], "config.peak is not a key; did you mean config.optimizer.peak?"),
        ([BASE, "--config.steps.x=3"], "config.steps.x is not a key; did you mean config.steps?"),
        ([BASE, "--config.qqqqq=3"], "config.qqqqq is not a key; configs/base.py has every key"),
        ([BASE, "--config.steps=abc"], "flag --config.steps=abc: invalid literal for int() with base 10: 'abc'"),
        ([BASE, "--config.optimizer=3"], "flag --config.optimizer=3: Failed to parse '3' as a ConfigDict"),
        (["--config=configs/none.py"], "--config=configs/none.py is not a file"),
        (["--config=configs/none.py", "--config.steps=1"], "--config=configs/none.py is not a file"),
        (["--config", "configs/none.py"], "--config=configs/none.py is not a file"),
        ([], "--config is missing"),
        ([BASE, "--jsn"], "Unknown command line flag 'jsn'. Did you mean: json ?"),
        ([BASE, "steps=3"], "'steps=3' is not a flag"),
        ([BASE, "--config.steps=13"], "config.steps = 13; choose another number"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(arguments, line):
    result = command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {line}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_our_own_faults_keep_their_traceback():
    result = command(BASE, "--config.steps=14")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: our own fault" in result.stderr


def test_overrides_reach_the_config_tuples_floats_and_booleans_too():
    result = command(
        BASE, "--config.env.tasks=('reach-v3',)", "--config.optimizer.peak=1e-3", "--noconfig.policy.remat"
    )
    assert result.stdout == "('reach-v3',) 0.001 30000 False\n", result.stderr
    assert command("--config", "configs/base.py", "--config.env.tasks=('a', 'b')").stdout.startswith("('a', 'b') ")
