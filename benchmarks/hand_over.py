"""Success and jerk when chunks arrive late: the naive hand-over against real-time chunking.

    python -m benchmarks.hand_over --plain=runs/quickstart [--trained=runs/delayed] [--episodes=50] [--figure=FILE]

`--plain` are workdirs of training runs (several seeds of one config, separated by commas), `--trained` of runs with
`config.loss.max_delay`. Delays are in actions; all ways get the same start states and noise. What has been evaluated
already, in `<workdir>/hand_over/`, is not evaluated again.
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from tqdm import tqdm

import launch
from pizero_jax.errors import InputError
from pizero_jax.report import intervals, tables
from pizero_jax.report.figures import COLORS

_PLAIN = flags.DEFINE_list("plain", [], "Workdirs of policies that were trained without delays.")
_TRAINED = flags.DEFINE_list("trained", [], "Workdirs of policies that were trained with them.")
_DELAYS = flags.DEFINE_list("delays", ["0", "1", "2", "3", "4"], "Actions that a chunk is late.")
_EPISODES = flags.DEFINE_integer("episodes", 50, "Start states for each workdir.", lower_bound=1)
_EXECUTE = flags.DEFINE_integer("execute", None, "Actions between two looks; the config's by default.")
_FIGURE = flags.DEFINE_string("figure", None, "A picture of it.")

HZ = 20  # so that four actions are 200 ms


def main() -> None:
    if not _PLAIN.value and not _TRAINED.value:
        raise InputError("--plain or --trained is missing; name workdirs of training runs")
    ways = {"naive": (_PLAIN.value, []), "guided": (_PLAIN.value, ["--real_time"])}
    ways |= {"trained": (_TRAINED.value, ["--real_time"])}
    todo = [(way, int(delay)) for way, (workdirs, _) in ways.items() if workdirs for delay in _DELAYS.value]
    rows = []
    for way, delay in tqdm(todo, unit="setting"):
        workdirs, more = ways[way]
        scores = [evaluate(Path(workdir), way, delay, more) for workdir in workdirs]
        successes, episodes = (sum(score[key] for score in scores) for key in ("successes", "episodes"))
        by_run = ", ".join(str(score["successes"]) for score in scores)
        rows.append(
            {"hand-over": way, "delay": delay, "successes": successes, "episodes": episodes, "by run": by_run}
            | {key: [score[key] for score in scores] for key in ("jerk_at_borders", "jerk")}
        )
    print(tables.markdown([shown(row) for row in rows]))
    if _FIGURE.value:
        draw(rows, Path(_FIGURE.value))


def evaluate(workdir: Path, way: str, delay: int, more: list[str]) -> dict:
    """The score of one workdir, over its tasks."""
    execute = [f"--execute={_EXECUTE.value}"] if _EXECUTE.value else []
    folder = workdir / "hand_over" / "_".join([way, str(delay), *(option.strip("-") for option in execute)])
    if not (folder / "evaluation.json").exists():
        line = [sys.executable, "-m", "launch.evaluate", f"--checkpoint={workdir}", f"--episodes={_EPISODES.value}",
                "--noblind", f"--output={folder}", f"--hz={HZ}", f"--latency_ms={1e3 * delay / HZ}",
                *more, *execute]  # fmt: skip
        result = subprocess.run(line, capture_output=True, text=True)
        if result.returncode:
            raise InputError(f"{workdir}: {result.stderr.splitlines()[-1]}")
    found = json.loads((folder / "evaluation.json").read_text())
    if found["settings"]["episodes"] != _EPISODES.value:
        raise InputError(f"{folder} is of {found['settings']['episodes']} episodes, not {_EPISODES.value}; remove it")
    scores = list(found["tasks"].values())
    total = {key: sum(score[key] for score in scores) for key in ("successes", "episodes")}
    return total | {key: float(np.mean([score[key] for score in scores])) for key in ("jerk_at_borders", "jerk")}


def shown(row: dict) -> dict:
    counts = row["successes"], row["episodes"]
    return {
        "hand-over": row["hand-over"],
        "delay": row["delay"],
        "success": tables.percent_interval(*counts),
        "by run": row["by run"],
        "jerk at borders": over_runs(row["jerk_at_borders"]),
        "jerk": over_runs(row["jerk"]),
    }


def over_runs(values: list[float]) -> str:
    """Their mean, and the lowest and the highest."""
    return f"{np.mean(values):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if values[1:] else "")


def draw(rows: list[dict], file: Path) -> None:
    """Success with its interval, and jerk, over the delay."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for way, color in zip(dict.fromkeys(row["hand-over"] for row in rows), COLORS, strict=False):
        mine = [row for row in rows if row["hand-over"] == way]
        delays = [row["delay"] for row in mine]
        rates = np.array([row["successes"] / row["episodes"] for row in mine])
        low, high = np.array([intervals.wilson(row["successes"], row["episodes"]) for row in mine]).T
        axes[0].errorbar(
            delays, 100 * rates, 100 * np.array([rates - low, high - rates]), fmt="o-", color=color, capsize=3
        )
        jerks = np.array([row["jerk_at_borders"] for row in mine])  # [delays, runs]
        mean = jerks.mean(axis=1)
        ends = [mean - jerks.min(axis=1), jerks.max(axis=1) - mean]
        axes[1].errorbar(delays, mean, ends, fmt="o-", color=color, capsize=3, label=way)
    axes[0].set(xlabel="delay (actions)", ylabel="success (%)", ylim=(0, 103))
    axes[1].set(xlabel="delay (actions)", ylabel="jerk where a chunk takes over", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    launch.run(main, config_needed=False)
