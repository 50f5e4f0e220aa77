"""Plots with axes as pieces of a page (`page.py`): lines drawn by a browser, in its light or dark colours."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from pizero_jax.report.figures import COLORS
from pizero_jax.report.page import Html, text

_WIDTH, _HEIGHT = 420, 240  # of a plot, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 34  # margins
_ROW = 42  # of an interval's line
_DASHES = ("", "6 3", "2 3")  # tell lines apart when colours come again


class Line(NamedTuple):
    kind: int  # lines of one kind look alike
    name: str
    x: Sequence[float]
    y: Sequence[float]


def lines(title: str, found: Sequence[Line], x_name: str = "step") -> Html:
    """Curves over one axis; the other one is logarithmic if they are positive and span a factor of ten.

    Lines of a single point are drawn as points.
    """
    x, y = [a for line in found for a in line.x], [b for line in found for b in line.y]
    if not x:
        return ""
    logarithmic = min(y) > 0 and max(y) >= 10 * min(y)
    across = _Axis(min(0, *x), max(x), _LEFT, _WIDTH - _RIGHT, False)
    up = _Axis(min(y), max(y), _HEIGHT - _BOTTOM, _TOP, logarithmic)
    pieces = [_horizontal(up, a) for a in up.ticks(5)] + [_below(across, a) for a in across.ticks(5)]
    pieces.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    for line in found:
        points = [(across(a), up(b)) for a, b in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in points if len(points) < 12)
        drawn = f'<path d="M{path}"/>' if len(points) > 1 else ""
        pieces.append(f'<g style="{style(line.kind)}"><title>{escape(line.name)}</title>{drawn}{dots}</g>')
    return _figure(title, _HEIGHT, "".join(pieces))


class Interval(NamedTuple):
    kind: int
    name: str
    share: float
    low: float
    high: float


def intervals(title: str, rows: Sequence[Interval]) -> Html:
    """A point with its interval for each row, shares in [0, 1]."""
    height = _ROW * len(rows) + _BOTTOM
    across = _Axis(0.0, 1.0, 12, _WIDTH - 22, False)
    pieces = [_below(across, a, height, percent=True) for a in (0, 0.25, 0.5, 0.75, 1)]
    for i, (kind, name, share, low, high) in enumerate(rows):
        y = _ROW * i
        said = f"{escape(name)}: {share:.0%}, {low:.0%} to {high:.0%}"
        pieces.append(
            f'<g style="{style(kind)}"><text x="12" y="{y + 13}">{said}</text>'
            f'<path style="stroke-dasharray: none" d="M{across(low):.1f},{y + 25} {across(high):.1f},{y + 25}"/>'
            f'<circle cx="{across(share):.1f}" cy="{y + 25}" r="4.5"/></g>'
        )
    return _figure(title, height, "".join(pieces))


def grid(html: Sequence[Html]) -> Html:
    """Plots side by side, as many as fit."""
    return f'<div class="plots">{"".join(html)}</div>\n'


def legend(names: Sequence[str]) -> Html:
    """What the kinds of lines mean."""
    line = '<path d="M0,3 24,3"/>'
    keys = (
        f'<span class="kind"><svg viewBox="0 0 24 6" style="{style(kind)}">{line}</svg>{escape(name)}</span>'
        for kind, name in enumerate(names)
    )
    return f'<p class="kinds">{"".join(keys)}</p>\n'


def style(kind: int) -> str:
    color = COLORS[kind % len(COLORS)].replace("#000000", "currentColor")
    return f"color: {color}; stroke-dasharray: {_DASHES[kind // len(COLORS) % len(_DASHES)] or 'none'}"


class _Axis:
    """From values to places."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool):
        if low == high:
            low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
        self.low, self.high, self._start, self._end, self._log = low, high, start, end, logarithmic

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(a) if self._log else a for a in (self.low, self.high, value))
        return self._start + (value - low) / (high - low) * (self._end - self._start)

    def ticks(self, count: int) -> list[float]:
        """Round values within the range, about as many as asked for."""
        if self._log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high < 1e3 * self.low else (1,)
            found = [step * 10.0**decade for decade in decades for step in steps]
        else:
            rough = (self.high - self.low) / count
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
            first = math.ceil(self.low / step)
            found = [step * i for i in range(first, first + 2 * count)]
        return [value for value in found if self.low <= value <= self.high]


def _horizontal(axis: _Axis, value: float) -> Html:
    y = axis(value)
    line = f'<path class="zero" d="M{_LEFT},{y:.1f} {_WIDTH - _RIGHT},{y:.1f}"/>'
    return f'{line}<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{escape(text(_round(value)))}</text>'


def _below(axis: _Axis, value: float, height: float = _HEIGHT, percent: bool = False) -> Html:
    x, said = axis(value), f"{value:.0%}" if percent else text(_round(value))
    line = f'<path class="zero" d="M{x:.1f},{_TOP} {x:.1f},{height - _BOTTOM}"/>' if percent else ""
    return f'{line}<text x="{x:.1f}" y="{height - 19}" text-anchor="middle">{escape(said)}</text>'


def _round(value: float) -> float | int:
    """Without the last digits of a float, and whole if it is."""
    value = float(f"{value:.6g}")
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def _figure(title: str, height: float, html: Html) -> Html:
    box = f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"'
    return f'<figure class="plot"><figcaption><b>{escape(title)}</b></figcaption><svg {box}>{html}</svg></figure>'
