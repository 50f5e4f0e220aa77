"""What training measures of itself: rates, memory, traces, and how much of the time counted."""

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from pizero_jax.config import TrainConfig
from pizero_jax.train.chips import peak_flops
from pizero_jax.train.flops import forward_flops, tokens_per_row


def rates(config: TrainConfig, samples_per_s: float) -> dict[str, float]:
    """Tokens per second, TFLOP/s of each chip, and their share of what the chip can do, if that is known.

    FLOPs are the model's: forward and twice that backward; not what is computed again to save memory.
    """
    samples = config.loss.samples_per_observation
    flops = 3 * forward_flops(config.policy, samples) * samples_per_s / jax.device_count()
    values = {"tokens_per_s": samples_per_s * tokens_per_row(config.policy, samples), "tflops_per_chip": flops / 1e12}
    peak = peak_flops(jax.devices()[0].device_kind)
    return values | ({"mfu": flops / peak} if peak else {})


def memory() -> dict[str, float]:
    """The most that this process and its first device have held so far; of the device where it tells."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"host_peak_gb": peak / 1e9} | ({"device_peak_gb": device / 1e9} if device else {})


def goodput(records: Sequence[dict[str, Any]]) -> float | None:
    """The share of the time since the first step that went into steps that counted, over all restarts.

    Args:
      records: of `metrics.jsonl`, which has lost those of steps that were computed again. `time` is when a record was
        written, `seconds` what its steps took.
    """
    timed = [record for record in records if "seconds" in record]
    if not timed:
        return None
    began = timed[0]["time"] - timed[0]["seconds"]
    return sum(record["seconds"] for record in timed) / (max(record["time"] for record in records) - began)


class Trace:
    """Traces the steps after `steps[0]`, up to and with `steps[1]`, into `folder`, for TensorBoard or XProf."""

    def __init__(self, steps: Sequence[int], folder: Path):
        self._steps, self._folder, self._running = tuple(steps), folder, False

    def see(self, done: int, metrics: Any = None) -> None:
        """Called after each step, and before the first one with the number of those that are done already."""
        if not self._steps:
            return
        if done == self._steps[0]:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif self._running and done == self._steps[1]:
            self.stop(metrics)

    def stop(self, metrics: Any = None) -> None:
        """Writes what has been traced, if anything is."""
        if self._running:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._running = False
