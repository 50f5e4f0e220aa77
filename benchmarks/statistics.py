"""Time of the statistics of states and actions, absolute and relative ones.

    python -m benchmarks.statistics

The numbers are those of two arms that stay near their poses, and of grippers that open now and then. Seconds are of the
wall and, behind them, of all cores.
"""

import dataclasses
import time

import numpy as np
from absl import flags

import launch
from configs import base
from pizero_jax import config as configs
from pizero_jax.data import chunks
from pizero_jax.data.episodes import Table

_STEPS = flags.DEFINE_integer("steps", 100_000, "Steps of all episodes.")
_LENGTH = flags.DEFINE_integer("length", 400, "Steps of an episode.")
_CHUNK = flags.DEFINE_integer("chunk", 50, "Actions of a chunk.")


def table(steps: int, length: int) -> Table:
    """14 dimensions of states, and of actions that are targets for them."""
    rng = np.random.default_rng(0)
    lengths = np.full(steps // length, length)
    state = np.cumsum(rng.normal(0, 0.01, size=(len(lengths), length, 14)), axis=1).reshape(-1, 14)
    state[:, [6, 13]] = rng.uniform(size=(len(state), 2)) < 0.1
    state = state.astype(np.float32)
    actions = state + rng.normal(0, 0.02, size=state.shape).astype(np.float32)
    keep = np.ones(len(state), bool)
    none = np.zeros((len(lengths), 1), np.int64)
    return Table(
        lengths, state, actions, keep, none.astype(np.int32), none[:0, 0].astype(np.int32), ("",), none[:, 0], none
    )


def main() -> None:
    numbers = table(_STEPS.value, _LENGTH.value)
    data = configs.build(configs.TrainConfig, base.get_config()).data
    for name, delta in (("absolute", ()), (f"relative, chunks of {_CHUNK.value}", (6, -1, 6, -1))):
        config = dataclasses.replace(data, delta=delta)
        for _ in range(3):
            wall, cores = time.perf_counter(), time.process_time()
            chunks.statistics(numbers, config, _CHUNK.value)
            wall, cores = time.perf_counter() - wall, time.process_time() - cores
            print(f"{name:24} {wall:6.2f} s {cores:6.2f} s")


if __name__ == "__main__":
    launch.run(main)
