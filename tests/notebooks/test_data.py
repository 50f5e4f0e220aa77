"""notebooks/data.ipynb, run from a fresh kernel as a reader would."""

import copy
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "data.ipynb"


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(stored):
    notebook = copy.deepcopy(stored)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint(sys.executable)"))
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}  # where Jupyter starts it
    return nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def texts(cell):
    """What a cell says in words: pictures differ between versions of matplotlib."""
    outputs = [(output.get("text", ""), output.get("data", {})) for output in cell.get("outputs", [])]
    return [(text, data.get("text/markdown", ""), sorted(data)) for text, data in outputs]


def test_its_outputs_are_kept_in_order(stored):
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) == 3
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_it_says_what_a_fresh_kernel_says(stored, executed):
    *cells, last = executed.cells
    assert [texts(cell) for cell in cells] == [texts(cell) for cell in stored.cells]
    assert last.outputs[0].text.strip() == sys.executable
