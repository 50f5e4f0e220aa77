"""Checks a checkpoint against recorded episodes in open loop, before a robot moves; no simulator is needed.

    python -m launch.check_policy --checkpoint=runs/demo [--data=PATH] [--split=val] [--episodes=4] [--json]

Prints the error of each action dimension beside those of two predictors that know nothing, and a warning where sign,
scale, zero or normalisation look wrong. Writes `check_policy.json` and a figure per episode.
"""

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags
from tqdm import tqdm

import launch
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import figures, tables
from pizero_jax.serve import open_loop
from pizero_jax.serve.policy import TrainedPolicy, load

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
DATA = flags.DEFINE_string("data", None, "Folder of an RLDS data set; the checkpoint's config.data.path by default.")
SPLIT = flags.DEFINE_string("split", None, "Split to replay; the checkpoint's config.data.val_split by default.")
EPISODES = flags.DEFINE_integer("episodes", 4, "How many, from the first on.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results; <checkpoint>/check_policy by default.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
JSON = flags.DEFINE_bool("json", False, "Print the results as JSON.")


def main() -> None:
    if not CHECKPOINT.value:
        raise InputError("--checkpoint is missing; name the workdir of a training run, such as --checkpoint=runs/demo")
    if OUTPUT.value:
        launch.writable("output", Path(OUTPUT.value))
    trained = load(CHECKPOINT.value, step=STEP.value, dataset=DATASET.value)
    output = Path(OUTPUT.value or Path(CHECKPOINT.value) / "check_policy")
    path, split = DATA.value or trained.config.data.path, SPLIT.value or trained.config.data.val_split
    results = check(trained, path, split, EPISODES.value, output)
    print(json.dumps(results, indent=2) if JSON.value else table(results, output))


def check(trained: TrainedPolicy, path: str, split: str, count: int, output: Path) -> dict[str, Any]:
    """Replays the first `count` episodes, writes figures and `check_policy.json` to `output`; returns the latter.

    Raises:
      InputError: the data set is missing, or not of the robot that the checkpoint was trained for.
    """
    try:
        episodes = open_loop.open_episodes(trained, path, split)
    except InputError as error:
        raise InputError(f"{error}. --data and --split choose what is replayed.") from error
    execute = max(1, min(trained.config.env.execute, trained.config.policy.chunk))
    bar = tqdm(range(min(count, len(episodes))), unit="episode", disable=None)
    key = jax.random.key(0)
    replays = [open_loop.replay(trained, episodes[i], execute, jax.random.fold_in(key, i)) for i in bar]
    rows = open_loop.dimensions(trained, replays)
    results = {
        "checkpoint": {"step": trained.step, "versions": trained.versions},
        "settings": {"data": path, "split": split, "episodes": len(replays), "execute": execute},
        "steps": sum(len(replay.recorded) for replay in replays),
        "versions": versions(),
        "dimensions": rows,
        "warnings": open_loop.suspicions(rows),
    }
    output.mkdir(parents=True, exist_ok=True)
    for figure in output.glob("episode_*.png"):  # of an earlier look, perhaps at other data
        figure.unlink()
    (output / "check_policy.json").write_text(json.dumps(results, indent=2) + "\n")
    names = [row["name"] for row in rows]
    for r in replays:
        file = output / f"episode_{r.episode}.png"
        figures.predicted_against_recorded(r.predicted, r.recorded, r.looks, names, file)
    return results


def table(results: dict[str, Any], output: Path) -> str:
    rows = [
        {
            "action": row["name"],
            "error": row["rmse"],
            "of recorded std": f"{row['rmse'] / row['recorded_std']:.0%}" if row["recorded_std"] else None,
            "recorded std": row["recorded_std"],
            "error of the mean action": row["rmse_of_mean_action"],
            "of the last action": row["rmse_of_last_action"],
            "correlation": row["correlation"],
        }
        for row in results["dimensions"]
    ]
    settings = results["settings"]
    head = (
        f"{settings['episodes']} episodes, {results['steps']} steps of {settings['data']} ({settings['split']}), "
        f"a look every {settings['execute']} steps; errors are root mean squares in the data's units"
    )
    warnings = [f"warning: {warning}" for warning in results["warnings"]] or ["nothing suspicious"]
    return "\n".join([head, "", tables.markdown(rows), "", *warnings, "", f"figures and check_policy.json: {output}"])


if __name__ == "__main__":
    launch.run(main)
