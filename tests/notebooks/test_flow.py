"""notebooks/flow.ipynb, run as a reader would, but with few updates and samples."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "flow.ipynb"
QUICK = 'updates, draws, data_path = 2, 10, "tests/data/rlds_tiny"'
IDENTITIES = ("by at most", "'1: ")  # what is printed of them does not depend on training


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def gaps(notebook):
    """How far the identities that are printed miss, by cell."""
    texts = [
        "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in c.outputs) for c in code(notebook)
    ]
    said = [text for text in texts if any(words in text for words in IDENTITIES)]
    return [[float(number) for number in re.findall(r"\d+e[-+]\d+", text)] for text in said]


def figures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_its_outputs_are_kept_in_order_and_come_from_demonstrations(stored):
    cells = code(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(map(figures, cells)) == 10
    assert [len(found) for found in gaps(stored)] == [6, 1, 1]
    assert max(map(max, gaps(stored))) < 1e-4
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
    assert NOTEBOOK.stat().st_size < 1_000_000


@pytest.mark.slow
def test_it_draws_the_same_figures_and_its_identities_hold(stored):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [place] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(QUICK))
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    del notebook.cells[place + 1]
    assert list(map(figures, code(notebook))) == list(map(figures, code(stored)))
    assert [len(found) for found in gaps(notebook)] == [6, 1, 1]
    assert max(map(max, gaps(notebook))) < 1e-3
