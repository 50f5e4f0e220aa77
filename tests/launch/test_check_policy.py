"""The command as users run it, on a policy that was trained for two steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RLDS_TINY = Path(__file__).parents[1] / "data" / "rlds_tiny"
SMALL = [
    "--config=configs/pi0_metaworld.py",
    f"--config.data.path={RLDS_TINY}",
    "--config.steps=2",
    "--config.batch_size=4",
    "--config.wandb.mode=disabled",
    "--config.policy.chunk=4",
    "--config.policy.unroll=1",
    "--config.policy.vision.width=16",
    "--config.policy.vision.mlp=16",
    "--config.policy.vision.heads=2",
    "--config.policy.attention.depth=1",
    "--config.policy.attention.heads=2",
    "--config.policy.attention.head_dim=8",
    "--config.policy.language.width=16",
    "--config.policy.language.mlp=16",
    "--config.policy.expert.width=16",
    "--config.policy.expert.mlp=16",
    "--config.env.name=",  # as for a real robot; `execute` stays 8, more than the chunk
]
pytestmark = pytest.mark.slow


def run(command, *arguments):
    return subprocess.run([sys.executable, "-m", command, *arguments], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    trained = run("launch.train", *SMALL, f"--workdir={folder}")
    assert trained.returncode == 0, trained.stderr
    return folder


def test_it_prints_a_table_and_writes_numbers_and_a_figure_per_episode(workdir):
    (workdir / "check_policy").mkdir()
    (workdir / "check_policy/episode_39.png").touch()  # of other data
    printed = run("launch.check_policy", f"--checkpoint={workdir}")
    assert printed.returncode == 0, printed.stderr
    assert "2 episodes, 10 steps" in printed.stdout
    assert "a look every 4 steps" in printed.stdout  # the chunk limits it
    assert "| action[3] |" in printed.stdout
    assert {file.name for file in (workdir / "check_policy").iterdir()} == {
        "check_policy.json", "episode_0.png", "episode_1.png",
    }  # fmt: skip


def test_it_prints_the_file_that_it_writes_as_json(workdir, tmp_path):
    flags = ["--split=train", "--episodes=3", f"--output={tmp_path}", "--json"]
    printed = run("launch.check_policy", f"--checkpoint={workdir}", *flags)
    results = json.loads(printed.stdout)
    assert results == json.loads((tmp_path / "check_policy.json").read_text())
    assert results["settings"] == {"data": str(RLDS_TINY), "split": "train", "episodes": 3, "execute": 4}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=nowhere"], "config.data.path = 'nowhere' has neither dataset_info.json"),
        (["--split=test"], f"config.data.path = '{RLDS_TINY}' has no split 'test'; it has train, val"),
    ],
)
def test_data_that_is_not_there_is_one_clear_line(workdir, flags, message):
    result = run("launch.check_policy", f"--checkpoint={workdir}", *flags)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {message}")
    assert last.endswith("--data and --split choose what is replayed.")
    assert "Traceback" not in result.stderr
