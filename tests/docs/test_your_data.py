"""The page docs/your_data.md, run from top to bottom as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your_data.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def prepare(folder: Path) -> dict[str, str]:
    """Makes `folder` stand for the repository's root; the environment of the commands."""
    (folder / "configs").mkdir()  # holds what the page adds; the repository's own configs are found through PYTHONPATH
    (folder / "tests/data").mkdir(parents=True)
    (folder / "tests/data/rlds_tiny").symlink_to(ROOT / "tests/data/rlds_tiny")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}


def perform(language: str, text: str, folder: Path, environment: dict[str, str]) -> str:
    """What a block prints; a Python block is the file that its first line names."""
    if language == "python":
        (folder / re.match(r"# (\S+\.py)\n", text)[1]).write_text(text)
        return ""
    result = subprocess.run(
        ["bash", "-e", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, f"{text}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path):
    environment = prepare(tmp_path)
    printed = [perform(language, text, tmp_path, environment) for language, text in BLOCKS]
    _, looked, relative, checked, flipped, acted = [text for text in printed if text]
    assert "cameras base and wrist show the same pictures" in looked
    assert "changes of the state already" not in looked
    assert "changes of the state already" in relative
    assert (tmp_path / "runs/inspect_data/index.html").exists()
    assert "4 episodes, 120 steps of data/my_robot/1.0.0 (val)" in checked
    assert "sign flipped" not in checked
    assert "warning: action[6]: is its sign flipped?" in flipped
    assert acted.startswith("(8, 7)")
    assert (tmp_path / "runs/my_robot/check_policy/check_policy.json").exists()


def test_every_file_that_the_page_writes_names_itself():
    assert all(re.match(r"# \S+\.py\n", text) for language, text in BLOCKS if language == "python")
