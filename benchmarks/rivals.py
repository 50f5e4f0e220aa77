"""Trained policies side by side: success, over the calls of the network, beside latency, parameters and training cost.

    python -m launch.sweep --config=configs/pi0_metaworld.py --sweep=configs/sweeps/rivals.py --output=runs/rivals
    python -m benchmarks.rivals --runs=runs/rivals --figure=docs/rivals.png [--steps=1,2,5,10] [--episodes=50]

Every policy gets the same start states. Runs that differ in nothing but their seed are one row. What has been evaluated
already, in `<run>/steps_N/`, is not evaluated again.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib.ticker import LogLocator, NullFormatter
from tqdm import tqdm

import launch
from pizero_jax.config import TrainConfig
from pizero_jax.errors import InputError
from pizero_jax.report import intervals, tables
from pizero_jax.report.figures import COLORS
from pizero_jax.serve.compiled import Solver, blank, compile_policy
from pizero_jax.serve.policy import TrainedPolicy, load

_RUNS = flags.DEFINE_string("runs", None, "Folder of workdirs of training runs, as launch.sweep leaves it.")
_STEPS = flags.DEFINE_list("steps", ["1", "2", "5", "10"], "Solver steps of the policies that have a solver.")
_EPISODES = flags.DEFINE_integer("episodes", 50, "Start states for each run.", lower_bound=1)
_FIGURE = flags.DEFINE_string("figure", None, "A picture of it.")

CALLS = 30  # timed for a latency


@dataclasses.dataclass
class Row:
    """A policy with so many solver steps (None: it has none), over all of its runs."""

    policy: str
    steps: int | None
    own: bool  # the number of steps that its config has
    calls: int
    successes: list[int]
    milliseconds: float
    parameters: int
    training: float  # samples shown, each with its draws of noise


def main() -> None:
    if not _RUNS.value:
        raise InputError("--runs is missing; name a folder of training runs")
    workdirs = sorted(file.parent for file in Path(_RUNS.value).glob("*/config.json"))
    if not workdirs:
        raise InputError(f"--runs={_RUNS.value} has no folder with a config.json")
    found: dict[tuple, Row] = {}
    for workdir in tqdm(workdirs, unit="run"):
        trained = load(workdir)
        for steps in asked(trained):
            key = label(trained.config), steps
            successes = evaluate(workdir, steps)
            if key in found:
                found[key].successes.append(successes)
            else:
                found[key] = row(trained, steps, successes)
    rows = sorted(found.values(), key=lambda row: (row.policy, row.steps or 0))
    print(tables.markdown([shown(row) for row in rows]))
    if _FIGURE.value:
        draw(rows, Path(_FIGURE.value))


def label(config: TrainConfig) -> str:
    """The policy's name, with what it predicts where that is not its usual."""
    name, loss = config.policy.name, config.loss
    if name == "pi0_fast":
        return f"{name}, {config.data.action_tokens.kind}"
    return f"{name}, {loss.prediction} of {loss.path}" if name == "pi0" and loss.path != "straight" else name


def asked(trained: TrainedPolicy) -> list[int | None]:
    """The numbers of solver steps that are tried."""
    if trained.policy.velocity is None:
        return [None]
    return sorted({*(int(steps) for steps in _STEPS.value), trained.config.policy.num_steps})


def evaluate(workdir: Path, steps: int | None) -> int:
    """Successes."""
    folder = workdir / (f"steps_{steps}" if steps else "steps_none")
    file = folder / "evaluation.json"
    if not file.exists():
        line = [sys.executable, "-m", "launch.evaluate", f"--checkpoint={workdir}", f"--episodes={_EPISODES.value}",
                "--noblind", f"--output={folder}", *([f"--num_steps={steps}"] if steps else [])]  # fmt: skip
        result = subprocess.run(line, capture_output=True, text=True)
        if result.returncode:
            raise InputError(f"{workdir}: {result.stderr.splitlines()[-1]}")
    found = json.loads(file.read_text())
    if found["settings"]["episodes"] != _EPISODES.value:
        raise InputError(f"{file} is of {found['settings']['episodes']} episodes, not {_EPISODES.value}; remove it")
    return sum(task["successes"] for task in found["tasks"].values())


def row(trained: TrainedPolicy, steps: int | None, successes: int) -> Row:
    config = trained.config
    if steps:
        calls = dataclasses.replace(config.policy, num_steps=steps).calls
    else:
        calls = getattr(config.policy, "token_length", 1)  # at most one for each token that is written
    return Row(
        label(config),
        steps,
        steps is None or steps == config.policy.num_steps,
        calls,
        [successes],
        latency(trained, steps),
        sum(x.size for x in jax.tree.leaves(trained.params)),
        config.steps * config.batch_size * config.loss.samples_per_observation,
    )


def latency(trained: TrainedPolicy, steps: int | None) -> float:
    """Milliseconds of the compiled policy for one observation, the median."""
    solver = Solver(steps, trained.config.policy.solver) if steps else None
    policy, seen = compile_policy(trained, solvers=[solver] if solver else ()), blank(trained)
    states = trained.statistics["state"].mean[None]
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        policy.infer([seen], states, [(0, 0)], solver)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def shown(row: Row) -> dict:
    return {
        "policy": row.policy,
        "solver steps": row.steps,
        "calls": row.calls,
        "success": tables.percent_interval(sum(row.successes), _EPISODES.value * len(row.successes)),
        "by seed": ", ".join(map(str, row.successes)),
        "ms per chunk": f"{row.milliseconds:.1f}",
        "parameters": f"{row.parameters / 1e6:.2f} M",
        "samples shown": f"{row.training / 1e3:.0f}k",
    }


def draw(rows: Sequence[Row], file: Path) -> None:
    """Success with its interval: over the calls of the network, and over the latency of a chunk."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    styles = [(color, marker) for marker in "os^" for color in COLORS]
    for (color, marker), name in zip(styles, dict.fromkeys(row.policy for row in rows), strict=False):
        mine = [row for row in rows if row.policy == name]
        totals = [(sum(row.successes), _EPISODES.value * len(row.successes)) for row in mine]
        rates = 100 * np.array([successes / episodes for successes, episodes in totals])
        ends = 100 * np.array([intervals.wilson(*total) for total in totals])
        errors = np.abs(ends.T - rates)
        for axis, values in zip(axes, ([row.calls for row in mine], [row.milliseconds for row in mine]), strict=True):
            axis.errorbar(values, rates, errors, fmt=f"{marker}-", color=color, capsize=3, alpha=0.85)
        axes[0].plot([], [], f"{marker}-", color=color, label=name)
    axes[0].set(xlabel="calls of the network for a chunk", ylabel="success (%)", xscale="log", ylim=(-3, 103))
    axes[1].set(xlabel="latency of a chunk (ms)", xscale="log")
    for axis in axes:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    launch.run(main, config_needed=False)
