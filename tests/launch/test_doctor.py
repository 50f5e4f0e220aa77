import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = [f"--config={ROOT}/configs/pi0_metaworld.py", "--config.env.name="]


def test_a_sound_machine_passes_and_a_page_says_what_it_is(forked, tmp_path):
    data = f"--config.data.path={ROOT}/tests/data/rlds_tiny"
    lines = [[], [*CONFIG, data, f"--workdir={tmp_path / 'run'}", "--json"]]
    plain, whole = forked("launch.doctor", lines, devices=4, config_needed=False)
    assert (plain.returncode, whole.returncode) == (0, 0), (plain.stderr, whole.stdout)
    assert plain.stdout.endswith("Nothing is wrong.\n")
    found = json.loads(whole.stdout)
    assert found["devices"]["devices"].startswith("4 x ")
    assert found["collectives"]["sum over all devices"] == "right"
    assert found["workdir"]["path"].endswith(f"to be made in {tmp_path}")
    assert found["problems"] == []
    assert not list(tmp_path.iterdir())


MISTAKES = [
    (["--config.data.path=/nowhere"], "config.data.path = '/nowhere'"),
    ([f"--config.data.path={ROOT}", "--config.mesh.fsdp=3"], "config.mesh asks for"),
    ([f"--config.data.path={ROOT}", "--config.batch_size=5"], "config.batch_size = 5"),
    ([f"--config.data.path={ROOT}", "--workdir=/proc/run"], "/proc cannot be written to"),
]


def test_what_is_wrong_comes_last(forked):
    results = forked("launch.doctor", [[*CONFIG, *flags] for flags, _ in MISTAKES], devices=2)
    for (_, words), result in zip(MISTAKES, results, strict=True):
        assert result.returncode == 1, result.stderr
        assert "WRONG" in result.stdout
        assert words in result.stdout[result.stdout.index("WRONG") :]


@pytest.mark.slow
def test_processes_are_examined_together(tmp_path):
    local = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=2", "--"]
    line = [*local, sys.executable, "-m", "launch.doctor", f"--workdir={tmp_path}"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "processes: 2" in result.stdout
    assert "4 x cpu, 2 of them" in result.stdout
