"""Shows what a config trains on.

    python -m launch.inspect_data --config=configs/pi0_metaworld.py --ids=0:10

--ids=START:STOP prints the samples of each of these global steps, one line a step: `episode:frame`, in a mixture
`data set/episode:frame`, in the order of the rows of the batch, the same for any number of processes.
"""

import re

from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import loader
from pizero_jax.types import InputError

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
IDS = flags.DEFINE_string("ids", None, "START:STOP: global steps whose samples are printed.")


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    for line in ids(config, steps(IDS.value)):
        print(line)


def steps(text: str) -> range:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--ids={text} should be START:STOP, two steps such as 0:10")
    return range(int(match[1]), int(match[2]))


def ids(config: TrainConfig, steps: range):
    """One line for each step."""
    train, shares = loader.open_train(config)
    names, windows = zip(*train.items(), strict=True)
    order = loader.order(windows, shares, cache_gb=config.data.cache_gb, seed=config.seed, batch_size=config.batch_size)
    for step in steps:
        rows = []
        for number, index in zip(*order(step), strict=True):
            episode, frame = windows[number].locate(int(index))
            rows.append(f"{names[number]}{names[number] and '/'}{episode}:{frame}")
        yield f"{step}: {' '.join(rows)}"


if __name__ == "__main__":
    launch.run(main)
