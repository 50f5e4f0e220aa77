"""The folder of a training run: what may be done with one that is in use, and what says whose it is."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import launch
from pizero_jax.config import TrainConfig, differences
from pizero_jax.data import normalize, splits
from pizero_jax.data.loader import Data
from pizero_jax.data.normalize import Statistics
from pizero_jax.errors import InputError
from pizero_jax.old_configs import completed
from pizero_jax.train import checkpoint
from pizero_jax.train.metrics import EVENTS

# What a resumed run may change: everything else would make it another run.
FREE = (
    "steps", "accumulation", "nonfinite", "profile", "mesh", "distributed", "compile_cache", "validation", "checkpoint",
    "log", "wandb", "env", "init", "data.path", "data.index_dir", "data.threads", "data.prefetch",
)  # fmt: skip

_SAME = 1e-6  # of a statistic, or of its standard deviation; what one version computes is the same to the last bit


def check(workdir: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Makes sure that nothing in the workdir is lost or mixed up; changes nothing.

    Raises:
      InputError: the workdir is no folder, or is in use and no flag says what to do, or its run cannot be resumed with
        this config.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    launch.writable("workdir", workdir)
    used = workdir.exists() and any(workdir.iterdir())
    is_run = (workdir / "config.json").exists() or (workdir / checkpoint.FOLDER).is_dir()
    if used and not (resume or overwrite):
        raise InputError(f"--workdir={workdir} is not empty; --resume goes on, --overwrite starts again")
    if used and not is_run:
        raise InputError(f"--workdir={workdir} holds something else than a run; choose another folder")
    if resume and (workdir / "config.json").exists():
        saved = json.loads((workdir / "config.json").read_text())
        if "source" in saved:
            raise InputError(f"--workdir={workdir} holds imported weights; start another run from them with "
                             f"--config.init.weights={workdir}")  # fmt: skip
        paths = [f"data.sets.{name}.path" for name in config.data.sets]
        changed = differences(completed(saved["config"]), dataclasses.asdict(config), free=[*FREE, *paths])
        if changed:
            raise InputError(f"--workdir={workdir} was made with another config: {'; '.join(changed)}. Restore these, "
                             "or start another run.")  # fmt: skip


def action_tokens(workdir: Path) -> dict | None:
    """The action tokenizer that a run began with."""
    file = workdir / "config.json"
    return json.loads(file.read_text()).get("action_tokens") if file.exists() else None


def check_data(workdir: Path, data: Data) -> None:
    """InputError unless the data are those that the run in the workdir began with, wherever they lie now."""
    file = workdir / "config.json"
    if not file.exists():
        return
    saved = normalize.by_data_set(json.loads(file.read_text())["statistics"])
    for source in data.sources:
        changes = [
            change
            for name, now in source.statistics.items()
            for change in _changes(name, saved[source.name][name], now)
        ]
        if changes:
            with splits.naming(source.name):
                raise InputError(f"config.data.path = {source.config.path!r}: the data have changed since the run in "
                                 f"--workdir={workdir} began: {changes[0]}; give back the data it began with, or start "
                                 "a new --workdir")  # fmt: skip


def _changes(name: str, before: Statistics, now: Statistics) -> Iterator[str]:
    """What differs, of what is known; not the quantiles, which earlier versions took more exactly."""
    if before.count and before.count != now.count:
        yield f"{name}: {now.count:,} rows, were {before.count:,}"
    if len(before.mean) != len(now.mean):
        yield f"{name}: {len(now.mean)} dimensions, were {len(before.mean)}"
        return
    for key in ("mean", "std", "min", "max"):
        old, new = getattr(before, key), getattr(now, key)
        for i in np.flatnonzero(abs(new - old) > _SAME * (abs(old) + before.std)):  # none where one is unknown
            yield f"the {key} of {name}[{i}] is {new[i]:.6g}, was {old[i]:.6g}"


def begin(workdir: Path, metadata: dict, data: Data, *, overwrite: bool) -> None:
    """Makes the folder, and says in it what runs there; InputError if the run there began with other data."""
    if overwrite:
        _clear(workdir)
    else:
        check_data(workdir, data)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(metadata, indent=2) + "\n")


def _clear(workdir: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for folder in (checkpoint.FOLDER, EVENTS, "evaluations"):
        shutil.rmtree(workdir / folder, ignore_errors=True)
    for file in ("metrics.jsonl", "curves.png", "evaluation.json", "wandb_id.txt"):
        (workdir / file).unlink(missing_ok=True)
    for file in workdir.glob("chunks*.png"):
        file.unlink()
