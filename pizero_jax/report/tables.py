"""Tables and phrases that read well on GitHub and in a terminal."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pizero_jax.report.intervals import wilson


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A GitHub table with padded columns, numbers to the right; without a newline at its end.

    Args:
      rows: one mapping per line of the table; what a row lacks, or has as None, stays empty.
      columns: keys to show, in this order; all of them by default, in the order of their first appearance.
    """
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    titles = [_text(column) for column in columns]
    widths = [max(3, *(len(line[i]) for line in [titles, *cells])) for i in range(len(columns))]
    to_right = [_is_numeric([row.get(column) for row in rows]) for column in columns]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, to_right, strict=True)]
    return "\n".join(_line(line, widths, to_right) for line in [titles, rule, *cells])


def percent_interval(successes: int, episodes: int) -> str:
    """The success rate with its Wilson interval: "47/50 = 94% (95% interval 84-98%)".

    Raises:
      InputError: if successes are not within 0 and episodes.
    """
    low, high = wilson(successes, episodes)
    return f"{successes}/{episodes} = {successes / episodes:.0%} (95% interval {100 * low:.0f}-{100 * high:.0f}%)"


def _line(cells: list[str], widths: list[int], to_right: list[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, to_right, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


def _is_numeric(values: list[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_) for value in present
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        # Four digits tell runs apart; from 10,000 on that would turn into an exponent, which reads badly.
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value).replace("|", r"\|").replace("\n", " ")
