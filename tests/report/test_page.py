import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pizero_jax.report import page

HOSTILE = "<script>alert(1)</script> \"quoted\" 'single' & <img src=x onerror=alert(2)>"
HEAD = """<!doctype html>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">"""
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
VALUES = np.linspace(-1, 1, 20).reshape(10, 2)


def everything(text: str) -> str:
    """A page that has all pieces, with `text` wherever a data set could have put it."""
    rows = [{text: text, "number": 1234.5}, {text: text, "number": None}]
    return page.document(
        text,
        [
            page.heading(1, text, anchor=text),
            page.paragraph(text),
            page.warnings([(text, text)]),
            page.tiles({text: text, "frames": 12_345}),
            page.table(rows, {text: text}),
            page.legend(),
            page.card([page.prompt(text, text, {text: (30, 24)}), page.prompt("", text, {"tokens": (3, 24)})]),
            page.pictures({text: [PICTURE] * 4}, [text] * 4),
            page.curves([text, text], VALUES, 5 * VALUES, np.arange(10) < 7),
            page.histogram(np.arange(5, 25), text),
            page.frequencies([(text, 3), ("", 1)], 4),
        ],
    )


def test_text_of_a_data_set_is_escaped_everywhere():
    html = everything(HOSTILE)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert html.count("&lt;script&gt;") >= 20
    assert re.findall(r"<\w+", html) == re.findall(r"<\w+", everything("text"))


def test_nothing_is_loaded_from_elsewhere():
    html = everything("text")
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", html) == []
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_a_picture_is_in_the_page():
    encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page.image(PICTURE, "a picture"))[1]
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert decoded.shape == PICTURE.shape
    assert 'alt="a picture"' in page.image(PICTURE, "a picture")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (12_345, "12,345"), (0.123456, "0.123"), (12_345.6, "12,346"), (1e12, "1e+12"), ("a", "a"), (0, "0")],
)
def test_numbers_are_short(value, expected):
    assert page.text(value) == expected


def test_masked_steps_are_greyed_where_the_line_has_them():
    html = page.curves(["a"], VALUES[:, :1], VALUES[:, :1], np.arange(10) < 7)
    places = [float(x) for x in re.findall(r'class="masked" x="([\d.]+)"', html)]
    assert places == [140, 160, 180] * 2  # of 200, in both plots
    assert "masked" not in page.curves(["a"], VALUES[:, :1], VALUES[:, :1], np.ones(10, bool))


def test_a_line_is_drawn_from_its_smallest_to_its_largest_value():
    html = page.curves(["a"], np.array([[0.0], [2.0], [1.0]]), np.array([[0.0], [6.0], [3.0]]), np.ones(3, bool))
    recorded, normalised = re.findall(r'd="M([^"]+)"', html)
    assert [point.split(",")[1] for point in recorded.split()] == ["57.0", "3.0", "30.0"]
    assert [point.split(",")[1] for point in normalised.split()] == ["30.0", "3.0", "16.5"]  # from -6 to 6
    assert "0 … 2" in html


@pytest.mark.parametrize("steps", [1, 2, 5_000])
def test_constants_single_steps_and_long_episodes_are_drawn(steps):
    html = page.curves(["a"], np.full((steps, 1), 0.25), np.zeros((steps, 1)), np.ones(steps, bool))
    assert "nan" not in html
    assert len(html) < 12_000
    assert ">0.25<" in html


def test_bars_of_a_histogram_add_up():
    html = page.histogram(np.array([3, 3, 3, 5, 9]), "frames")
    assert [float(h) for h in re.findall(r'class="bar".*?height="([\d.]+)"', html)] == [60, 20, 20]
    assert "3 frames" in html
    assert "9 frames" in html
    assert html.count('class="bar"') == 3
    assert page.histogram(np.array([7, 7]), "frames").count('class="bar"') == 1


def test_without_warnings_there_is_a_calm_line():
    assert "Nothing suspicious" in page.warnings([])


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("text", ["text", HOSTILE, "a_very_long_word_without_a_space_" * 20])
def test_a_browser_shows_all_of_it(browser, tmp_path, width, text):
    (tmp_path / "page.html").write_text(everything(text))
    browser.open(tmp_path / "page.html", width)
    assert browser.faults() == []
    assert browser.evaluate("document.querySelector('ul.warnings b').textContent") == text
    assert browser.evaluate("document.querySelector('ul.warnings li').checkVisibility()")
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(x => x.getBoundingClientRect().height > 40)")
    assert browser.evaluate("document.scripts.length") == 0


@pytest.mark.browser
@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<img alt="torn" src="data:image/png;base64,AAAA">', "a picture does not show: torn"),
        ('<div style="width: 500px">wide</div>', "it is "),
        ("<script>console.error('oh')</script>", '"oh"'),
        ("<script>throw new Error('no')</script>", "Error: no"),
        ('<link rel="stylesheet" href="other.css">', "it asks for file:"),
    ],
)
def test_the_browser_would_see_what_is_wrong(browser, tmp_path, html, fault):
    (tmp_path / "page.html").write_text(HEAD + html)
    browser.open(tmp_path / "page.html", 400)
    assert any(fault in found for found in browser.faults()), browser.faults()
