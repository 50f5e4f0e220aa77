"""Where metrics go: a JSONL file and TensorBoard's always, wandb if it is wanted, and one progress line."""

import contextlib
import functools
import json
import netrc
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from pizero_jax.config import WandbConfig
from pizero_jax.errors import InputError
from pizero_jax.train.events import Events

EVENTS = "tensorboard"  # folder in the workdir


class MetricsLog:
    """Appends records to `metrics.jsonl`, and to TensorBoard and wandb."""

    def __init__(self, workdir: Path, config: dict[str, Any], wandb_config: WandbConfig, resume_step: int = 0):
        self._wandb = _start_wandb(workdir, config, wandb_config)  # may fail
        self.path = workdir / "metrics.jsonl"
        self._forget_after(resume_step)
        self._file = self.path.open("ab", buffering=0)
        self._waiting = b""
        self._latest: tuple[int, dict[str, float]] = (resume_step, {})
        self._events = Events(workdir / EVENTS, resume_step)

    def _forget_after(self, step: int) -> None:
        """Drops records of steps that the resumed run computes again."""
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
            scratch = self.path.with_suffix(".tmp")
            scratch.write_text("".join(line + "\n" for line in kept))
            scratch.replace(self.path)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._latest = step, self.latest(step) | values
        self._waiting += (json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n").encode()
        self._append()
        self._events.numbers(step, values)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Picture files by name, for TensorBoard and wandb."""
        self._events.pictures(step, files)
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(str(file)) for name, file in files.items()}, step=step)

    def latest(self, step: int) -> dict[str, float]:
        """All that was measured at `step`, if that is the newest."""
        newest, values = self._latest
        return values if newest == step else {}

    def _append(self) -> None:
        """A full disk does not end the run: what cannot be written waits for the next time."""
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            logging.error("%s: %s; training goes on", self.path, error.strerror)

    def close(self) -> None:
        self._append()
        self._file.close()
        self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


class NoLog:
    """Of processes that leave logging to the first."""

    def write(self, step: int, values: dict[str, float]) -> None:
        pass

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        pass

    def latest(self, step: int) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


def _step(line: str) -> float:
    """The step of a record; a line that a killed process left unfinished belongs to no step."""
    with contextlib.suppress(ValueError):
        return json.loads(line)["step"]
    return float("inf")


def _start_wandb(workdir: Path, config: dict[str, Any], wandb_config: WandbConfig):
    """The run at W&B, or None; InputError if it has to be online and cannot."""
    if wandb_config.mode == "disabled":
        return None
    import wandb

    start = functools.partial(
        wandb.init,
        project=wandb_config.project,
        group=wandb_config.group or None,
        tags=wandb_config.tags,
        name=workdir.name,
        id=_run_id(workdir),
        resume="allow",
        dir=workdir,
        config=config,
        settings=wandb.Settings(console="off", silent=True),
    )
    if wandb_config.mode == "offline" or (wandb_config.mode == "auto" and not _logged_in()):
        return start(mode="offline")
    try:
        return start(mode="online")
    except wandb.Error as error:
        reason = (str(error) or repr(error)).splitlines()[0]
    if wandb_config.mode == "online":
        raise InputError(f"config.wandb.mode = 'online', but W&B cannot be used: {reason}; 'auto' does without it")
    logging.warning("W&B cannot be used: %s; this run is logged offline, in %s/wandb", reason, workdir)
    wandb.teardown()  # what failed keeps the run's id
    return start(mode="offline")


def _run_id(workdir: Path) -> str:
    """The same for all restarts of a run."""
    file = workdir / "wandb_id.txt"
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12] + "\n")
    return file.read_text().strip()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(FileNotFoundError, netrc.NetrcParseError):
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    return False


def progress(total: int, initial: int, show: bool = True) -> tqdm:
    """The progress line; loss and rates are set as its postfix."""
    options = dict(desc="train", unit="step", dynamic_ncols=True, smoothing=0.05)
    return tqdm(total=total, initial=initial, disable=not show, **options)
