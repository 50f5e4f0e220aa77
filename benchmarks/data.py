"""Speed of the data pipeline per CPU-second, on any config.

    python -m benchmarks.data --config=configs/base.py --config.data.path=DATA

CPU-seconds are those of the whole process, so that other work on the machine matters little. Opening a data set counts
reading, checksums and parsing; samples are windows, with all cameras decoded.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from pizero_jax import config as configs
from pizero_jax.data import loader, rlds
from pizero_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file("config")
_BATCHES = flags.DEFINE_integer("batches", 200, "Batches to draw for each number.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of a table.")

_STILL = configs.AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


def cpu_seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def samples_per_cpu_second(config: configs.TrainConfig, batches: int) -> float:
    """Of the training loader as configured, after a few batches that warm it up."""
    train, _, _, processor = loader.open_data(config)
    drawn = loader.batches(
        train,
        processor,
        seed=config.seed,
        batch_size=config.batch_size,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
    )
    next(drawn)
    seconds = cpu_seconds(lambda: list(itertools.islice(drawn, batches)))
    return batches * config.batch_size / seconds


def measure(config: configs.TrainConfig, batches: int) -> dict[str, float]:
    """Each number by what it counts."""
    episodes = rlds.open_split(config.data, config.data.train_split)  # once before, so that imports do not count
    seconds = cpu_seconds(lambda: rlds.open_split(config.data, config.data.train_split))
    still = dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation=_STILL))
    return {
        "episodes opened per CPU-second": len(episodes) / seconds,
        "samples per CPU-second, augmented": samples_per_cpu_second(config, batches),
        "samples per CPU-second, not augmented": samples_per_cpu_second(still, batches),
    }


def main(_) -> None:
    try:
        results = measure(configs.build(configs.TrainConfig, _CONFIG.value), _BATCHES.value)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    if _JSON.value:
        print(json.dumps(results))
    else:
        print("\n".join(f"{name:40} {value:10,.0f}" for name, value in results.items()))


if __name__ == "__main__":
    app.run(main)
