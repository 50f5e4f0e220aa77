"""Collects demonstrations of a scripted expert into an RLDS data set.

    python -m launch.collect --config=configs/collect_metaworld.py [--config.demonstrations=10] [--resume] [--json]

Every attempt is kept in `<path>.partial/` until the data set is complete, so that a killed collection goes on with
--resume and ends with the same data set.
"""

import dataclasses
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import simplejpeg
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

import launch
from pizero_jax import envs
from pizero_jax.config import CollectConfig, build
from pizero_jax.data import rlds_write
from pizero_jax.data.rlds_write import Episode
from pizero_jax.errors import InputError
from pizero_jax.provenance import versions
from pizero_jax.report import tables
from pizero_jax.report.figures import contact_sheet

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/collect_metaworld.py.")
RESUME = flags.DEFINE_bool("resume", False, "Go on with a collection that was interrupted.")
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace the data set, or the interrupted collection, at config.path."
)
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")

SHEET_EPISODES = 12
PATIENCE = 20  # failures for each success, and before the first, that end the collection; experts fail 1 in 5 at worst
SEEDS = 1_000_000  # start states of a seed of the config, so that two seeds share none
LAST_SEED = 2**31 // SEEDS - 1  # simulators take 32 bits


def main() -> None:
    config = build(CollectConfig, CONFIG.value)
    _check(config)
    envs.check_rendering(config.env)
    summary = collect(config, resume=RESUME.value, overwrite=OVERWRITE.value)
    print(json.dumps(summary, indent=2) if JSON.value else _table(summary))


def collect(config: CollectConfig, *, resume: bool = False, overwrite: bool = False) -> dict:
    """Writes the data set, `contact_sheet.png` and `summary.json` to `config.path`; returns the summary.

    Raises:
      InputError: there is something at `config.path` and neither `resume` nor `overwrite` says what to do with it, or
        the interrupted collection was made with another config.
    """
    path = Path(config.path)
    partial = path.with_name(f"{path.name}.partial")
    if resume and (path / "summary.json").exists():
        summary = json.loads((path / "summary.json").read_text())
        _same_config(config, summary["config"], path)
        return summary
    _prepare(config, path, partial, resume=resume, overwrite=overwrite)
    successes, attempts = _attempt_all(config, partial)
    splits = {"train": _interleave(successes, 0, config.demonstrations)}
    if held_out(config):
        splits["val"] = _interleave(successes, config.demonstrations, None)
    summary = _summary(config, splits, attempts)
    complete = _write(config, splits, summary, partial)
    if path.exists():
        path.rename(partial / "replaced")  # empty, or --overwrite; gone only once the new one is in its place
    complete.rename(path)
    shutil.rmtree(partial)
    return summary


def held_out(config: CollectConfig) -> int:
    """Episodes per task of the split "val": `val_fraction` of all of them, at least one unless the fraction is zero."""
    share = config.val_fraction / (1 - config.val_fraction)
    return max(1, round(config.demonstrations * share)) if config.val_fraction else 0


def demonstrate(env, config: CollectConfig, seed: int) -> Episode:
    """One episode of the expert from start state `seed`; noise moves the executed action, the label stays clean."""
    random = np.random.default_rng([seed, *env.task.encode()])
    observation, _ = env.reset(seed=seed, options={"split": "train"})
    images, states, actions, rewards = {camera: [] for camera in observation["images"]}, [], [], []
    success, left, truncated = False, config.steps_after_success, False
    while not truncated and (not success or left > 0):
        left -= success
        action = env.expert_action()
        for camera, picture in observation["images"].items():
            images[camera].append(rlds_write.encode_jpeg(picture, config.jpeg_quality))
        states.append(observation["state"])
        actions.append(action)
        observation, reward, _, truncated, info = env.step(action + config.noise * random.normal(size=action.shape))
        rewards.append(reward)
        success = success or info["success"]
    return Episode(
        images, np.stack(states), np.stack(actions), np.float32(rewards), env.instruction, env.task, seed, success
    )


def _check(config: CollectConfig) -> None:
    if not config.path:
        raise InputError("config.path is empty; name the folder of the data set, such as data/reach/1.0.0")
    if config.demonstrations < 1:
        raise InputError(f"config.demonstrations = {config.demonstrations} should be at least 1")
    if not 0 <= config.val_fraction < 1:
        raise InputError(f"config.val_fraction = {config.val_fraction} should be in [0, 1)")
    if not config.env.tasks:
        raise InputError("config.env.tasks is empty; name at least one task")
    if not 0 <= config.seed <= LAST_SEED:
        raise InputError(f"config.seed = {config.seed} should be in 0 ... {LAST_SEED}")
    if not 1 <= config.jpeg_quality <= 100:
        raise InputError(f"config.jpeg_quality = {config.jpeg_quality} should be in 1 ... 100")
    if find_spec("tensorflow") is None:  # better now than after an hour of collecting
        raise InputError("writing RLDS data needs TensorFlow: pip install 'pizero_jax[tf]'")


def _prepare(config: CollectConfig, path: Path, partial: Path, *, resume: bool, overwrite: bool) -> None:
    """The folder of attempts, new or continued; removes nothing that is not asked for and not ours."""
    if path.exists() and any(path.iterdir()):
        if not overwrite:
            raise InputError(f"{path} is not empty; --overwrite replaces it, or choose another config.path")
        if not (path / "dataset_info.json").exists():
            raise InputError(f"{path} is not a data set, so --overwrite leaves it alone; choose another config.path")
    if partial.exists() and overwrite:
        shutil.rmtree(partial)
    if partial.exists() and not resume:
        raise InputError(f"{partial} holds an interrupted collection; --resume continues it, --overwrite starts again")
    partial.mkdir(parents=True, exist_ok=True)
    saved = partial / "config.json"
    if saved.exists():
        _same_config(config, json.loads(saved.read_text()), partial)
    _write_atomically(saved, json.dumps(dataclasses.asdict(config)).encode())


