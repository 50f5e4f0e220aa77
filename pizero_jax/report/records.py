"""What runs left on disk, as rows: training metrics and success rates."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pizero_jax.errors import InputError


def metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`, such as {"step": 50, "loss": 0.3}, without a line still being written.

    Raises:
      InputError: there is no such file.
    """
    file = Path(workdir) / "metrics.jsonl"
    if not file.exists():
        raise InputError(f"{file} is missing; give the --workdir of a training run")
    records = []
    for line in file.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def curve(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric; records without it, or with a value that is no number, are left out."""
    points = [
        (record["step"], record[key])
        for record in records
        if "step" in record and isinstance(record.get(key), int | float)
    ]
    return [step for step, _ in points], [value for _, value in points]


def successes(workdir: str | Path) -> list[dict[str, Any]]:
    """Rows for `figures.success_bars` from a run's `evaluation.json`; none if it has not been evaluated.

    "policy" is "sighted" or "blind" (pictures zeroed).
    """
    file = Path(workdir) / "evaluation.json"
    if not file.exists():
        return []
    results = json.loads(file.read_text())
    return [
        {"task": task, "policy": policy, "successes": row["successes"], "episodes": row["episodes"]}
        for policy, tasks in (("sighted", results["tasks"]), ("blind", results["blind"]))
        for task, row in tasks.items()
    ]
