"""Compares the runs of a folder: a sweep's, or any.

    python -m launch.report --runs=runs/sweep [--output=runs/sweep/report] [--json]

Writes `runs.csv`, a line for each run with all that its config differs in, its last metrics and its success rates, and
`index.html`, a page in one file with curves and tables; prints a table. Notebooks take the same from
`pizero_jax.report.runs`.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

import launch
from pizero_jax.errors import InputError
from pizero_jax.report import page, plots, runs, tables
from pizero_jax.report.runs import Logged, Record

RUNS = flags.DEFINE_string("runs", None, "Folder that the runs are below.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the table and the page; `report` in that of the runs.")
JSON = flags.DEFINE_bool("json", False, "Print the records as JSON.")

_CURVES = ("loss", "val/loss", "val/action_error")


def main() -> None:
    if not RUNS.value:
        raise InputError("--runs is missing; name the folder of a sweep, such as --runs=runs/sweep")
    found = runs.find(RUNS.value)
    records = runs.summaries(found)
    output = Path(OUTPUT.value or Path(RUNS.value) / "report")
    output.mkdir(parents=True, exist_ok=True)
    write_csv(records, output / "runs.csv")
    (output / "index.html").write_text(page_of(RUNS.value, found, records), encoding="utf-8")
    if JSON.value:
        print(json.dumps(records, indent=2))
    else:
        print(f"{tables.markdown(shown(found, records))}\n\nall columns: {output}/runs.csv\npage: {output}/index.html")


def write_csv(records: Sequence[Record], file: Path) -> None:
    columns = list(dict.fromkeys(key for record in records for key in record))
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(records)


def shown(found: Sequence[Logged], records: Sequence[Record]) -> list[dict[str, Any]]:
    """The rows of a table that fits on a screen."""
    keys, metrics = telling(found, records), measured(records)
    return [
        {"run": record["run"]}
        | {key: plain(record[key]) for key in keys}
        | {"step": f"{record['step']} of {record['steps']}"}
        | {metric: record.get(metric) for metric in metrics}
        | ({"success": success(record)} if any("episodes" in other for other in records) else {})
        for record in records
    ]


def telling(found: Sequence[Logged], records: Sequence[Record]) -> list[str]:
    """The keys that tables show, runs.csv has all; the seed among them if there are several."""
    keys = runs.differing(found)
    kept = runs.telling(records, [key for key in keys if key != "seed"])
    return kept + [key for key in keys if key == "seed"]


def measured(records: Sequence[Record]) -> list[str]:
    return [metric for metric in _CURVES if any(metric in record for record in records)]


def plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) and not isinstance(value, bool) else str(value)


def success(record: Record) -> str | None:
    if not record.get("episodes"):
        return None
    at, step = record.get("evaluated at"), record.get("step")
    earlier = f" at step {at}" if at != step else ""
    return tables.percent_interval(record["successes"], record["episodes"]) + earlier


def page_of(folder: str, found: Sequence[Logged], records: Sequence[Record]) -> str:
    keys, metrics = telling(found, records), measured(records)
    groups = runs.over_seeds(records, keys, metrics)
    names = [label(group, keys) for group in groups]
    title = f"Runs in {folder}"
    pieces = [page.heading(1, title), page.tiles(facts(records, metrics))]
    if len(groups) < len(records):
        pieces += [page.heading(2, "Over seeds"), page.paragraph(
            "The mean of what was measured last in each run, and its least and largest; successes of all runs together."
        ), page.table([of_group(group, keys, metrics) for group in groups])]  # fmt: skip
    pieces += [page.heading(2, "Curves"), plots.legend(names), plots.grid(drawn(found, records, keys, groups))]
    rates = [
        plots.Interval(kind, name, group["success"], group["success low"], group["success high"])
        for kind, (name, group) in enumerate(zip(names, groups, strict=True))
        if "success" in group
    ]
    if rates:
        pieces += [page.heading(2, "Success"), plots.grid([plots.intervals("95% intervals, all tasks", rates)])]
    pieces += [page.heading(2, "All runs"), page.table(shown(found, records))]
    return page.document(title, pieces)


def facts(records: Sequence[Record], metrics: Sequence[str]) -> dict[str, Any]:
    finished = sum(record["finished"] for record in records)
    found: dict[str, Any] = {"runs": len(records), "finished": finished}
    for metric in metrics:
        values = [record[metric] for record in records if runs.is_number(record.get(metric))]
        found |= {f"least {metric}": min(values)} if values else {}
    rates = [record["success"] for record in records if "success" in record]
    return found | ({"best success": f"{max(rates):.0%}"} if rates else {})


def of_group(group: Record, keys: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    row = {key: plain(group[key]) for key in keys if key != "seed"} | {"runs": group["runs"]}
    for metric in metrics:
        row[metric] = None
        if metric in group:
            least, largest = page.text(group[f"{metric} least"]), page.text(group[f"{metric} largest"])
            spread = f" ({least} … {largest})" if group["runs"] > 1 else ""
            row[metric] = page.text(group[metric]) + spread
    return row | ({"success": success(group)} if "successes" in group else {"success": None})


def label(group: Record, keys: Sequence[str]) -> str:
    said = [f"{key.split('.')[-1]} {page.text(plain(group[key]))}" for key in keys if key != "seed"]
    return ", ".join(said) or "all"


def drawn(
    found: Sequence[Logged], records: Sequence[Record], keys: Sequence[str], groups: Sequence[Record]
) -> list[str]:
    """A plot of each metric, with a line for each run that looks like the others of its group."""
    numbers = {runs.kind(group, keys): number for number, group in enumerate(groups)}
    kinds = [numbers[runs.kind(record, keys)] for record in records]
    return [
        plots.lines(metric, [plots.Line(k, run.name, *run.curve(metric)) for k, run in zip(kinds, found, strict=True)])
        for metric in measured(records)
    ]


if __name__ == "__main__":
    launch.run(main, config_needed=False)