def _same_config(config: CollectConfig, saved: dict, where: Path) -> None:
    current = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples as lists, as in the file
    for key, value in current.items():
        if saved[key] != value:
            raise InputError(
                f"{where} was made with config.{key} = {saved[key]!r}, not {value!r}; "
                "restore it, or --overwrite starts again"
            )


def _attempt_all(config: CollectConfig, partial: Path) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """Task by task in turn until each has its episodes: files of the successes, and how many attempts it took."""
    wanted = config.demonstrations + held_out(config)
    successes: dict[str, list[Path]] = {task: [] for task in config.env.tasks}
    attempts = dict.fromkeys(config.env.tasks, 0)
    made = {task: envs.make(config.env, task) for task in config.env.tasks}
    with tqdm(total=wanted * len(made), unit="episode", file=sys.stderr, disable=None) as bar:
        while pending := [task for task in made if len(successes[task]) < wanted]:
            for task in pending:
                file = _attempt(made[task], config, config.seed * SEEDS + attempts[task], partial)
                attempts[task] += 1
                if file is not None:
                    successes[task].append(file)
                    bar.update()
                elif attempts[task] - len(successes[task]) >= PATIENCE * (1 + len(successes[task])):
                    raise InputError(f"the expert of {task} solved {len(successes[task])} of {attempts[task]} start "
                                     "states; lower config.noise or raise config.env.max_steps")  # fmt: skip
    for env in made.values():
        env.close()
    return successes, attempts


def _attempt(env, config: CollectConfig, seed: int, partial: Path) -> Path | None:
    """The file of the episode from this start state, collected unless it is there; None if the expert failed."""
    file, failed = partial / f"{env.task}_{seed}.npz", partial / f"{env.task}_{seed}.failed"
    if not file.exists() and not failed.exists():
        began = time.time()
        episode = demonstrate(env, config, seed)
        if episode.success:
            _save(episode, time.time() - began, file)
        else:
            _write_atomically(failed, b"")
    return file if file.exists() else None


def _save(episode: Episode, seconds: float, file: Path) -> None:
    values = dataclasses.asdict(episode) | {"seconds": seconds}
    for camera, pictures in values.pop("images").items():
        values[f"bytes/{camera}"] = np.frombuffer(b"".join(pictures), np.uint8)
        values[f"ends/{camera}"] = np.cumsum([len(picture) for picture in pictures])
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("wb") as stream:
        np.savez(stream, **values)
    os.replace(unfinished, file)


def _load(file: Path) -> Episode:
    with np.load(file) as values:
        cameras = [key.removeprefix("ends/") for key in values if key.startswith("ends/")]
        images = {
            camera: [piece.tobytes() for piece in np.split(values[f"bytes/{camera}"], values[f"ends/{camera}"][:-1])]
            for camera in cameras
        }
        arrays = {key: values[key] for key in ("state", "actions", "rewards")}
        scalars = {key: values[key].item() for key in ("instruction", "task", "seed", "success")}
    return Episode(images=images, **arrays, **scalars)


def _write_atomically(file: Path, content: bytes) -> None:
    unfinished = file.with_suffix(".tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, file)


def _interleave(successes: dict[str, list[Path]], start: int, stop: int | None) -> list[Path]:
    return [file for turn in zip(*(files[start:stop] for files in successes.values()), strict=True) for file in turn]


def _write(config: CollectConfig, splits: dict[str, list[Path]], summary: dict, partial: Path) -> Path:
    """The finished folder, inside `partial` so that the data set appears at once and whole."""
    complete = partial / "complete"
    shutil.rmtree(complete, ignore_errors=True)
    # In a process of its own: TensorFlow 2.21 crashes on import where Mesa 22.3 has drawn (each brings an LLVM).
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_write_rlds, complete, config.name, splits).result()
    _contact_sheet(splits["train"][:SHEET_EPISODES], complete / "contact_sheet.png")
    (complete / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return complete


def _write_rlds(folder: Path, name: str, splits: dict[str, list[Path]]) -> None:
    rlds_write.write(folder, name, {split: map(_load, files) for split, files in splits.items()})


def _contact_sheet(files: list[Path], path: Path) -> None:
    """First and last pictures of some episodes, one row each."""
    episodes = [_load(file) for file in files]
    rows = [
        [simplejpeg.decode_jpeg(pictures[i]) for i in (0, -1) for pictures in episode.images.values()]
        for episode in episodes
    ]
    contact_sheet(rows, [f"{episode.task} {episode.seed}" for episode in episodes], path)


def _summary(config: CollectConfig, splits: dict[str, list[Path]], attempts: dict[str, int]) -> dict:
    tasks = {task: {"attempts": n} | dict.fromkeys([*splits, "steps", "seconds"], 0) for task, n in attempts.items()}
    for split, file in [(split, file) for split, files in splits.items() for file in files]:
        with np.load(file) as values:
            row = tasks[values["task"].item()]
            row[split] += 1
            row["steps"] += len(values["actions"])
            row["seconds"] += values["seconds"].item()
    for row in tasks.values():
        row["expert_success"] = round(sum(row[split] for split in splits) / row["attempts"], 3)
        row["seconds"] = round(row["seconds"], 1)
    return {"path": config.path, "tasks": tasks, "versions": versions(), "config": dataclasses.asdict(config)}


def _table(summary: dict) -> str:
    rows = [{"task": task, **row} for task, row in summary["tasks"].items()]
    return f"{tables.markdown(rows)}\n\ndata set: {summary['path']}"


if __name__ == "__main__":
    launch.run(main)
