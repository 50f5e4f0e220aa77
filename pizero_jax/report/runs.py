"""What the runs in a folder came to, from the files that training and evaluation left there: without W&B, without JAX.

from pizero_jax.report import runs
runs.frame("runs/sweep")             # a DataFrame with a row for each run; runs.records the same as dicts
runs.frame_of_metrics("runs/sweep")  # with a row for each run and step
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pizero_jax.errors import InputError
from pizero_jax.old_configs import completed
from pizero_jax.report.intervals import wilson

Record = dict[str, Any]

# Groups and keys of a config in which two runs may differ and still be the same experiment.
UNIMPORTANT = (
    "wandb", "distributed", "compile_cache", "nonfinite", "validation", "checkpoint", "log", "profile",
    "data.index_dir", "data.threads", "data.prefetch",
)  # fmt: skip
_INSIDE = ("checkpoints", "tensorboard", "wandb", "profile")  # folders of a run, which hold no other runs


@dataclasses.dataclass(frozen=True)
class Logged:
    """One run: its config as of today with dotted keys, its metrics as written, and its evaluation if there was one."""

    name: str
    config: Mapping[str, Any]
    metrics: Sequence[Record]
    evaluation: Mapping[str, Any] | None

    @property
    def step(self) -> int:
        return max((record["step"] for record in self.metrics), default=0)

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, without those that are not finite."""
        points = [(record["step"], record[metric]) for record in self.metrics if is_number(record.get(metric))]
        return [step for step, _ in points], [value for _, value in points]


def find(folder: str | Path) -> list[Logged]:
    """All runs below a folder, by name.

    Raises:
      InputError: there is none.
    """
    folder, found = Path(folder), []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _INSIDE)
        if "config.json" in files and (metadata := _json(Path(place) / "config.json")) and "config" in metadata:
            name = Path(place).relative_to(folder).as_posix()
            config = dict(_flat(completed(metadata["config"])))
            metrics = list(_lines(Path(place) / "metrics.jsonl"))
            found.append(Logged(name if name != "." else folder.name, config, metrics,
                                _json(Path(place) / "evaluation.json")))  # fmt: skip
    if not found:
        raise InputError(f"{folder} holds no runs: folders with a config.json and a metrics.jsonl of launch.train")
    return sorted(found, key=lambda run: run.name)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # or cut off by a kill
        return None


def _lines(file: Path) -> Iterator[Record]:
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off by a kill, or just being written
            continue


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def is_number(value: Any) -> bool:
    """Whether it is one that is finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def differing(runs: Sequence[Logged]) -> list[str]:
    """Keys of the configs, of those that matter, that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [
        key
        for key in keys
        if not any(key == name or key.startswith(name + ".") for name in UNIMPORTANT)
        and len({json.dumps(run.config.get(key)) for run in runs}) > 1
    ]


def telling(records: Sequence[Record], keys: Sequence[str]) -> list[str]:
    """As few of `keys` as tell apart what all of them do; the first of those that change together stay."""

    def kinds(keys: Sequence[str]) -> int:
        return len({json.dumps([record[key] for key in keys]) for record in records})

    kept = list(keys)
    for key in reversed(keys):
        others = [other for other in kept if other != key]
        if kinds(others) == kinds(keys):
            kept = others
    return kept


def summaries(runs: Sequence[Logged]) -> list[Record]:
    """One flat record for each run: in what its config differs, how far it came, last metrics, success by task."""
    keys = differing(runs)
    return [
        {"run": run.name}
        | {key: run.config.get(key) for key in keys}
        | {"step": run.step, "steps": run.config["steps"], "finished": run.step >= run.config["steps"]}
        | {name: value for record in run.metrics for name, value in record.items() if name not in ("step", "time")}
        | _success(run.evaluation)
        for run in runs
    ]


def _success(evaluation: Mapping[str, Any] | None) -> Record:
    if not evaluation:
        return {}
    tasks, blind = evaluation["tasks"], evaluation["blind"]
    successes, episodes = total(tasks)
    low, high = wilson(successes, episodes)
    found = {"success": successes / episodes, "success low": low, "success high": high}
    found |= {"successes": successes, "episodes": episodes, "evaluated at": evaluation["checkpoint"]["step"]}
    found |= {f"success/{task}": row["rate"] for task, row in tasks.items()}
    return found | {f"blind/{task}": row["rate"] for task, row in blind.items()}


def total(tasks: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Successes and episodes of all tasks."""
    return sum(row["successes"] for row in tasks.values()), sum(row["episodes"] for row in tasks.values())


def over_seeds(records: Sequence[Record], keys: Sequence[str], metrics: Sequence[str]) -> list[Record]:
    """One record for each combination of `keys` but the seed: mean, least and largest of metrics, success of all.

    The interval of the success takes all episodes for independent; it is too narrow where seeds differ by more.
    """
    keys = [key for key in keys if key != "seed"]
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(kind(record, keys), []).append(record)
    rows = []
    for members in groups.values():
        row = {key: members[0][key] for key in keys} | {"runs": len(members)}
        for metric in metrics:
            values = [member[metric] for member in members if is_number(member.get(metric))]
            if values:
                row |= {metric: sum(values) / len(values), f"{metric} least": min(values)}
                row |= {f"{metric} largest": max(values)}
        evaluated = [member for member in members if member.get("episodes")]
        if evaluated:
            successes, episodes = (sum(member[key] for member in evaluated) for key in ("successes", "episodes"))
            low, high = wilson(successes, episodes)
            row |= {"successes": successes, "episodes": episodes, "success": successes / episodes}
            row |= {"success low": low, "success high": high}
        rows.append(row)
    return rows


def kind(record: Record, keys: Sequence[str]) -> str:
    """The same for runs that differ in their seed only."""
    return json.dumps([record[key] for key in keys if key != "seed"])


def records(folder: str | Path) -> list[Record]:
    """`summaries` of all runs below a folder."""
    return summaries(find(folder))


def frame(folder: str | Path) -> Any:
    """`records` as a pandas DataFrame, indexed by run; pandas is in the extra `notebooks`."""
    import pandas

    return pandas.DataFrame(records(folder)).set_index("run")


def frame_of_metrics(folder: str | Path) -> Any:
    """All metrics as a pandas DataFrame with a row for each run and step, beside what the configs differ in."""
    import pandas

    runs = find(folder)
    keys = differing(runs)
    rows: dict[tuple[str, int], Record] = {}
    for run in runs:
        for record in run.metrics:
            of_run = {"run": run.name} | {key: run.config.get(key) for key in keys}
            rows.setdefault((run.name, record["step"]), of_run).update(record)
    return pandas.DataFrame(list(rows.values()))
