import json
import subprocess
import sys
from types import SimpleNamespace

# One process imports everything once and forks for every command line: the imports are most of the time.
COMMANDS = """
import json, os, sys, tempfile
from absl import flags
from ml_collections import config_flags
import launch
from pizero_jax.errors import InputError
CONFIG = config_flags.DEFINE_config_file("config")
flags.DEFINE_bool("json", False, "")

def main():
    c = CONFIG.value
    if c.steps == 13:
        raise InputError("config.steps = 13; choose another number")
    if c.steps == 14:
        raise RuntimeError("our own fault")
    print(c.env.tasks, c.optimizer.peak, c.steps, c.loss.openpi_padding)

for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            sys.argv[1:] = arguments
            launch.run(main)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        print(json.dumps(dict(returncode=status, stdout=out.read(), stderr=err.read())), flush=True)
"""
BASE = "--config=configs/base.py"


def commands(*command_lines):
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=json.dumps(command_lines), capture_output=True, text=True, timeout=300
    )
    return [SimpleNamespace(**json.loads(line)) for line in result.stdout.splitlines()]


MISTAKES = [
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
]


def test_a_mistake_is_one_clear_line_and_status_2():
    results = commands(*(arguments for arguments, _ in MISTAKES))
    for (arguments, line), result in zip(MISTAKES, results, strict=True):
        assert result.returncode == 2, arguments
        assert result.stderr.startswith(f"error: {line}"), arguments
        assert result.stderr.count("\n") == 1, arguments
        assert result.stdout == "", arguments


def test_help_tells_the_flags_and_is_no_failure():
    (result,) = commands(["--help"])
    assert result.returncode == 0
    assert "--[no]json" in result.stdout


def test_our_own_faults_keep_their_traceback():
    (result,) = commands([BASE, "--config.steps=14"])
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: our own fault" in result.stderr


def test_overrides_reach_the_config_tuples_floats_and_booleans_too():
    flags = ["--config.env.tasks=('reach-v3',)", "--config.optimizer.peak=1e-3", "--config.loss.openpi_padding"]
    one, two = commands([BASE, *flags], ["--config", "configs/base.py", "--config.env.tasks=('a', 'b')"])
    assert one.stdout == "('reach-v3',) 0.001 30000 True\n", one.stderr
    assert two.stdout.startswith("('a', 'b') "), two.stderr
