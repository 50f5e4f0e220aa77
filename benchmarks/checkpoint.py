"""How long checkpoints take: what training waits for, writing, hashing, loading; bytes of the state as asked.

    python -m benchmarks.checkpoint [--megabytes=400] [--step_seconds=0.4] [--folder=...]

The state has parameters, their average and two moments, random, so that compression gains nothing. Each save is
waited for before the next, as it is when training saves seldom enough.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags
from etils import epath

import launch
from pizero_jax.config import CheckpointConfig
from pizero_jax.train import manifest
from pizero_jax.train.checkpoint import FOLDER, Checkpoints, everything
from pizero_jax.train.step import TrainState

_MEGABYTES = flags.DEFINE_integer("megabytes", 400, "Size of the state.", lower_bound=1)
_STEP = flags.DEFINE_float("step_seconds", 0.4, "Of a training step; configs/pi0_metaworld.py takes 0.4 on two cores.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Checkpoints to save; the first also imports and is left out.")
_FOLDER = flags.DEFINE_string("folder", None, "Where checkpoints go; a temporary folder by default.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON instead of lines.")


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.value))
    try:
        result = measure(folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(result) if _JSON.value else "\n".join(f"{name}: {x:.4g}" for name, x in result.items()))


def measure(folder: Path) -> dict[str, float]:
    """Medians over the saves."""
    seconds = {"blocked": [], "written": []}
    for step in range(_REPEATS.value + 1):
        state = make_state(step, _MEGABYTES.value * 1_000_000)
        # One for each save, for `close` waits until it is whole.
        checkpoints = Checkpoints(folder, CheckpointConfig(every=1, keep=2, keep_every=0, best="", best_mode="min"))
        start = time.perf_counter()
        checkpoints.save(state, {"config": {}})
        seconds["blocked"].append(time.perf_counter() - start)
        checkpoints.close()
        seconds["written"].append(time.perf_counter() - start)
    path = epath.Path(folder) / FOLDER / str(_REPEATS.value)
    hashed = seconds_of(lambda: manifest.write(path))
    reader = Checkpoints(folder)
    verified = seconds_of(lambda: reader.newest(everything))
    loaded = seconds_of(lambda: jax.block_until_ready(reader.restore(state, _REPEATS.value)))
    blocked, written = (float(np.median(values[1:])) for values in seconds.values())
    return {
        "MB of the state": sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6,
        "s that training waits": blocked,
        "s until written, hashed and the old one removed": written,
        "s of hashing": hashed,
        "s of verifying": verified,
        "s of loading": loaded,
        "% of 100 steps that training waits": 100 * blocked / (100 * _STEP.value),
    }


def make_state(step: int, size: int, leaves: int = 40) -> TrainState:
    keys = iter(jax.random.split(jax.random.key(step), 4 * leaves))
    width = int((size / 4 / 4 / leaves) ** 0.5)

    def tree():
        return {f"layer{i}": jax.random.normal(next(keys), (width, width)) for i in range(leaves)}

    state = TrainState(jax.numpy.int32(step), tree(), tree(), (tree(), tree()), {})
    return jax.block_until_ready(state)


def seconds_of(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    launch.run(main)
