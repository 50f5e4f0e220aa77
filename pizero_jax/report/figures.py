"""Pictures for a report: what the policy saw, how it learnt, what it predicted and how often it succeeded."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pizero_jax.errors import InputError
from pizero_jax.report.intervals import wilson

# Okabe and Ito's palette, told apart with every common kind of colour blindness (Wong, Nature Methods 8, 2011).
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
COLORS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, "#000000")

_GAP = 6  # pixels between pictures


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str],
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
) -> None:
    """Writes rows of pictures with their labels to the left and, if given, titles above the columns.

    Args:
      rows: uint8 pictures [h, w, 3], all of one size and as many in every row; small ones are enlarged.
      labels: one per row.
      path: picture file to write.
      columns: one title per column, for example the step of the episode.

    Raises:
      InputError: if the counts, sizes or types differ from that.
    """
    check_pictures(rows)
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise InputError(f"rows of {[len(row) for row in rows]} pictures; give every row as many")
    if len(labels) != len(rows) or (columns is not None and len(columns) != width):
        raise InputError(f"{len(rows)} x {width} pictures need {len(rows)} labels and {width} column titles or None")

    big = [[enlarge(picture) for picture in row] for row in rows]
    side_h, side_w = big[0][0].shape[:2]
    font = ImageFont.load_default(14)
    texts = [textwrap.fill(label, 24) for label in labels]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = int(max(measure.multiline_textbbox((0, 0), text, font)[2] for text in texts)) + 2 * _GAP
    top = 22 if columns else _GAP

    sheet = Image.new("RGB", (left + width * (side_w + _GAP), top + len(rows) * (side_h + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, title in enumerate(columns or ()):
        draw.text((left + j * (side_w + _GAP) + side_w / 2, top / 2), title, "black", font, anchor="mm")
    for i, (text, row) in enumerate(zip(texts, big, strict=True)):
        y = top + i * (side_h + _GAP)
        draw.multiline_text((_GAP, y + side_h / 2), text, "black", font, anchor="lm")
        for j, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (left + j * (side_w + _GAP), y))
    sheet.save(_writable(path))


def learning_curves(metrics: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes the losses against the step, and beside them whatever else was validated.

    Args:
      metrics: records such as {"step": 100, "loss": 0.5} or {"step": 100, "val/loss": 0.6, "val/action_error": 0.1};
        other training metrics and values that are no numbers are left out.
      path: picture file to write.

    Raises:
      InputError: if no record holds a loss.
    """
    keys = dict.fromkeys(key for record in metrics for key in record if key == "loss" or key.startswith("val/"))
    curves = {key: points for key in keys if (points := _curve(metrics, key))[0]}
    losses = [key for key in curves if "loss" in key]
    others = [key for key in curves if "loss" not in key]
    if not losses:
        raise InputError('no record has a "loss" or a "val/loss" with its "step"; is this the metrics file of a run?')
    panels = [names for names in (losses, others) if names]
    figure = _figure(6 * len(panels), 4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, names, title in zip(axes, panels, ("loss", "validation errors"), strict=False):
        for i, name in enumerate(names):
            steps, values = curves[name]
            # Validations are few: their points show when they were made.
            style = dict(marker="o", markersize=3, linewidth=1.8) if name != "loss" else dict(linewidth=1.0)
            label = "train" if name == "loss" else name.replace("val/", "validation ", 1).replace("_", " ")
            ax.plot(steps, values, color=COLORS[i % len(COLORS)], label=label, **style)
        if names is losses and all(value > 0 for name in names for value in curves[name][1]):
            ax.set_yscale("log")  # a loss falls by powers of ten at first, by percents later; both are to be seen
            _plain_log_ticks(ax)
        else:
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        ax.set(title=title, xlabel="step")
        ax.legend(frameon=False)
    figure.savefig(_writable(path))


def loss_by_time(edges: Sequence[float], values: Sequence[float], path: str | Path) -> None:
    """Writes the mean loss within each bin of flow time, 0 being data and 1 noise.

    Args:
      edges: n + 1 ascending flow times in [0, 1].
      values: n mean losses; NaN where a bin had no sample.
      path: picture file to write.

    Raises:
      InputError: if there is not one edge more than values, or the edges do not ascend.
    """
    if len(edges) != len(values) + 1 or np.any(np.diff(edges) <= 0):
        raise InputError(f"{len(values)} values need {len(values) + 1} ascending edges; these are {list(edges)}")
    figure = _figure(6, 3.5)
    ax = figure.subplots()
    ax.bar(edges[:-1], values, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    ax.set(xlim=(edges[0], edges[-1]), xlabel="flow time t (0 data, 1 noise)", ylabel="loss", xticks=edges)
    ax.xaxis.set_major_formatter("{x:.2g}")
    figure.savefig(_writable(path))


def predicted_against_recorded(
    predicted: np.ndarray,
    recorded: np.ndarray,
    chunk_starts: Sequence[int],
    names: Sequence[str],
    path: str | Path,
) -> None:
    """Writes one panel per action dimension: the recorded line, the predicted chunks and their root mean square error.

    Args:
      predicted: actions [T, A] in the data set's units, chunk after chunk.
      recorded: actions [T, A] of the demonstration.
      chunk_starts: ascending steps at which a new chunk was predicted; the first is 0.
      names: one per action dimension.
      path: picture file to write.

    Raises:
      InputError: if the shapes differ, a name is missing, or chunk_starts is not as above.
    """
    predicted, recorded, starts = np.asarray(predicted), np.asarray(recorded), np.asarray(chunk_starts)
    if predicted.ndim != 2 or predicted.shape != recorded.shape or predicted.shape[1] != len(names):
        raise InputError(
            f"predicted {predicted.shape}, recorded {recorded.shape} and {len(names)} names; "
            "give two arrays of one shape [T, A] and A names"
        )
    steps, dims = recorded.shape
    if len(starts) == 0 or starts[0] != 0 or np.any(np.diff(starts) <= 0) or starts[-1] >= steps:
        raise InputError(f"chunk_starts = {starts.tolist()}; give ascending steps from 0 to below {steps}")
    errors = np.sqrt(np.mean((predicted - recorded) ** 2, axis=0))

    columns = 1 if dims <= 2 else 2
    lines = -(-dims // columns)
    figure = _figure(6 * columns, 0.6 + 1.9 * lines)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    for a, ax in enumerate(axes[:dims]):
        for start in starts:
            ax.axvline(start, color="0.88", linewidth=0.8, zorder=0)
        ax.plot(recorded[:, a], color="black", linewidth=1.4, label="recorded")
        for start, end in zip(starts, [*starts[1:], steps], strict=True):
            label = "predicted" if start == 0 else None
            ax.plot(np.arange(start, end), predicted[start:end, a], color=VERMILLION, linewidth=1.4, label=label)
        ax.plot(starts, predicted[starts, a], "o", color=VERMILLION, markersize=3.5, label="start of a chunk")
        ax.set_title(f"{names[a]}: error {errors[a]:.3g}", fontsize=10)
        ax.xaxis.set_tick_params(labelbottom=a + columns >= dims)
        if a + columns >= dims:
            ax.set_xlabel("step")
    for ax in axes[dims:]:
        ax.remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(_writable(path))


def success_bars(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes each task's success rate as a bar per policy with its 95% Wilson interval.

    Args:
      rows: one per task and policy, {"task": "reach-v3", "policy": "sighted", "successes": 47, "episodes": 50}; the
        order of first appearance is kept, and a policy that did not run a task has no bar there.
      path: picture file to write.

    Raises:
      InputError: if there is no row, a key is missing, a task and policy come twice, or the counts are impossible.
    """
    wanted = {"task", "policy", "successes", "episodes"}
    if not rows or any(wanted - row.keys() for row in rows):
        raise InputError(f"success_bars needs rows with {', '.join(sorted(wanted))}; these are {list(rows)[:3]}")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    counts = {(row["task"], row["policy"]): (row["successes"], row["episodes"]) for row in rows}
    if len(counts) != len(rows):
        raise InputError("success_bars got a task and policy twice; add their successes and episodes up first")

    width = 0.8 / len(policies)
    figure = _figure(max(5.0, 1.5 + len(tasks) * max(1.2, 0.5 * len(policies))), 4)
    ax = figure.subplots()
    for p, policy in enumerate(policies):
        have = [(i, counts[task, policy]) for i, task in enumerate(tasks) if (task, policy) in counts]
        x = np.array([i + (p - (len(policies) - 1) / 2) * width for i, _ in have])
        rate = np.array([100 * k / n for _, (k, n) in have])
        bounds = 100 * np.array([wilson(k, n) for _, (k, n) in have]).T
        ax.bar(x, rate, 0.9 * width, color=COLORS[p % len(COLORS)], label=policy)
        ax.errorbar(x, rate, np.abs(bounds - rate), fmt="none", ecolor="0.25", capsize=3, linewidth=1.2)
        for at, (_, (k, n)), high in zip(x, have, bounds[1], strict=True):
            ax.annotate(f"{k}/{n}", (at, high), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    ax.set_xticks(range(len(tasks)), [textwrap.fill(task, 14) for task in tasks])
    ax.set(ylabel="success (%), 95% interval", ylim=(0, 109), yticks=range(0, 101, 20))
    if len(policies) > 1:
        figure.legend(loc="outside upper center", ncols=len(policies), frameon=False)
    figure.savefig(_writable(path))


def check_pictures(rows: Sequence[Sequence[np.ndarray]]) -> None:
    """Raises InputError unless every row holds at least one uint8 picture [h, w, 3] and all have one size."""
    if not rows or any(len(row) == 0 for row in rows):
        raise InputError("there is a row without pictures; give at least one row with at least one picture")
    shape = rows[0][0].shape
    for picture in (picture for row in rows for picture in row):
        if picture.dtype != np.uint8 or picture.shape != shape or picture.ndim != 3 or shape[2] != 3:
            raise InputError(
                f"a picture is {picture.dtype} {picture.shape}, the first has {shape}; give uint8 [h, w, 3], one size"
            )


def enlarge(picture: np.ndarray, side: int = 192) -> np.ndarray:
    """The picture [h, w, 3] repeated up to three times per axis, as long as it stays within `side` pixels."""
    scale = int(np.clip(side // max(picture.shape[:2]), 1, 3))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)  # whole pixels: what the policy saw, not a smoother one


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    points = [
        (record["step"], record[key])
        for record in metrics
        if "step" in record and isinstance(record.get(key), int | float)
    ]
    return [step for step, _ in points], [value for _, value in points]


def _figure(width: float, height: float) -> Any:
    """A matplotlib figure of this size in inches, without pyplot's global state; it draws with Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # lazily: half a second
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain_log_ticks(ax: Any) -> None:
    """Ticks at 1, 2 and 5 of each decade, written as plain numbers; powers alone leave most panels without a label."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")


def _writable(path: str | Path) -> Path:
    """The path, its folder made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)
