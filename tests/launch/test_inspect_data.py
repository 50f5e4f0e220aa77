"""The command as users run it, on the tiny data set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RLDS_TINY = Path(__file__).parents[1] / "data" / "rlds_tiny"
CONFIG = [
    "--config=configs/pi0_metaworld.py",
    f"--config.data.path={RLDS_TINY}",
    "--config.data.index_dir=",
    "--config.batch_size=6",
    "--config.policy.chunk=8",  # longer than three of four episodes
]
MIXTURE = [
    *CONFIG,
    f"--config.data.sets={{'big': {{'path': '{RLDS_TINY}', 'weight': 3.0}}, 'small': {{'path': '{RLDS_TINY}'}}}}",
]
IDS = {
    "whole": "--ids=0:10",
    "again": "--ids=0:10",
    "tail": "--ids=7:10",
    "alone": "--ids=8:9",
    "far": "--ids=1000000:1000001",
}
MISTAKES = ["--ids=3", "--ids=3:3", "--ids=-1:3", "--ids="]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def results(forked, folder):
    """By name what each command line gave; all of them in one process."""
    lines = {name: [*CONFIG, flag] for name, flag in IDS.items()}
    lines |= {f"mixture {name}": [*MIXTURE, IDS[name]] for name in ("whole", "tail", "far")}
    lines |= {flag: [*CONFIG, flag] for flag in MISTAKES}
    lines["page"] = [*CONFIG, f"--output={folder}/one"]
    lines["json"] = [*CONFIG, f"--output={folder}/json", "--json", "--windows=1"]
    lines["page of a mixture"] = [*MIXTURE, f"--output={folder}/mixture", "--windows=1"]
    lines["no windows"] = [*CONFIG, f"--output={folder}/none", "--windows=0"]
    lines["no path"] = [*CONFIG, "--config.data.path=nowhere"]
    lines["negative"] = [*CONFIG, "--windows=-1"]
    found = forked("launch.inspect_data", list(lines.values()), warm=("tensorflow_datasets",))
    return dict(zip(lines, found, strict=True))


@pytest.fixture
def lines(results):
    def of(name: str) -> list[str]:
        assert results[name].returncode == 0, results[name].stderr
        return results[name].stdout.splitlines()

    return of


def test_a_step_has_the_same_samples_whenever_it_is_asked_for(lines):
    whole = lines("whole")
    assert len(whole) == 10
    assert lines("again") == whole
    assert lines("tail") == whole[7:]
    assert lines("alone") == whole[8:9]
    assert lines("mixture tail") == lines("mixture whole")[7:]


def test_a_line_names_step_episodes_and_frames(lines):
    step, *samples = lines("tail")[0].split()
    assert step == "7:"
    assert len(samples) == 6
    lengths = [3, 5, 7, 9]
    assert all(0 <= int(e) < 4 and 0 <= int(f) < max(lengths) for e, f in (sample.split(":") for sample in samples))
    # Four batches of six are an epoch.
    epoch = [sample for line in lines("whole")[:4] for sample in line.split()[1:]]
    assert len(set(epoch)) == 24


def test_a_mixture_names_the_data_set_in_its_share(lines):
    samples = [sample for line in lines("mixture whole") for sample in line.split()[1:]]
    assert {sample.partition("/")[0] for sample in samples} == {"big", "small"}
    assert sum(sample.startswith("big/") for sample in samples) > 30


@pytest.mark.parametrize("kind", ["", "mixture "])
def test_a_late_step_is_as_near_as_the_first(lines, kind):
    (line,) = lines(f"{kind}far")
    assert line.startswith("1000000: ")
    assert len(line.split()) == 7


@pytest.mark.parametrize("flag", MISTAKES)
def test_a_mistaken_range_is_one_clear_line(results, flag):
    assert results[flag].returncode == 2
    assert results[flag].stderr == f"error: {flag} should be START:STOP, two steps such as 0:10\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no path", "error: config.data.path = 'nowhere' has neither dataset_info.json"),
        ("negative", "error: flag --windows"),
    ],
)
def test_other_mistakes_are_one_clear_line_too(results, name, message):
    assert results[name].returncode == 2
    assert results[name].stderr.startswith(message)
    assert results[name].stderr.count("\n") == 1


def test_the_summary_has_a_table_warnings_and_the_place_of_the_page(lines, folder):
    printed = "\n".join(lines("page"))
    assert "| episodes | frames |" in printed
    assert f"| {RLDS_TINY} |        4 |     24 |" in printed
    assert "\nwarning: constant in all frames: action[2]; is a sensor" in printed
    assert "\nwarning: 75% of the episodes are shorter than a chunk of 8 actions; " in printed
    assert printed.endswith(f"pictures, plots and statistics: {folder}/one/index.html")


def test_json_has_the_same_in_numbers(lines, folder):
    found = json.loads("\n".join(lines("json")))
    (only,) = found["data sets"]
    assert (only["episodes"], only["frames"], only["held-out frames"]) == (4, 24, 10)
    assert only["picture sizes"] == {"image": [64, 64], "wrist_image": [64, 64]}
    assert only["most frequent instructions"] == {"reach please": 2, "drawer_close please": 2}
    assert [warning["seen"] for warning in only["warnings"]][0] == "constant in all frames: action[2]"
    assert all(warning["change"] for warning in only["warnings"])
    assert [row["name"] for row in only["statistics"]][::4] == ["state[0]", "action[0]"]
    assert Path(found["page"]).read_text().startswith("<!doctype html>")


def test_a_mixture_is_summarised_with_a_row_for_each_data_set(lines, folder):
    printed = "\n".join(lines("page of a mixture"))
    assert "| big " in printed
    assert "| small " in printed
    assert "warning: big: constant in all frames" in printed
    html = (folder / "mixture" / "index.html").read_text()
    assert '<a href="#set-0">big</a>' in html
    assert '<h2 id="set-1">small</h2>' in html


def test_the_page_is_small_and_complete(lines, folder):
    lines("page"), lines("no windows")
    html = (folder / "one" / "index.html").read_text()
    assert len(html) < 1_000_000
    for piece in (
        "reach please",
        "drawer close please",
        "action[3]",
        "constant",
        "Lengths of episodes",
        'class="masked"',
    ):
        assert piece in html
    assert "Windows as the policy sees them" not in (folder / "none" / "index.html").read_text()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize(("name", "pictures"), [("one", 4 * 2 * 4), ("mixture", 2 * 2 * 4)])
def test_a_browser_shows_the_page(results, browser, folder, width, name, pictures):
    browser.open(folder / name / "index.html", width)
    assert browser.faults() == []
    assert browser.evaluate("document.querySelectorAll('figcaption').length") > 20
    shown = browser.evaluate("[...document.images].filter(x => /as it is|augmented/.test(x.alt)).length")
    assert shown == pictures
    visible = "[...document.querySelectorAll('ul.warnings li')].map(x => x.checkVisibility() && x.innerText)"
    warnings = browser.evaluate(visible)
    assert any("constant in all frames: action[2]" in text for text in warnings)
    assert all(warnings)


def test_samples_are_named_without_what_trains():
    """JAX, and what decodes and draws, would take longer to import than all else takes."""
    loaded = "import sys, launch.inspect_data; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert "pizero_jax.data.splits" in modules
    assert not {"jax", "cv2", "scipy", "tensorflow"} & set(modules)
