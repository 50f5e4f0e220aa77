"""A model as a table: parameters, what learns, types, FLOPs and bytes; nothing is allocated.

python -m launch.describe --config=configs/pi05_lora.py [--config.policy.chunk=16 ...] [--json]
python -m launch.describe --checkpoint=runs/demo
"""

import json
from functools import partial
from typing import Any

import jax
from absl import flags
from flax import linen as nn
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

import launch
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.errors import InputError
from pizero_jax.old_configs import completed
from pizero_jax.report import parameters, tables
from pizero_jax.train import optimizer
from pizero_jax.train.checkpoint import metadata_only, open_run
from pizero_jax.train.flops import act_flops, forward_flops
from pizero_jax.train.step import TrainState, fresh_state

CONFIG = config_flags.DEFINE_config_file("config", help_string="File such as configs/pi0.py.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a training run, in place of --config.")
JSON = flags.DEFINE_bool("json", False, "Print everything as JSON.")


def main() -> None:
    if CHECKPOINT.value and CONFIG.value:
        raise InputError("--config and --checkpoint both name what is described; give one of them")
    if CHECKPOINT.value:
        checkpoints = open_run(CHECKPOINT.value, None, flag="--checkpoint", parts=metadata_only)
        config = build(TrainConfig, completed(checkpoints.metadata(checkpoints.steps[-1])["config"]))
    else:
        config = build(TrainConfig, CONFIG.value)
    description = describe(config)
    print(json.dumps(description, indent=2) if JSON.value else text(description))


def describe(config: TrainConfig) -> dict[str, Any]:
    """Rows of parameters, and totals; a chunk's FLOPs are those of acting on one observation."""
    policy, tx = policies.make(config.policy, config.loss), optimizer.make(config.optimizer)
    o = config.optimizer
    fresh = partial(fresh_state, policy, tx, o.ema, config.seed, config.freeze, o.ema_dtype)
    state: TrainState = nn.unbox(jax.eval_shape(fresh))
    rows = parameters.rows(flatten_dict(state.params, sep="/"), flatten_dict(state.frozen, sep="/"))
    forward, chunk = forward_flops(config.policy, config.loss.samples_per_observation), act_flops(config.policy)
    return {
        "policy": config.policy.name,
        "parameters": sum(row["parameters"] for row in rows),
        "learning": sum(row["parameters"] for row in rows if row["learns"]),
        "flops": {
            "training, per sample, if everything learns": 3 * forward,
            "acting, per chunk": chunk,
            "acting, per action": chunk / config.policy.chunk,
        },
        "bytes": {
            "parameters that learn": bytes_of(state.params),
            "frozen": bytes_of(state.frozen),
            "optimiser": bytes_of(state.opt_state),
            "average": bytes_of(state.ema),
            "gradient": bytes_of(state.params),
        },
        "rows": rows,
    }


def bytes_of(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def text(description: dict[str, Any]) -> str:
    """Leaves, parts and totals as tables."""
    numbers = [{"": f"FLOPs, {name}", "value": f"{x:,.4g}"} for name, x in description["flops"].items()]
    numbers += [{"": f"bytes, {name}", "value": f"{x:,}"} for name, x in description["bytes"].items()]
    numbers += [{"": "bytes of the state", "value": f"{sum(description['bytes'].values()):,}"}]
    title = f"{description['policy']}: {description['parameters']:,} parameters"
    rows = description["rows"]
    return "\n\n".join([title, parameters.by_leaf(rows), parameters.by_part(rows), tables.markdown(numbers)])


if __name__ == "__main__":
    launch.run(main)
