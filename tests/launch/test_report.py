"""The command on runs that it has not made itself: their files are written here."""

import csv
import json
import re

import pytest

from tests.report.test_runs import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for peak, successes in ((1e-4, 3), (3e-4, 9)):
        for seed in (0, 1):
            write(folder / f"peak={peak}_seed={seed}", peak, seed, [3.0, 2.0 + seed, 300 * peak], successes)
    write(folder / "peak=0.0009_seed=0", 9e-4, 0, [4.0])
    return folder


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverged")
    write(folder / "peak=1", 1.0, 0, [float("nan")])
    write(folder / "peak=1.5", 1.5, 0, [2.5], 9)
    evaluation = folder / "peak=1.5/evaluation.json"
    evaluation.write_text(evaluation.read_text().replace('"step": 30', '"step": 20'))
    write(folder / "peak=2", 2.0, 0, [float("inf")])
    return folder


@pytest.fixture(scope="module")
def results(forked, folder, diverged):
    runs, empty = f"--runs={folder}", folder / "logs"
    empty.mkdir()
    lines = [[runs], [runs, "--json", f"--output={folder}/elsewhere"], [f"--runs={empty}"], [], [f"--runs={diverged}"]]
    return forked("launch.report", lines, warm=("pizero_jax.processes",), config_needed=False)


def test_the_table_has_a_line_for_each_run(results, folder):
    assert results[0].returncode == 0, results[0].stderr
    line = next(line for line in results[0].stdout.splitlines() if "peak=0.0003_seed=1" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["peak=0.0003_seed=1", "0.0003", "1", "30 of 30", "0.09", "0.5",
                     "18/20 = 90% (95% interval 70-97%)"]  # fmt: skip
    assert f"page: {folder}/report/index.html" in results[0].stdout


def test_success_of_an_earlier_checkpoint_says_so(results):
    assert "| 2.5 | 0.5 | 18/20 = 90% (95% interval 70-97%) at step 20 |" in re.sub(" +", " ", results[4].stdout)
    assert "at step" not in results[0].stdout


def test_csv_and_json_have_the_same_records(results, folder):
    records = json.loads(results[1].stdout)
    assert len(records) == 5
    with (folder / "elsewhere" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [record["run"] for record in records]
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in records]
    assert [row["success"] for row in rows] == [str(record.get("success", "")) for record in records]


def test_mistakes_are_one_clear_line(results, folder):
    assert (results[2].returncode, results[3].returncode) == (2, 2)
    assert results[2].stderr.startswith(f"error: {folder}/logs holds no runs")
    assert results[3].stderr.startswith("error: --runs is missing")


def test_the_least_loss_is_that_of_a_run_that_has_one(results, diverged):
    assert results[4].returncode == 0, results[4].stderr
    page = (diverged / "report" / "index.html").read_text()
    assert "<dt>least loss</dt><dd>2.5</dd>" in page


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_the_page(results, browser, folder, width):
    browser.open(folder / "report" / "index.html", width)
    assert browser.faults() == []
    assert browser.evaluate("document.querySelectorAll('.plot').length") == 3, "loss, val/loss, success"
    lines = browser.evaluate("[...document.querySelectorAll('.plot g title')].map(x => x.textContent)")
    assert lines.count("peak=0.0003_seed=1") == 2, "in both plots of metrics"
    shown = browser.evaluate("document.body.innerText")
    assert "36/40 = 90%" in shown
    assert "peak 0.0001: 30%, 18% to 45%" in shown
