"""Speed of the data pipeline per CPU-second, and the share of training that waits for it, on any config.

    python -m benchmarks.data --config=configs/pi0_metaworld.py [--config.data.path=DATA]

CPU-seconds are those of the whole process, so that other work on the machine matters little. Opening a data set counts
reading, checksums and parsing; samples are windows, with all cameras decoded.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax import config as configs
from pizero_jax import mesh as meshes
from pizero_jax import policies
from pizero_jax.data import loader, rlds
from pizero_jax.train import loop, optimizer
from pizero_jax.train.step import compile_step, init_state

_CONFIG = config_flags.DEFINE_config_file("config")
_BATCHES = flags.DEFINE_integer("batches", 200, "Batches to draw for each number.")
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps to time, after two that warm up.", lower_bound=1)
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of a table.")

_STILL = configs.AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


def cpu_seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def samples_per_cpu_second(config: configs.TrainConfig, batches: int) -> float:
    """Of the training loader as configured, after a few batches that warm it up."""
    data = loader.open_data(config)
    drawn = loader.batches(
        data,
        seed=config.seed,
        batch_size=config.batch_size,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
    )
    next(drawn)
    seconds = cpu_seconds(lambda: list(itertools.islice(drawn, batches)))
    return batches * config.batch_size / seconds


def training(config: configs.TrainConfig, steps: int) -> dict[str, float]:
    """Samples per second and the share of waiting for data of real training steps, the compilation left out."""
    data = loader.open_data(config)
    mesh, tx = meshes.make_mesh(config.mesh), optimizer.make(config.optimizer)
    policy, ema = policies.make(config.policy, config.loss), config.optimizer.ema
    state, placed = init_state(policy, tx, ema, config.seed, mesh)
    step = compile_step(policy, tx, ema, config.seed, mesh, placed)
    drawn = loader.batches(data, seed=config.seed, batch_size=config.batch_size,
                           threads=config.data.threads, prefetch=config.data.prefetch)  # fmt: skip
    clock = loop.Stopwatch(config.batch_size)
    for done, *_ in loop.advance(step, state, drawn, mesh, clock, 0, steps + 2):
        if done == 2:
            clock.read(done)
    return clock.read(steps)


def measure(config: configs.TrainConfig, batches: int, steps: int) -> dict[str, float]:
    """Each number by what it counts."""
    episodes = rlds.open_split(config.data, config.data.train_split)  # once before, so that imports do not count
    seconds = cpu_seconds(lambda: rlds.open_split(config.data, config.data.train_split))
    still = dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation=_STILL))
    trained = training(config, steps)
    return {
        "training, samples per second": trained["samples_per_s"],
        "training, percent of waiting for data": 100 * trained["data_wait"],
        "episodes opened per CPU-second": len(episodes) / seconds,
        "samples per CPU-second, augmented": samples_per_cpu_second(config, batches),
        "samples per CPU-second, not augmented": samples_per_cpu_second(still, batches),
    }


def main() -> None:
    results = measure(configs.build(configs.TrainConfig, _CONFIG.value), _BATCHES.value, _STEPS.value)
    if _JSON.value:
        print(json.dumps(results))
    else:
        print("\n".join(f"{name:40} {value:10,.1f}" for name, value in results.items()))


if __name__ == "__main__":
    launch.run(main)
