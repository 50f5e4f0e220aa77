"""A web page in one file, from functions that each give a piece of HTML; nothing is loaded and no script runs.

Whatever comes from a data set is escaped here: every function takes plain text, numbers and arrays, unless an argument
is called `html`, which are pieces that these functions made.
"""

import base64
import io
import numbers
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Real, UInt8
from PIL import Image

Html = str

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # that nothing is loaded, and no script runs
_WIDTH, _HEIGHT = 200, 60  # of a plot, in its own units
_USUAL = 3.0  # normalised values are drawn from -3 to 3, so that plots compare, or farther if they go farther

_STYLE = """
:root { --paper: #fbfaf8; --card: #fff; --ink: #26282b; --soft: #6b7076; --line: #e4e1db; --blue: #0072b2;
  --orange: #d55e00; --band: #0072b214; --masked: #8884; --warn: #b4690e; --warn-paper: #fdf5e8; --fine: #2b7a57;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --card: #1f2226; --ink: #e4e2de; --soft: #9aa0a6;
  --line: #33373c; --blue: #56b4e9; --orange: #f0904d; --band: #56b4e91c; --warn: #e6a84f; --warn-paper: #2a2318;
  --fine: #6bc59b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
h4 { font-size: .8rem; font-weight: 600; margin: 1rem 0 .35rem; color: var(--soft); }
p { margin: .25rem 0 .75rem; max-width: 44rem; }
.soft, figcaption, dt, th { color: var(--soft); }
a { color: var(--blue); }
code { font: .88em ui-monospace, monospace; background: var(--band); border-radius: .25rem; padding: .1em .35em;
  white-space: pre-wrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; }
td.number, th.number { text-align: right; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl > div, .card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
dl > div { padding: .45rem .6rem; }
dt { font-size: .75rem; }
dd { margin: 0; font-size: 1.05rem; font-variant-numeric: tabular-nums; }
.card { padding: .9rem 1rem 1.1rem; margin: 1rem 0; }
.card h3 { margin-top: 0; }
ul.warnings { list-style: none; padding: 0; margin: 1rem 0; display: grid; gap: .5rem; }
ul.warnings li { background: var(--warn-paper); border-left: .25rem solid var(--warn); border-radius: .3rem;
  padding: .55rem .8rem; }
ul.warnings b { font-weight: 600; }
ul.warnings span { display: block; color: var(--soft); font-size: .9rem; }
.fine { color: var(--fine); }
.over { color: var(--warn); font-weight: 600; }
.pictures { display: grid; gap: .4rem; }
.pictures figure { margin: 0; }
.pictures figcaption { font-size: .75rem; }
img { display: block; width: 100%; height: auto; border-radius: .3rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem 1rem;
  align-items: end; }
.curves figure { margin: 0; min-width: 0; }
.curves figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .5rem; font-size: .72rem; }
.curves b { font-weight: 600; color: var(--ink); }
.curves span { white-space: nowrap; }
svg { display: block; width: 100%; height: 3.6rem; background: var(--paper); border-radius: .25rem; }
svg + svg { margin-top: 2px; }
path { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.recorded { stroke: var(--blue); }
.normalised { stroke: var(--orange); }
.zero { stroke: var(--line); stroke-width: 1; }
.band { fill: var(--band); }
.masked { fill: var(--masked); }
.bar { fill: var(--blue); }
.histogram { max-width: 36rem; }
.histogram svg { height: 6rem; }
.histogram figcaption { display: flex; justify-content: space-between; font-size: .75rem; }
.histogram figure { margin: 0; }
.key { display: inline-block; width: 1.1em; height: .2em; vertical-align: middle; margin: 0 .25em 0 .8em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.plot { margin: 0; min-width: 0; max-width: 36rem; }
.plot b { color: var(--ink); }
.plot svg { height: auto; background: none; margin-top: .25rem; overflow: visible; }
.plot text { fill: var(--soft); font-size: 11px; stroke: none; }
.plot g path, .kind path { stroke: currentColor; }
.plot circle { fill: currentColor; }
.kinds { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; max-width: none; font-size: .85rem; }
.kind svg { display: inline-block; width: 1.6rem; height: .4rem; margin-right: .4rem; background: none; }
.share { display: block; height: .5rem; background: var(--blue); border-radius: .2rem; min-width: 1px; }
"""


