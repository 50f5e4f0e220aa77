"""Shows what a config trains on.

    python -m launch.inspect_data --config=configs/pi0_metaworld.py [--output=runs/inspect_data] [--windows=4] [--json]
    python -m launch.inspect_data --config=configs/pi0_metaworld.py --ids=0:10

Writes `index.html`, a page in one file with the mixture, windows as the policy sees them, statistics and warnings;
prints a summary of it.

--ids=START:STOP prints the samples of each of these global steps instead, one line a step: `episode:frame`, in a
mixture `data set/episode:frame`, in the order of the rows of the batch, the same for any number of processes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import launch
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import splits
from pizero_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0_metaworld.py.")
IDS = flags.DEFINE_string("ids", None, "START:STOP: global steps whose samples are printed.")
OUTPUT = flags.DEFINE_string("output", "runs/inspect_data", "Folder of the page.")
WINDOWS = flags.DEFINE_integer("windows", 4, "How many windows of each data set the page shows.", lower_bound=0)
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")


def main() -> None:
    config = build(TrainConfig, CONFIG.value)
    if IDS.value is not None:
        for line in ids(config, steps(IDS.value)):
            print(line)
        return
    from launch import data_page  # 5 s with JAX and SciPy: samples are named without them
    from pizero_jax.data import inspection, loader

    found = inspection.inspect(config, loader.open_data(config), windows=WINDOWS.value)
    file = Path(OUTPUT.value) / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(data_page.page_of(config, found), encoding="utf-8")
    print(json.dumps(data_page.summary(found, file), indent=2) if JSON.value else data_page.table(found, file))


def steps(text: str) -> range:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--ids={text} should be START:STOP, two steps such as 0:10")
    return range(int(match[1]), int(match[2]))


def ids(config: TrainConfig, steps: range) -> Iterator[str]:
    """One line for each step."""
    train, shares = splits.train(config)
    names, windows = zip(*train.items(), strict=True)
    order = splits.order(windows, shares, cache_gb=config.data.cache_gb, seed=config.seed, batch_size=config.batch_size)
    for step in steps:
        rows = []
        for number, index in zip(*order(step), strict=True):
            episode, frame = windows[number].locate(int(index))
            rows.append(f"{names[number]}{names[number] and '/'}{episode}:{frame}")
        yield f"{step}: {' '.join(rows)}"


if __name__ == "__main__":
    launch.run(main)
