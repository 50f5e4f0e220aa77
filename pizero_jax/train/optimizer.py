"""AdamW with a warm-up-cosine rate, a clipped gradient and decay on matrices only."""

import re

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Int

from pizero_jax.config import OptimizerConfig
from pizero_jax.errors import InputError
from pizero_jax.types import Params


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """From peak / (warmup + 1) up to `peak`, then a cosine down to `end` at `decay_steps`, warm-up included."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.peak / (config.warmup + 1),
        peak_value=config.peak,
        warmup_steps=config.warmup,
        decay_steps=max(config.decay_steps, config.warmup + 1),
        end_value=config.end,
    )


def updates(state: optax.OptState) -> Int[Array, ""]:
    """How many updates the state of `make` has come through, which the rate follows: a skipped step is none."""
    return optax.tree.get_all_with_path(state, "count")[0][1]


def decayed(params: Params) -> Params:
    """True for the leaves that weight decay pulls to zero: all but biases, norm scales and position embeddings."""

    def is_matrix(path, _) -> bool:
        name = next(str(entry.key) for entry in reversed(path) if isinstance(entry, jax.tree_util.DictKey))
        return name not in ("scale", "positions", "bias")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def scales(params: Params, config: OptimizerConfig) -> Params:
    """What the learning rate of each leaf is multiplied by: the scale of the first rule that fits its path, or 1.

    Raises:
      InputError: a rule fits nothing that learns.
    """
    leaves = flatten_dict(params, sep="/")
    for i, rule in enumerate(config.rates):
        if not any(re.fullmatch(rule.params, path) for path in leaves):
            where = f"config.optimizer.rates[{i}].params = {rule.params!r}"
            raise InputError(f"{where} fits no parameter that learns, such as {sorted(leaves)[0]!r}")
    fitting = {path: [rule.scale for rule in config.rates if re.fullmatch(rule.params, path)] for path in leaves}
    return unflatten_dict({path: [*found, 1.0][0] for path, found in fitting.items()}, sep="/")


def make(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW (arXiv 1711.05101), each update times its scale."""
    own_rates = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales(updates, config)))
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config), config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed
        ),
        *([own_rates] if config.rates else []),  # a checkpoint without rules has no state for them
    )