def document(title: str, html: Iterable[Html]) -> Html:
    """The page, to be written as UTF-8."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
{"".join(html)}
</body>
</html>
"""


def heading(level: int, text: str, anchor: str = "") -> Html:
    place = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{place}>{escape(text)}</h{level}>\n"


def paragraph(text: str) -> Html:
    return f'<p class="soft">{escape(text)}</p>\n'


def card(html: Iterable[Html]) -> Html:
    return f'<section class="card">{"".join(html)}</section>\n'


def text(value: Any) -> str:
    """A number with three digits, or with separators if it is whole; text as it is; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
    return str(value)


def tiles(facts: Mapping[str, Any]) -> Html:
    """Numbers, each below its name."""
    tiles = (f"<div><dt>{escape(name)}</dt><dd>{escape(text(value))}</dd></div>" for name, value in facts.items())
    return f"<dl>{''.join(tiles)}</dl>\n"


def table(rows: Sequence[Mapping[str, Any]], links: Mapping[str, str] | None = None) -> Html:
    """A table of rows that have the same keys, numbers to the right; it scrolls where it does not fit.

    Args:
      links: cells with this text lead to the place of that anchor.
    """
    if not rows:
        return ""
    right = {key: all(isinstance(row[key], numbers.Real | None) for row in rows) for key in rows[0]}
    head = "".join(f"<th{_right(right[key])}>{escape(key)}</th>" for key in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td{_right(right[key])}>{_cell(text(row[key]), links or {})}</td>' for key in rows[0])}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'


def _right(holds: bool) -> str:
    return ' class="number"' if holds else ""


def _cell(shown: str, links: Mapping[str, str]) -> Html:
    return f'<a href="#{escape(links[shown])}">{escape(shown)}</a>' if shown in links else escape(shown)


def warnings(found: Sequence[tuple[str, str]]) -> Html:
    """What was seen, and what to change."""
    if not found:
        return '<p class="fine">Nothing suspicious.</p>\n'
    lines = (f"<li><b>{escape(seen)}</b><span>{escape(change)}</span></li>" for seen, change in found)
    return f'<ul class="warnings">{"".join(lines)}</ul>\n'


def prompt(instruction: str, read: str, counts: Mapping[str, tuple[int, int]]) -> Html:
    """An instruction, what the policy reads of it, and of each kind of tokens how many there are and how many fit."""
    told = "; ".join(
        f'<span class="over">{count} of {limit} {escape(name)}: cut</span>'
        if count > limit
        else f"{count} of {limit} {escape(name)}"
        for name, (count, limit) in counts.items()
    )
    said = f"“{escape(instruction)}”" if instruction else '<span class="over">no instruction</span>'
    read = escape(read.replace("\n", "↵"))  # which is a token like others
    shown = f'<span class="soft">read as</span> <code>{read}</code> <span class="soft">({told})</span>'
    return f"<p>{said}<br>{shown}</p>\n"


def pictures(
    rows: Mapping[str, Sequence[UInt8[np.ndarray, "h w 3"]]], titles: Sequence[str], *, columns: int = 0
) -> Html:
    """Rows of pictures under their name, each picture with its title."""
    found = []
    for name, row in rows.items():
        figures = (
            f"<figure>{image(picture, f'{name}, {title}')}<figcaption>{escape(title)}</figcaption></figure>"
            for picture, title in zip(row, titles, strict=True)
        )
        style = f"grid-template-columns: repeat({columns or len(titles)}, minmax(0, 1fr))"
        found.append(f'<h4>{escape(name)}</h4><div class="pictures" style="{style}">{"".join(figures)}</div>\n')
    return "".join(found)


def image(picture: UInt8[np.ndarray, "h w 3"], alt: str) -> Html:
    height, width = picture.shape[:2]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'


def curves(
    names: Sequence[str],
    recorded: Float[np.ndarray, "T n"],
    normalised: Float[np.ndarray, "T n"],
    real: Bool[np.ndarray, "T"],
) -> Html:
    """Two plots for each dimension: as recorded, over its own range, and normalised, over one range for all.

    Steps that are not `real` are greyed.
    """
    columns = zip(names, recorded.T.astype(np.float64), normalised.T.astype(np.float64), strict=True)
    return f'<div class="curves">{"".join(_panel(*column, real) for column in columns)}</div>\n'


def legend() -> Html:
    """What the colours of `curves` mean."""
    return (
        '<p class="soft"><span class="key" style="background: var(--blue); margin-left: 0"></span>as recorded, with '
        'its range <span class="key" style="background: var(--orange)"></span>normalised, from −3 to 3 or as far as it '
        'goes, −1 to 1 shaded <span class="key" style="background: var(--masked); height: .8em"></span>masked</p>\n'
    )


def _panel(name: str, recorded: np.ndarray, normalised: np.ndarray, real: np.ndarray) -> Html:
    low, high = float(recorded.min()), float(recorded.max())
    reach = max(_USUAL, float(np.abs(normalised).max()))
    one = _HEIGHT / 2 / reach
    band = f'<rect class="band" x="0" width="{_WIDTH}" y="{_HEIGHT / 2 - one:.1f}" height="{2 * one:.1f}"/>'
    shown = text(low) if low == high else f"{text(low)} … {text(high)}"
    return (
        f"<figure><figcaption><b>{escape(name)}</b><span>{escape(shown)}</span></figcaption>"
        + _plot(_masked(real) + _line(recorded, low, high, "recorded"), f"{name}, as recorded")
        + _plot(band + _masked(real) + _line(normalised, -reach, reach, "normalised"), f"{name}, normalised")
        + "</figure>"
    )


def _plot(html: Html, label: str) -> Html:
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return f'<svg viewBox="{box}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">{html}</svg>'


def _masked(real: np.ndarray) -> Html:
    step = _WIDTH / len(real)
    return "".join(
        f'<rect class="masked" x="{i * step:.1f}" width="{step:.1f}" y="0" height="{_HEIGHT}"/>'
        for i in np.flatnonzero(~real)
    )


def _line(values: np.ndarray, low: float, high: float, kind: str) -> Html:
    """Steps are as wide as the masks of `_masked`; a line that does not move is in the middle."""
    if len(values) > 2 * _WIDTH:  # more than can be seen
        values = values[np.linspace(0, len(values) - 1, 2 * _WIDTH).astype(int)]
    x = (np.arange(len(values)) + 0.5) * (_WIDTH / len(values))
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    y = 3 + (1 - share) * (_HEIGHT - 6)
    if len(values) == 1:
        x, y = np.array([0, _WIDTH]), np.repeat(y, 2)
    return f'<path class="{kind}" d="M{" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))}"/>'


def histogram(values: Real[np.ndarray, "n"], unit: str, bins: int = 30) -> Html:
    """How many values lie where, between the smallest and the largest."""
    whole = np.issubdtype(np.asarray(values).dtype, np.integer)
    low, high = np.min(values), np.max(values)
    bins = max(1, min(bins, int(high - low) + 1)) if whole else bins
    counts, _ = np.histogram(values, bins)
    step, top = _WIDTH / len(counts), max(int(counts.max()), 1)
    bars = "".join(
        f'<rect class="bar" x="{i * step + 0.3:.2f}" width="{step - 0.6:.2f}" y="{_HEIGHT * (1 - n / top):.1f}" '
        f'height="{_HEIGHT * n / top:.1f}"/>'
        for i, n in enumerate(counts.tolist())
        if n
    )
    caption = (f"{text(low)} {unit}", f"median {text(float(np.median(values)))}", f"{text(high)} {unit}")
    spans = "".join(f"<span>{escape(piece)}</span>" for piece in caption)
    label = f"{len(values)} values from {caption[0]} to {caption[2]}"
    return f'<div class="histogram"><figure>{_plot(bars, label)}<figcaption>{spans}</figcaption></figure></div>\n'


def frequencies(counts: Sequence[tuple[str, int]], total: int) -> Html:
    """Texts, each with how often it occurs."""
    rows = "".join(
        f'<tr><td class="number">{count:,}</td>'
        f'<td><span class="share" style="width: {6 * count / total:.2f}rem"></span></td>'
        f'<td style="white-space: normal">{escape(said) or "<i>none</i>"}</td></tr>'
        for said, count in counts
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>\n'
