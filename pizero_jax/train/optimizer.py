"""AdamW with a warm-up-cosine rate, a clipped gradient and decay on matrices only."""

import jax
import optax

from pizero_jax.config import OptimizerConfig
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


def decayed(params: Params) -> Params:
    """True for the leaves that weight decay pulls to zero: all but biases, norm scales and position embeddings."""

    def is_matrix(path, _) -> bool:
        name = next(str(entry.key) for entry in reversed(path) if isinstance(entry, jax.tree_util.DictKey))
        return name not in ("scale", "positions", "bias")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW (arXiv 1711.05101)."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config), config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed
        ),
    )
