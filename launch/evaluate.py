"""Runs a checkpoint in closed loop in the simulator that its config names, sighted and blind.

    python -m launch.evaluate --checkpoint=runs/demo --episodes=50 [--json]
    python -m launch.evaluate --server=ws://localhost:8000 --output=results

Writes `evaluation.json`, `episodes.png`, `episodes.gif` and `success.png` into the workdir, or, if it was asked for
otherwise than by default (--step, --latency_ms, ..), into `evaluations/` there. Through a server the same
seeds give the same episodes; its API key, if it wants one, comes from the environment variable PIZERO_API_KEY.
"""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

import launch
from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import Rollout, jerk, rollout
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import animation, figures, intervals, tables
from pizero_jax.serve import acting, quantize
from pizero_jax.serve.acting import Acting
from pizero_jax.serve.coherence import Coherent
from pizero_jax.serve.compiled import METHODS
from pizero_jax.serve.policy import load

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
SERVER = flags.DEFINE_string("server", None, "Address of launch.serve, instead of a checkpoint.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
EPISODES = flags.DEFINE_integer("episodes", 50, "Start states per task, the same sighted and blind.", lower_bound=1)
TASKS = flags.DEFINE_list("tasks", None, "Tasks; those of the checkpoint's config.env by default.")
SEED = flags.DEFINE_integer(
    "seed", 0, "The start states and the noise of the flow follow from it.", lower_bound=0, upper_bound=2_146
)  # times a million, below 2^31
NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Solver steps; the config's by default.", lower_bound=1)
SOLVER = flags.DEFINE_enum("solver", None, METHODS, "How the flow is solved; the config's by default.")
EXECUTE = flags.DEFINE_integer(
    "execute", None, "Actions executed of each chunk; the config's by default.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; the checkpoint's by default.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
WEIGHTS = flags.DEFINE_enum("weights", None, quantize.WEIGHTS, "What they are held as; as they were saved by default.")
LATENCY = flags.DEFINE_float("latency_ms", 0.0, "Chunks arrive so late; the robot goes on meanwhile.", lower_bound=0.0)
JITTER = flags.DEFINE_float("jitter_ms", 0.0, "So much later at most, at random for each chunk.", lower_bound=0.0)
REAL_TIME = flags.DEFINE_bool("real_time", False, "Tell the policy what is executed until its chunk arrives.")
SAMPLES = flags.DEFINE_integer(
    "samples", 1, "Chunks drawn at each look; the one that goes on best from the last is taken.", lower_bound=1
)
HZ = flags.DEFINE_float(
    "hz", None, "Actions per second, which delays need; the data set's by default.", lower_bound=0.1
)
BLIND = flags.DEFINE_bool("blind", True, "Also with pictures zeroed, as a control.")
OTHERWISE = (
    "step", "tasks", "seed", "num_steps", "solver", "execute", "dataset", "weights", "latency_ms", "jitter_ms",
    "real_time", "samples",
)  # fmt: skip
"""Flags that make another evaluation of one of a run."""
JSON = flags.DEFINE_bool("json", False, "Print the results as JSON.")

PICTURED = 8  # episodes in the contact sheet and in the animation


def main() -> None:
    if OUTPUT.value:
        launch.writable("output", Path(OUTPUT.value))
    if SERVER.value is None:
        if not CHECKPOINT.value:
            raise InputError(
                "--checkpoint is missing; name the workdir of a training run, such as --checkpoint=runs/demo"
            )
        trained = load(CHECKPOINT.value, step=STEP.value, dataset=DATASET.value)
        trained = quantize.with_weights(trained, WEIGHTS.value)
        run(acting.of_checkpoint(trained, NUM_STEPS.value, SOLVER.value))
        return
    for flag in (CHECKPOINT, STEP, DATASET, WEIGHTS):
        if flag.value is not None:
            raise InputError(f"--{flag.name} is chosen where the server is started; leave it out beside --server")
    if not OUTPUT.value:
        raise InputError("--output is missing; name the folder of the results")
    try:
        from pizero_jax.serve.client import Client, Refused
    except ModuleNotFoundError as error:
        raise InputError(f"--server needs the package {error.name}: pip install 'pizero_jax[serve]'") from error

    try:
        with Client(SERVER.value, api_key=os.environ.get("PIZERO_API_KEY")) as client:
            run(acting.of_server(client.infer, client.metadata, NUM_STEPS.value, SOLVER.value))
    except (Refused, ConnectionError) as error:
        raise InputError(f"--server={SERVER.value}: {error}") from error


def run(policy: Acting) -> None:
    env_config = policy.env
    if TASKS.value:
        env_config = dataclasses.replace(env_config, tasks=tuple(TASKS.value))
    if EXECUTE.value:
        env_config = dataclasses.replace(env_config, execute=EXECUTE.value)
    check(policy, env_config)
    output = Path(OUTPUT.value) if OUTPUT.value else default_output(Path(CHECKPOINT.value))
    output.mkdir(parents=True, exist_ok=True)
    results = evaluate(policy, env_config, output)
    print(json.dumps(results, indent=2) if JSON.value else table(results, output))


def default_output(workdir: Path) -> Path:
    """The workdir for its newest checkpoint, run by default; others have folders of their own, and leave that alone."""
    asked = {
        name: flags.FLAGS[name].value for name in OTHERWISE if flags.FLAGS[name].value != flags.FLAGS[name].default
    }
    named = [f"{name}={'+'.join(x) if isinstance(x, list) else x}" for name, x in asked.items()]
    return workdir / "evaluations" / ",".join(named) if asked else workdir


def check(policy: Acting, env: EnvConfig) -> None:
    """Raises an InputError if this policy cannot be run in its environment."""
    if not env.name or not env.tasks:
        raise InputError(
            "the checkpoint's config.env names no simulator and task; see launch.check_policy for real data"
        )
    if env.execute > policy.chunk:
        raise InputError(f"--execute={env.execute} is more than config.policy.chunk = {policy.chunk}")
    rest = policy.chunk - env.execute
    if late(policy) > rest:
        raise InputError(
            f"--latency_ms={LATENCY.value:g} --jitter_ms={JITTER.value:g}: up to {late(policy)} actions late; a chunk "
            f"has {rest} to go on with, as --execute={env.execute} of config.policy.chunk = {policy.chunk}"
        )
    if late(policy) > env.execute:
        raise InputError(
            f"--latency_ms={LATENCY.value:g} --jitter_ms={JITTER.value:g}: up to {late(policy)} actions late; with "
            f"--execute={env.execute} the next chunk would be asked for before the last one is there"
        )
    if REAL_TIME.value and policy.max_delay is None:
        started = "" if SERVER.value is None else ", or its server was started without --real_time"
        raise InputError(f"--real_time: this policy has no flow that could go on from a plan{started}")
    if REAL_TIME.value and 0 < policy.max_delay < late(policy):
        raise InputError(
            f"--real_time: chunks come up to {late(policy)} actions late, and this policy was trained with "
            f"config.loss.max_delay = {policy.max_delay}"
        )
    if SAMPLES.value > 1 and policy.num_steps is None:
        raise InputError(f"--samples={SAMPLES.value}: this policy has no flow, and draws nothing; leave it out")
    envs.check_rendering(env)


def late(policy: Acting) -> int:
    """The largest delay in actions; InputError if it is not known how long one takes."""
    if not LATENCY.value and not JITTER.value:
        return 0
    hz = HZ.value or policy.hz
    if not hz:
        raise InputError("--hz is missing; --latency_ms and --jitter_ms need it, and the data set does not say it")
    return math.ceil((LATENCY.value + JITTER.value) / 1e3 * hz)


def evaluate(policy: Acting, env_config: EnvConfig, output: Path) -> dict:
    """Successes of each task, sighted and blind (pictures zeroed), on the same unseen start states."""
    sighted, blind = run_tasks(policy, env_config, "sighted"), {}
    if BLIND.value:  # a checkpoint that was trained blind sees nothing either way
        blind = sighted if policy.blind else run_tasks(policy.blinded(), env_config, "blind")
    results = {
        "checkpoint": {"step": policy.step, "trained_blind": policy.blind, "versions": policy.versions},
        "settings": {
            "episodes": EPISODES.value,
            "seed": SEED.value,
            "num_steps": policy.num_steps,
            "solver": policy.solver,
            "weights": policy.weights,
            "server": SERVER.value,
            "hz": HZ.value or policy.hz or None,
            "latency_ms": LATENCY.value,
            "jitter_ms": JITTER.value,
            "real_time": REAL_TIME.value,
            "samples": SAMPLES.value,
            **dataclasses.asdict(env_config),
        },
        "versions": versions(),
        "tasks": {task: score(rollouts) for task, rollouts in sighted.items()},
        "blind": {task: score(rollouts) for task, rollouts in blind.items()},
    }
    (output / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(sighted, results, output)
    return results


def run_tasks(policy: Acting, env_config: EnvConfig, label: str) -> dict[str, list[Rollout]]:
    found = {}
    for task in env_config.tasks:
        env = envs.make(env_config, task)
        bar = tqdm(range(EPISODES.value), desc=f"{task} {label}", unit="episode", dynamic_ncols=True)
        found[task] = []
        for episode in bar:
            seed = SEED.value * 1_000_000 + episode
            found[task].append(run_episode(policy, env, env_config, seed, record=episode < PICTURED))
            bar.set_postfix_str(f"{sum(r.success for r in found[task])} succeeded")
        env.close()
    return found


def run_episode(policy: Acting, env, env_config: EnvConfig, seed: int, record: bool) -> Rollout:
    looks, random = iter(range(env_config.max_steps)), np.random.default_rng(seed)

    def draw(observation, instruction, ahead):
        look = next(looks)
        numbers = range(look, look + SAMPLES.value * env_config.max_steps, env_config.max_steps)
        return np.stack([policy.infer(observation, instruction, seed, number, ahead) for number in numbers])

    def delay():
        latency = LATENCY.value + JITTER.value * random.random()
        return math.ceil(latency / 1e3 * (HZ.value or policy.hz)) if latency else 0

    infer = Coherent(draw, env_config.execute)
    act = acting.HandOver(infer, env_config.execute, delay, late(policy), REAL_TIME.value)
    result = rollout(
        env, act, seed=seed, split="eval", max_steps=env_config.max_steps, execute=env_config.execute, record=record
    )
    return dataclasses.replace(result, borders=tuple(act.borders))


def score(rollouts: list[Rollout]) -> dict:
    """Successes, and the mean jerk where one chunk takes over from another, and over all steps."""
    successes, episodes = sum(r.success for r in rollouts), len(rollouts)
    at_borders = np.concatenate([jerk(r.actions, r.borders) for r in rollouts])
    everywhere = np.concatenate([jerk(r.actions, range(r.steps)) for r in rollouts])
    return {
        "successes": successes,
        "episodes": episodes,
        "rate": successes / episodes,
        "interval": intervals.wilson(successes, episodes),
        "jerk_at_borders": float(at_borders.mean()) if len(at_borders) else None,
        "jerk": float(everywhere.mean()) if len(everywhere) else None,
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
    columns = {"success": results["tasks"], "the same checkpoint blind (pictures zeroed)": results["blind"]}
    rows = [
        {"task": task}
        | {
            name: tables.percent_interval(scores[task]["successes"], scores[task]["episodes"])
            for name, scores in columns.items()
            if scores
        }
        for task in results["tasks"]
    ]
    return f"{tables.markdown(rows)}\n\npictures, animation and evaluation.json: {output}"


if __name__ == "__main__":
    launch.run(main)
