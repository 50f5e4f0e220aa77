"""Writes a trained policy as a folder that runs with JAX and NumPy, without this package.

    python -m launch.export_policy --checkpoint=runs/demo --output=exported [--weights=int8]

`exported/policy.py` says how to call it. Its actions are those of `launch.serve`, bit for bit on the same device.
"""

import importlib.util
from pathlib import Path

from absl import flags

import launch
from pizero_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
OUTPUT = flags.DEFINE_string("output", None, "A new folder.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Solver steps; the config's by default.", lower_bound=1)
WEIGHTS = flags.DEFINE_enum(
    "weights", None, ["float32", "bfloat16", "int8"], "What they are written as; as they were saved by default."
)
DATA = flags.DEFINE_string(
    "data", None, "Data set by which int8 is measured; the checkpoint's config.data.path by default."
)
PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Devices that it shall run on.")

KNOWN = ("cpu", "cuda", "rocm", "tpu")


def main() -> None:
    if CHECKPOINT.value is None:
        raise InputError("--checkpoint is missing; name the workdir of a training run, such as runs/demo")
    if OUTPUT.value is None:
        raise InputError("--output is missing; name a new folder, such as exported")
    for platform in PLATFORMS.value:
        if platform not in KNOWN:
            raise InputError(f"--platforms={platform}; known: {', '.join(KNOWN)}")
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("exporting needs the package flatbuffers: pip install 'pizero_jax[serve]'")
    from pizero_jax.serve import quantize
    from pizero_jax.serve.export import check, check_folder, export
    from pizero_jax.serve.policy import load

    output = Path(OUTPUT.value)
    check_folder(output)
    saved = load(CHECKPOINT.value, step=STEP.value, dataset=DATASET.value)
    check(saved, output)
    trained = quantize.with_weights(saved, WEIGHTS.value)
    measured = measure(saved, trained) if WEIGHTS.value == "int8" else None
    export(trained, output, PLATFORMS.value, NUM_STEPS.value, measured)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{output}: step {trained.step} of {CHECKPOINT.value}, {size / 1e6:.1f} MB; {output}/policy.py runs it")
    if measured:
        before = size + quantize.size(saved.params) - quantize.size(trained.params)
        print(f"int8: {before / 1e6:.1f} MB with the weights as they were saved")
        print(
            f"int8: actions of the same noise change by {measured['relative']:.2%} of their standard deviation (root "
            f"mean square, {measured['observations']} observations of {measured['data']})"
        )


def measure(saved, trained) -> dict:
    """What int8 changes, over recorded observations."""
    from pizero_jax.serve import open_loop, quantize

    config = saved.config.data
    path = DATA.value or config.path
    try:
        episodes = open_loop.open_episodes(saved, path, config.val_split)
    except InputError as error:
        raise InputError(f"{error}. --weights=int8 is measured by recorded observations: --data names them") from error
    parameters = {"saved": quantize.size(saved.params), "int8": quantize.size(trained.params)}
    return quantize.change(saved, trained, episodes) | {"data": path, "parameter_bytes": parameters}


if __name__ == "__main__":
    launch.run(main)
