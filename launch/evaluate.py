"""Runs a checkpoint in closed loop in the simulator that its config names, sighted and blind.

    python -m launch.evaluate --checkpoint=runs/demo --episodes=50 [--json]

Writes `evaluation.json`, `episodes.png`, `episodes.gif` and `success.png` into the workdir.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

import launch
from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import Rollout, rollout
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import animation, figures, intervals, tables
from pizero_jax.serve.policy import TrainedPolicy, load

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
EPISODES = flags.DEFINE_integer("episodes", 50, "Start states per task, the same sighted and blind.", lower_bound=1)
TASKS = flags.DEFINE_list("tasks", None, "Tasks; those of the checkpoint's config.env by default.")
SEED = flags.DEFINE_integer("seed", 0, "The start states and the noise of the flow follow from it.", lower_bound=0)
NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Solver steps; the config's by default.", lower_bound=1)
EXECUTE = flags.DEFINE_integer(
    "execute", None, "Actions executed of each chunk; the config's by default.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; the checkpoint's by default.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
JSON = flags.DEFINE_bool("json", False, "Print the results as JSON.")

PICTURED = 8  # episodes in the contact sheet and in the animation


def main() -> None:
    if not CHECKPOINT.value:
        raise InputError("--checkpoint is missing; name the workdir of a training run, such as --checkpoint=runs/demo")
    trained = load(CHECKPOINT.value, step=STEP.value, dataset=DATASET.value)
    env_config = trained.config.env
    if TASKS.value:
        env_config = dataclasses.replace(env_config, tasks=tuple(TASKS.value))
    if EXECUTE.value:
        env_config = dataclasses.replace(env_config, execute=EXECUTE.value)
    check(trained, env_config)
    output = Path(OUTPUT.value or CHECKPOINT.value)
    output.mkdir(parents=True, exist_ok=True)
    results = evaluate(trained, env_config, output)
    print(json.dumps(results, indent=2) if JSON.value else table(results, output))


def check(trained: TrainedPolicy, env: EnvConfig) -> None:
    """Raises an InputError if this checkpoint cannot be run in its environment."""
    if not env.name or not env.tasks:
        raise InputError(
            "the checkpoint's config.env names no simulator and task; see launch.check_policy for real data"
        )
    if env.execute > trained.config.policy.chunk:
        raise InputError(f"--execute={env.execute} is more than config.policy.chunk = {trained.config.policy.chunk}")
    envs.check_rendering(env)


def evaluate(trained: TrainedPolicy, env_config: EnvConfig, output: Path) -> dict:
    """Successes of each task, sighted and blind (pictures zeroed), on the same unseen start states."""
    sighted = run_tasks(trained, env_config, "sighted")
    # A checkpoint that was trained blind sees nothing either way.
    blind = sighted if trained.config.data.blind else run_tasks(trained.blinded(), env_config, "blind")
    results = {
        "checkpoint": {"step": trained.step, "trained_blind": trained.config.data.blind, "versions": trained.versions},
        "settings": {
            "episodes": EPISODES.value,
            "seed": SEED.value,
            "num_steps": NUM_STEPS.value or getattr(trained.config.policy, "num_steps", None),
            **dataclasses.asdict(env_config),
        },
        "versions": versions(),
        "tasks": {task: score(rollouts) for task, rollouts in sighted.items()},
        "blind": {task: score(rollouts) for task, rollouts in blind.items()},
    }
    (output / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(sighted, results, output)
    return results


def run_tasks(trained: TrainedPolicy, env_config: EnvConfig, label: str) -> dict[str, list[Rollout]]:
    found = {}
    for task in env_config.tasks:
        env = envs.make(env_config, task)
        bar = tqdm(range(EPISODES.value), desc=f"{task} {label}", unit="episode", dynamic_ncols=True)
        found[task] = []
        for episode in bar:
            seed = SEED.value * 1_000_000 + episode
            found[task].append(run_episode(trained, env, env_config, seed, record=episode < PICTURED))
            bar.set_postfix_str(f"{sum(r.success for r in found[task])} succeeded")
        env.close()
    return found


def run_episode(trained: TrainedPolicy, env, env_config: EnvConfig, seed: int, record: bool) -> Rollout:
    looks = iter(range(env_config.max_steps))

    def act(observation, instruction):
        key = jax.random.fold_in(jax.random.key(seed), next(looks))
        observation = observation | {
            "images": {c: observation["images"][f] for c, f in trained.config.data.cameras.items()}
        }
        return np.asarray(trained.infer(observation, instruction, key, num_steps=NUM_STEPS.value))

    return rollout(
        env, act, seed=seed, split="eval", max_steps=env_config.max_steps, execute=env_config.execute, record=record
    )


def score(rollouts: list[Rollout]) -> dict:
    successes, episodes = sum(r.success for r in rollouts), len(rollouts)
    return {
        "successes": successes,
        "episodes": episodes,
        "rate": successes / episodes,
        "interval": intervals.wilson(successes, episodes),
    }


def draw(sighted: dict[str, list[Rollout]], results: dict, output: Path) -> None:
    pictured = [(task, r) for task, rollouts in sighted.items() for r in rollouts[:PICTURED]]
    labels = [f"{task} {r.seed}: {'success' if r.success else 'failure'}, {r.steps} steps" for task, r in pictured]
    figures.contact_sheet(
        [[r.frames[round(share * (len(r.frames) - 1))] for share in (0, 0.33, 0.67, 1)] for _, r in pictured],
        labels,
        output / "episodes.png",
    )
    short = [task if len(sighted) > 1 else f"start {r.seed}, {r.steps} steps" for task, r in pictured]
    animation.animate(
        [r.frames for _, r in pictured], short, output / "episodes.gif", successes=[r.success for _, r in pictured]
    )
    bars = [
        {"task": task, "policy": policy, "successes": row["successes"], "episodes": row["episodes"]}
        for policy, rows in (("sighted", results["tasks"]), ("blind", results["blind"]))
        for task, row in rows.items()
    ]
    figures.success_bars(bars, output / "success.png")


def table(results: dict, output: Path) -> str:
    rows = [
        {
            "task": task,
            "success": tables.percent_interval(row["successes"], row["episodes"]),
            "the same checkpoint blind (pictures zeroed)": tables.percent_interval(
                results["blind"][task]["successes"], results["blind"][task]["episodes"]
            ),
        }
        for task, row in results["tasks"].items()
    ]
    return f"{tables.markdown(rows)}\n\npictures, animation and evaluation.json: {output}"


if __name__ == "__main__":
    launch.run(main)
