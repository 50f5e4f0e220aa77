"""The memory of each process of a run of two over its steps: it should not grow after the first 200.

    python -m benchmarks.host_memory --config=configs/pi0_metaworld.py --config.data.path=DATA [--steps=2000]

On this machine, over loopback, with a checkpoint and a validation every 100 steps.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

import launch
from benchmarks.running import children, logged
from pizero_jax.report import tables

_CONFIG = config_flags.DEFINE_config_file("config")
_STEPS = flags.DEFINE_integer("steps", 2000, "How many steps.", lower_bound=400)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main() -> None:
    _CONFIG.value  # noqa: B018 a mistake shows before anything starts
    given = [argument for argument in sys.argv[1:] if argument.startswith("--config")]
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        line = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--",
                sys.executable, "-m", "launch.train", *given, f"--config.steps={_STEPS.value}", "--config.log.every=1",
                "--config.checkpoint.every=100", "--config.validation.every=100", "--config.wandb.mode=disabled",
                f"--workdir={workdir}"]  # fmt: skip
        with (Path(folder) / "log").open("w+") as log:
            run = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT)
            seen = watch(run, workdir)
            if run.wait():
                log.seek(0)
                sys.exit(f"error: training ended with status {run.returncode}:\n{log.read()}")
    found = [summary(number, samples) for number, samples in enumerate(seen.values())]
    print(json.dumps(found) if _JSON.value else tables.markdown(found))


def watch(run: subprocess.Popen, workdir: Path) -> dict[int, list[tuple[int, int]]]:
    """By process (step, bytes in memory), five times a second."""
    seen, bar = {}, tqdm(total=_STEPS.value, unit="step", disable=None)
    while run.poll() is None:
        time.sleep(0.2)
        step = logged(workdir) if (workdir / "metrics.jsonl").exists() else 0
        bar.update(step - bar.n)
        for pid in children(run.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.setdefault(pid, []).append((step, psutil.Process(pid).memory_info().rss))
    return seen


def summary(number: int, samples: list[tuple[int, int]]) -> dict[str, float]:
    """Medians, for a save holds more for a moment, and the peaks; GB."""

    def between(low: float, high: float) -> list[float]:
        return [size / 1e9 for step, size in samples if low * _STEPS.value <= step < high * _STEPS.value]

    first, last = between(0.1, 0.2), between(0.9, 1.0)
    return {
        "process": number,
        "steps 10% to 20%, median": statistics.median(first), "largest": max(first),
        "steps 90% to 100%, median": statistics.median(last), "largest at the end": max(last),
    }  # fmt: skip


if __name__ == "__main__":
    launch.run(main)
