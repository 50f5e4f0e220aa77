"""Writes a trained policy as a folder that runs with JAX and NumPy, without this package.

    python -m launch.export_policy --checkpoint=runs/demo --output=exported [--dtype=bfloat16]

`exported/policy.py` says how to call it. Its actions are those of `launch.serve`, bit for bit on the same device.
"""

from pathlib import Path

from absl import flags

import launch
from pizero_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "A new folder.", required=True)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
DATASET = flags.DEFINE_string("dataset", None, "Of a checkpoint of a mixture, the data set whose robot it is.")
NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Solver steps; the config's by default.", lower_bound=1)
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of the weights; as they were saved by default.")
PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Devices that it shall run on.")

KNOWN = ("cpu", "cuda", "rocm", "tpu")


def main() -> None:
    for platform in PLATFORMS.value:
        if platform not in KNOWN:
            raise InputError(f"--platforms={platform}; known: {', '.join(KNOWN)}")
    from pizero_jax.serve.export import check_folder, export
    from pizero_jax.serve.policy import load

    output = Path(OUTPUT.value)
    check_folder(output)
    trained = load(CHECKPOINT.value, step=STEP.value, dataset=DATASET.value)
    export(trained, output, PLATFORMS.value, NUM_STEPS.value, DTYPE.value)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{output}: step {trained.step} of {CHECKPOINT.value}, {size / 1e6:.1f} MB; {output}/policy.py runs it")


if __name__ == "__main__":
    launch.run(main)
