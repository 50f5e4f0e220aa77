"""Speed of the data pipeline per CPU-second, its memory, and the share of training that waits for it, on any config.

    python -m benchmarks.data --config=configs/base.py --config.data.path=DATA [--tf_data] [--soak=20] [--steps=0]

CPU-seconds are those of the whole process, so that other work on the machine matters little; the numbers of one run
take turns, `--rounds` times, and the median is given. Samples are windows, with all cameras decoded.
"""

import collections
import dataclasses
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import simplejpeg
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

import launch
from pizero_jax import config as configs
from pizero_jax import mesh as meshes
from pizero_jax import policies
from pizero_jax.data import loader
from pizero_jax.data.loader import Data
from pizero_jax.train import loop, optimizer
from pizero_jax.train.step import compile_step, init_state
from pizero_jax.types import Batch

_CONFIG = config_flags.DEFINE_config_file("config")
_BATCHES = flags.DEFINE_integer("batches", 100, "Batches to draw for each number: an epoch or more.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each number is measured.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 0, "Training steps to time, after two that warm up; 0 times none.")
_TF_DATA = flags.DEFINE_boolean("tf_data", False, "Also the pipeline of benchmarks/tf_data.py, which needs TensorFlow.")
_SOAK = flags.DEFINE_float("soak", 0.0, "Minutes to draw batches and watch the memory, in place of all else.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of a table.")

_STILL = configs.AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


def cpu_seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def drawing(config: configs.TrainConfig, data: Data) -> Iterator[Batch]:
    """The training loader as configured."""
    return loader.batches(data, seed=config.seed, batch_size=config.batch_size, threads=config.data.threads,
                          prefetch=config.data.prefetch)  # fmt: skip


def samples_per_cpu_second(config: configs.TrainConfig, batches: int) -> float:
    """Of the loader, after a batch that starts it, with an empty cache: an epoch reads each record once."""
    drawn = drawing(config, loader.open_data(config))
    next(drawn)
    return (
        batches * config.batch_size / cpu_seconds(lambda: collections.deque(itertools.islice(drawn, batches), maxlen=0))
    )


def bare(config: configs.TrainConfig, data: Data, batches: int) -> float:
    """As above, of nothing but decoding the same pictures, which are in memory, and copying them into batches."""
    source, rows = data.sources[0], data.order(config.seed, config.batch_size)
    cameras, size = source.processor.cameras, config.policy.image_size
    encoded = [[source.train[int(i)].images for i in rows(step).windows] for step in range(batches)]

    def make(step: int) -> None:
        out = np.empty((len(cameras), config.batch_size, size, size, 3), np.uint8)
        for row, pictures in enumerate(encoded[step]):
            for number, camera in enumerate(cameras):
                out[number, row] = simplejpeg.decode_jpeg(pictures[camera])

    make(0)
    return batches * config.batch_size / cpu_seconds(lambda: collections.deque(map(make, range(batches)), maxlen=0))


def tf_data(config: configs.TrainConfig, batches: int) -> float:
    numbers = (config.policy.chunk, config.batch_size, 2_000, batches)
    line = [sys.executable, "-m", "benchmarks.tf_data", config.data.path, *map(str, numbers)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def opening(config: configs.TrainConfig) -> dict[str, float]:
    """Seconds to open a data set that is new, with its statistics, and one that was opened before."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, index_dir=folder))
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            data = loader.open_data(config)
            seconds.append(time.perf_counter() - start)
    steps = int(sum(source.train.episodes.lengths.sum() for source in data.sources))
    return {"steps opened": steps, "opening, seconds": seconds[0], "opening again, seconds": seconds[1]}


def training(config: configs.TrainConfig, data: Data, steps: int) -> dict[str, float]:
    """Samples per second and the share of waiting for data of real training steps, the compilation left out."""
    mesh, tx = meshes.make_mesh(config.mesh), optimizer.make(config.optimizer)
    policy, ema = policies.make(config.policy, config.loss), config.optimizer.ema
    state, placed = init_state(policy, tx, ema, config.seed, mesh)
    step = compile_step(policy, tx, ema, config.seed, mesh, placed)
    clock = loop.Stopwatch(config.batch_size)
    for done, *_ in loop.advance(step, state, drawing(config, data), mesh, clock, 0, steps + 2):
        if done == 2:
            clock.read(done)
    values = clock.read(steps)
    return {
        "training, samples per second": values["samples_per_s"],
        "training, percent of waiting for data": 100 * values["data_wait"],
    }


def soak(config: configs.TrainConfig, minutes: float) -> dict[str, float]:
    """The memory of this process while it draws batches, and whether a sample costs more CPU time in the end."""
    data, process, start = loader.open_data(config), psutil.Process(), time.monotonic()
    opened, used, bar = process.memory_info().rss, [], tqdm(unit="batch", disable=None)
    order, spent = data.order(config.seed, config.batch_size), []
    for _ in drawing(config, data):
        bar.update()
        spent.append(time.process_time())
        if len(spent) % 50 == 0:
            used.append(process.memory_info().rss)
        if time.monotonic() - start > 60 * minutes:
            break
    tenth = max(1, len(spent) // 10)
    seen = len(spent) * config.batch_size
    return {
        "minutes": (time.monotonic() - start) / 60,
        "epochs": seen / sum(source.train.episodes.lengths.sum() for source in data.sources),
        "pools of an epoch": max(o.pools for o in order.orders),
        "cache, GB": config.data.cache_gb,
        "memory after opening, GB": opened / 1e9,
        "largest memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "memory, median of the last tenth, GB": statistics.median(used[-max(1, len(used) // 10) :]) / 1e9,
        "CPU time of a sample, last tenth over second": (spent[-1] - spent[-1 - tenth])
        / (spent[2 * tenth] - spent[tenth]),
    }


def measure(config: configs.TrainConfig) -> dict[str, float]:
    """Each number by what it counts."""
    results = opening(config)
    still = dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation=_STILL))
    data = loader.open_data(config)
    kinds = {
        "bare decoding and copying": lambda: bare(config, data, _BATCHES.value),
        "loader, not augmented": lambda: samples_per_cpu_second(still, _BATCHES.value),
        "loader, augmented": lambda: samples_per_cpu_second(config, _BATCHES.value),
    }
    if _TF_DATA.value:
        kinds["tf.data, not augmented"] = lambda: tf_data(config, _BATCHES.value)
    rounds = [{kind: draw() for kind, draw in kinds.items()} for _ in tqdm(range(_ROUNDS.value), disable=None)]
    for kind in kinds:
        results[f"samples per CPU-second, {kind}"] = statistics.median(values[kind] for values in rounds)
    if _STEPS.value:
        results |= training(config, data, _STEPS.value)
    return results


def main() -> None:
    config = configs.build(configs.TrainConfig, _CONFIG.value)
    results = soak(config, _SOAK.value) if _SOAK.value else measure(config)
    if _JSON.value:
        print(json.dumps(results))
    else:
        print("\n".join(f"{name:60} {value:10,.2f}" for name, value in results.items()))


if __name__ == "__main__":
    launch.run(main)
