"""A model's parameters as rows: what there is, and what learns."""

from collections.abc import Mapping, Sequence
from typing import Any

from pizero_jax.report import tables


def rows(learning: Mapping[str, Any], frozen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each leaf of two flat mappings of path to array, or to its shape and type."""
    found = [
        {"parameter": path, "shape": list(x.shape), "parameters": x.size, "learns": learns, "type": str(x.dtype)}
        for leaves, learns in ((learning, True), (frozen, False))
        for path, x in leaves.items()
    ]
    return sorted(found, key=lambda row: row["parameter"])


def by_leaf(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a line for each parameter."""
    shown = {True: "yes", False: "no"}
    return tables.markdown(
        [
            row
            | {
                "shape": " x ".join(map(str, row["shape"])),
                "parameters": f"{row['parameters']:,}",
                "learns": shown[row["learns"]],
            }
            for row in rows
        ]
    )


def by_part(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a line for each part of the model, and one for all."""
    sums: dict[str, list[int]] = {}
    for row in [*rows, *({**row, "parameter": "all"} for row in rows)]:
        depth = 2 if row["parameter"].startswith("backbone") else 1
        part = sums.setdefault("/".join(row["parameter"].split("/")[:depth]), [0, 0])
        part[0] += row["parameters"]
        part[1] += row["parameters"] * row["learns"]
    lines = [{"part": name, "parameters": f"{n:,}", "that learn": f"{m:,}"} for name, (n, m) in sums.items()]
    return tables.markdown(lines)
