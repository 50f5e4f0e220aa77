"""Where metrics go: a JSONL file always, wandb if it is wanted, and one progress line."""

import contextlib
import json
import netrc
import os
import time
import uuid
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pizero_jax.config import WandbConfig


class MetricsLog:
    """Appends records to `metrics.jsonl` and to wandb."""

    def __init__(self, workdir: Path, config: dict[str, Any], wandb_config: WandbConfig, resume_step: int = 0):
        self.path = workdir / "metrics.jsonl"
        self._forget_after(resume_step)
        self._file = self.path.open("a")
        self._wandb = _start_wandb(workdir, config, wandb_config)

    def _forget_after(self, step: int) -> None:
        """Drops records of steps that the resumed run computes again."""
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
            scratch = self.path.with_suffix(".tmp")
            scratch.write_text("".join(line + "\n" for line in kept))
            scratch.replace(self.path)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def close(self) -> None:
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def _step(line: str) -> float:
    """The step of a record; a line that a killed process left unfinished belongs to no step."""
    with contextlib.suppress(ValueError):
        return json.loads(line)["step"]
    return float("inf")


def _start_wandb(workdir: Path, config: dict[str, Any], wandb_config: WandbConfig):
    mode = wandb_config.mode
    if mode == "disabled":
        return None
    if mode == "auto":
        mode = "online" if _logged_in() else "offline"
    import wandb

    return wandb.init(
        project=wandb_config.project,
        group=wandb_config.group or None,
        tags=wandb_config.tags,
        name=workdir.name,
        id=_run_id(workdir),
        resume="allow",
        dir=workdir,
        config=config,
        mode=mode,
        settings=wandb.Settings(console="off", silent=True),
    )


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


def progress(total: int, initial: int) -> tqdm:
    """The progress line; loss and rates are set as its postfix."""
    return tqdm(total=total, initial=initial, desc="train", unit="step", dynamic_ncols=True, smoothing=0.05)
