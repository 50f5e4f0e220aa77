"""The notebooks about runs, executed on two that have just been trained."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {"checkpoint": 6, "compare": 3, "tour": 5}  # and how many figures each has
SCREEN = 30  # lines

TRAIN = """
import sys
from pathlib import Path
from configs import pi0_metaworld
from launch.train import train
from pizero_jax.config import TrainConfig, build

for seed, workdir in enumerate(sys.argv[1:]):
    c = pi0_metaworld.get_config()
    c.update(dict(seed=seed, steps=4, batch_size=4))
    c.policy.update(dict(chunk=4, unroll=1, num_steps=2))
    c.policy.vision.update(dict(stem="patch", width=32, mlp=32))
    c.policy.language.update(dict(width=16, mlp=16))
    c.policy.expert.update(dict(width=16, mlp=16))
    c.policy.attention.update(dict(depth=2, heads=2, head_dim=8))
    c.data.path, c.data.index_dir = "tests/data/rlds_tiny", ""
    c.compile_cache = ""
    c.wandb.mode = "disabled"
    c.env.execute = 2
    c.log.every = 1
    c.validation.update(dict(every=2, batches=1))
    c.checkpoint.every = 2
    train(build(TrainConfig, c), Path(workdir))
"""


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(cell: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained workdirs with two checkpoints each, of which the first has also been evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    workdirs = [str(folder / "first"), str(folder / "second")]
    result = subprocess.run([sys.executable, "-c", TRAIN, *workdirs], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    score = {"push": {"successes": 3, "episodes": 5}}
    (folder / "first/evaluation.json").write_text(json.dumps({"tasks": score, "blind": score}))
    return workdirs


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_kept_in_order(name):
    cells = code(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(map(figures, cells)) == NOTEBOOKS[name]
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 750_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_starts_from_load_and_no_question_takes_more_than_a_screen(name):
    sources = [cell.source for cell in code(read(name))]
    assert "pizero_jax.load(" in sources[2]  # after imports and parameters
    assert max(len(source.splitlines()) for source in sources) <= SCREEN


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_draws_the_same_figures_of_a_run_just_trained(runs, name):
    stored, notebook = read(name), read(name)
    [place] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    names = re.findall(r"^(\w+) = ", notebook.cells[place].source, re.MULTILINE)
    given = {"workdir": runs[0], "workdirs": runs, "batch_size": 4}
    ours = "\n".join(f"{name} = {given[name]!r}" for name in names)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(ours))
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    del notebook.cells[place + 1]
    cells = code(notebook)
    assert [figures(cell) for cell in cells] == [figures(cell) for cell in code(stored)]
    said = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "step 4, trained on tests/data/rlds_tiny" in said or name == "compare"
    if name == "tour":
        by_hand, at_once = re.findall(r"^loss (\S+)", said, re.MULTILINE)
        assert float(at_once.rstrip(",")) == pytest.approx(float(by_hand), abs=2e-4)  # four digits are printed
