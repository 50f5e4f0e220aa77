"""Writes a run's weights so that openpi or `transformers` loads them.

    python -m launch.export_weights --checkpoint=runs/mine --output=exported/30000 [--format=huggingface] [--merge]

openpi's folder holds the acting parameters, the statistics and, of a run that was trained here, the state to resume.
"""

import json
from functools import partial
from pathlib import Path

import jax
from absl import flags
from flax import linen as nn

import launch
from pizero_jax import policies
from pizero_jax.config import InsulatedConfig, Pi0Config, Pi0FastConfig, Pi05Config, TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.old_configs import completed
from pizero_jax.serve.policy import of_data_set
from pizero_jax.train import freeze, optimizer
from pizero_jax.train.checkpoint import Checkpoints, everything, open_run
from pizero_jax.train.step import fresh_state
from pizero_jax.weights import huggingface, openpi
from pizero_jax.weights.merge import merge

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to take; the newest by default.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to make.")
FORMAT = flags.DEFINE_enum("format", "openpi", ["openpi", "huggingface"], "Whose layout to write.")
MERGE = flags.DEFINE_bool("merge", False, "Fold adapters into the matrices beside them.")
ASSET = flags.DEFINE_string("asset", "pizero_jax", "Name of the statistics in openpi's assets/.")
DATASET = flags.DEFINE_string("dataset", None, "Whose statistics to write, of those of a mixture.")
JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")

OPENPI = Pi0Config | Pi05Config | InsulatedConfig | Pi0FastConfig  # whose arrays openpi has


def main() -> None:
    if not CHECKPOINT.value or not OUTPUT.value:
        raise InputError("--checkpoint and --output are needed: the workdir of a run, and the folder to make")
    checkpoints = open_run(CHECKPOINT.value, STEP.value, flag="--checkpoint", parts=everything)
    step = STEP.value if STEP.value is not None else checkpoints.steps[-1]
    metadata = checkpoints.metadata(step)
    config = build(TrainConfig, completed(metadata["config"]))
    if FORMAT.value == "openpi" and not isinstance(config.policy, OPENPI):
        raise InputError(f"--checkpoint={CHECKPOINT.value} holds {config.policy.name!r}, which openpi does not have")
    saved = checkpoints.acting_shapes(step)
    params = checkpoints.acting_params(step, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), saved))
    policy, output = config.policy, Path(OUTPUT.value)
    if MERGE.value:
        policy, params = merge(policy, params)
    if FORMAT.value == "huggingface":
        huggingface.export(output, policy, params)
    else:
        statistics = of_data_set(config.data, metadata, DATASET.value)[0] if metadata["statistics"] else {}
        training = None if MERGE.value or not step else training_state(checkpoints, config, step)
        openpi.export(output, params, statistics=statistics or None, asset_id=ASSET.value, training=training)
    summary = {
        "output": str(output),
        "policy": policy.name,
        "step": step,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
    }
    text = "{output}: {policy} of step {step}, {parameters:,} parameters".format(**summary)
    print(json.dumps(summary) if JSON.value else text)


def training_state(checkpoints: Checkpoints, config: TrainConfig, step: int) -> openpi.Training:
    """What openpi needs to go on training."""
    policy, tx = policies.make(config.policy, config.loss), optimizer.make(config.optimizer)
    o = config.optimizer
    fresh = partial(fresh_state, policy, tx, o.ema, config.seed, config.freeze, o.ema_dtype)
    state = checkpoints.restore(nn.unbox(jax.eval_shape(fresh)), step)
    raw = None if state.ema is None else freeze.join(state.params, state.frozen)
    return openpi.Training(state.step, raw, state.opt_state)


if __name__ == "__main__":
    launch.run(main)
