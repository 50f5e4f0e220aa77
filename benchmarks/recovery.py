"""How long a run of two processes takes to train again after a kill -9, and to save and exit after SIGTERM.

    python -m benchmarks.recovery --config=configs/pi0_metaworld.py --config.data.path=DATA [--rounds=3]

On this machine, over loopback, under `launch.supervise`; the programs are in the compile cache after the first round.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import launch
from benchmarks.running import children, logged
from launch.supervise import newest_checkpoint
from pizero_jax.processes import RESUME

_CONFIG = config_flags.DEFINE_config_file("config")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each number is measured.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=2)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a line.")


def main() -> None:
    _CONFIG.value  # noqa: B018 a mistake shows before anything starts
    given = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        command = [sys.executable, "-m", "launch.train", *given, "--config.steps=1000000", "--config.log.every=1",
                   "--config.checkpoint.every=20", "--config.wandb.mode=disabled",
                   f"--config.compile_cache={folder}/compiled", f"--workdir={workdir}"]  # fmt: skip
        line = [
            sys.executable,
            "-m",
            "launch.supervise",
            f"--processes={_PROCESSES.value}",
            "--devices=1",
            "--",
            *command,
        ]
        with (Path(folder) / "log").open("w") as log:
            run = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT)
        try:
            killed = [after_kill(run, workdir) for _ in range(_ROUNDS.value)]
        finally:
            began = time.time()
            run.terminate()
            status, stopped = run.wait(), time.time() - began
    found = {"killed": statistics.median(killed), "killed, each": killed, "SIGTERM": stopped, "status": status}
    each = ", ".join(f"{seconds:.1f}" for seconds in killed)
    text = f"kill -9 to the next step: {found['killed']:.1f} s ({each}); SIGTERM to exit {status}: {stopped:.1f} s"
    print(json.dumps(found) if _JSON.value else text)
    sys.exit(0 if status == RESUME else 1)


def after_kill(run: subprocess.Popen, workdir: Path) -> float:
    """Seconds from the kill of one process to the next step of all."""
    wait_for(run, lambda: newest_checkpoint(workdir) > 0 and logged(workdir) > newest_checkpoint(workdir))
    before = (workdir / "metrics.jsonl").stat().st_ino  # a restart writes the file anew
    os.kill(children(run.pid)[-1], signal.SIGKILL)
    began = time.time()
    wait_for(run, lambda: (workdir / "metrics.jsonl").stat().st_ino != before and
             logged(workdir) > newest_checkpoint(workdir))  # fmt: skip
    return time.time() - began


def wait_for(run: subprocess.Popen, reached: Callable[[], bool]) -> None:
    while not reached():
        if run.poll() is not None:
            sys.exit(f"error: training ended with status {run.returncode}")
        time.sleep(0.05)


if __name__ == "__main__":
    launch.run(main)
