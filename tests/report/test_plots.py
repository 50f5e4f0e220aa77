import re

import numpy as np
import pytest

from pizero_jax.report import page, plots

HOSTILE = "<script>alert(1)</script> \"q\" 'q' &"


def everything(text: str) -> str:
    rising = plots.Line(0, text, [0, 50, 100], [1e-3, 0.1, 2.0])
    short, flat = plots.Line(8, text, [70], [0.5]), plots.Line(15, text, [0, 100], [0.7, 0.7])
    many = plots.Line(1, text, list(range(100)), list(np.linspace(0.01, 1, 100)))
    pieces = [
        plots.legend([text, "other"]),
        plots.grid(
            [
                plots.lines(text, [rising, short, flat, many], text),
                plots.lines("linear", [plots.Line(1, text, [1, 2], [-1.0, 30.0])]),
                plots.lines("constant", [plots.Line(1, text, [3, 4], [0.0, 0.0])]),
                plots.lines("one step", [plots.Line(1, text, [3], [2.0])]),
                plots.intervals(text, [plots.Interval(0, text, 0.5, 0.2, 0.8), plots.Interval(1, "b", 0.0, 0.0, 0.1)]),
            ]
        ),
    ]
    return page.document(text, pieces)


def test_text_is_escaped_everywhere():
    assert "<script" not in everything(HOSTILE)
    assert everything("x").count("<svg") == everything(HOSTILE).count("<svg") == 7


def test_nothing_to_draw_is_no_plot():
    assert plots.lines("x", []) == ""
    assert plots.lines("x", [plots.Line(0, "a", [], [])]) == ""


def labels(html: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", html)


def test_a_range_of_ten_is_logarithmic_and_ticks_are_round():
    wide = plots.lines("x", [plots.Line(0, "a", [0, 400], [0.01, 3.0])])
    assert [said for said in labels(wide) if "." in said or said in "12"] == [
        "0.01",
        "0.02",
        "0.05",
        "0.1",
        "0.2",
        "0.5",
        "1",
        "2",
    ]
    assert labels(wide)[-6:-1] == ["0", "100", "200", "300", "400"]
    narrow = plots.lines("x", [plots.Line(0, "a", [0, 400], [1.0, 3.0])])
    assert labels(narrow)[:5] == ["1", "1.5", "2", "2.5", "3"]


def test_equal_distances_on_the_logarithmic_axis_are_equal_factors():
    html = plots.lines("x", [plots.Line(0, "a", [0, 1, 2], [0.1, 1.0, 10.0])])
    y = [float(point.split(",")[1]) for point in re.search(r'<path d="M([^"]*)"', html)[1].split()]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)
    assert y[0] > y[2], "upwards is more"


def test_more_lines_than_colours_are_dashed():
    looks = [plots.style(kind) for kind in range(21)]
    assert len(set(looks)) == 21


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_all_of_it(browser, tmp_path, width):
    file = tmp_path / "page.html"
    file.write_text(everything(HOSTILE), encoding="utf-8")
    browser.open(file, width)
    assert browser.faults() == []
    sizes = browser.evaluate("[...document.querySelectorAll('.plot svg')].map(x => x.getBoundingClientRect().height)")
    assert len(sizes) == 5
    assert min(sizes) > 50
