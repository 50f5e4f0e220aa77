"""Trains, and evaluates if wanted, every point of a sweep: what is finished is skipped, what is not goes on.

    python -m launch.sweep --config=configs/pi0_metaworld.py --output=runs/rates --parallel=2 \\
        --grid optimizer.peak=1e-4,3e-4 --grid optimizer.ema=0.9,0.99 --seeds=3 [--evaluate] [--config.steps=500 ...]
    python -m launch.sweep --config=... --sweep=configs/sweeps/learning_rate.py --list | --count | --dry-run | --index=4

All points are checked before the first starts. Each is an ordinary training run in a folder below --output that is
named after its config, so that the same command again does what is left. `--index` becomes the one command that this
point needs next: in the element of an array, or on every host of a pod. More: docs/sweeps.md; then see launch.report.

Ends with status 0 when all are finished, 1 when some failed, 2 for a mistake, 75 when told to stop.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

import launch
from launch import points
from launch.runs import Evaluation, Run, run_all
from pizero_jax.errors import InputError
from pizero_jax.report import tables

CONFIG = config_flags.DEFINE_config_file("config", help_string="What all points start from; --config.* is for all.")
SWEEP = flags.DEFINE_multi_string("sweep", [], "configs/sweeps/x.py: its function `sweep`; or x.py:other.")
GRID = flags.DEFINE_multi_string("grid", [], "Key and values: optimizer.peak=1e-4,3e-4; each further one multiplies.")
SEEDS = flags.DEFINE_integer("seeds", None, "Every point with this many seeds, from 0.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "runs/sweep", "Folder that the runs are in.")
EVALUATE = flags.DEFINE_bool("evaluate", False, "Run launch.evaluate on what has been trained.")
EPISODES = flags.DEFINE_integer("episodes", 50, "Of an evaluation, for each task.", lower_bound=1)
PARALLEL = flags.DEFINE_integer("parallel", 1, "Runs at a time.", lower_bound=1)
GPUS = flags.DEFINE_integer("gpus_each", 0, "GPUs for each of them; 0: all see all.", lower_bound=0)
LIST = flags.DEFINE_bool("list", False, "Show the points and how far each is.")
COUNT = flags.DEFINE_bool("count", False, "Print how many points there are.")
INDEX = flags.DEFINE_integer("index", None, "Become the next command of this point.", lower_bound=0)
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the commands that would run, one a line.")
JSON = flags.DEFINE_bool("json", False, "--list as JSON.")


def main() -> None:
    runs = expanded()
    if INDEX.value is not None:
        if INDEX.value >= len(runs):
            raise InputError(f"--index={INDEX.value}: the sweep has {len(runs)} points, from 0")
        runs = [runs[INDEX.value]]
    if COUNT.value:
        print(len(runs))
    elif LIST.value:
        rows = [row(run) for run in runs]
        print(json.dumps(rows, indent=2) if JSON.value else tables.markdown(rows))
    elif DRY_RUN.value:
        for command in (command for run in runs for command in run.commands()):
            print(shlex.join(command))
    elif INDEX.value is not None:
        become(runs[0])
    else:
        sys.exit(run_all(runs, PARALLEL.value, GPUS.value))


def expanded() -> list[Run]:
    """Every run of the sweep; InputError if there is a mistake in one."""
    axes = [points.of_file(place) for place in SWEEP.value]
    axes += [points.of_grid(text, CONFIG.value) for text in GRID.value]
    if SEEDS.value:
        axes += [[{"seed": seed} for seed in range(SEEDS.value)]]
    given = dict(config_flags.get_override_values(flags.FLAGS["config"]))
    output = Path(OUTPUT.value)
    if not CONFIG.value.wandb.group:
        given["wandb.group"] = output.name
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    evaluation = Evaluation(EPISODES.value) if EVALUATE.value else None
    found = [Run(point, output, evaluation) for point in points.expand(file, given, points.changes(axes))]
    for run in found:
        if evaluation and not (run.point.config.env.name and run.point.config.env.tasks):
            raise InputError(f"{run.point}: config.env names no simulator and task, which --evaluate needs")
    return found


def row(run: Run) -> dict[str, Any]:
    return {"index": run.point.index} | run.point.overrides | {"state": run.state(), "run": run.point.name}


def become(run: Run) -> None:
    """Turns this process into the next command of the run: signals and the exit status are those of training."""
    command = next(iter(run.commands()), None)
    if command is None:
        print(f"{run.point}: finished", file=sys.stderr)
        return
    print(shlex.join(command), file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *command[1:]])


if __name__ == "__main__":
    launch.run(main)
