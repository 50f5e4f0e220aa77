"""The running average of the parameters, which acts and is evaluated."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from pizero_jax.types import Params


def updated(average: Params, params: Params, decay: float, key: Key[Array, ""]) -> Params:
    """`decay` of the average and the rest of the parameters, in the average's own type.

    In bfloat16 results are rounded at random: a step moves the average by less than half of its last digit, and
    rounding to the nearest would stop it.
    """
    leaves, tree = jax.tree.flatten(average)
    exact = jax.tree.leaves(optax.incremental_update(params, jax.tree.map(to_float32, average), 1 - decay))
    keys = jax.random.split(key, len(leaves)) if leaves else []
    rounded = [
        new if old.dtype == jnp.float32 else round_at_random(new, key)
        for old, new, key in zip(leaves, exact, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, rounded)


def to_float32(x: Array) -> Float[Array, "..."]:
    return x.astype(jnp.float32)


def round_at_random(x: Float[Array, "..."], key: Key[Array, ""]) -> Float[Array, "..."]:
    """x in bfloat16, one of its two neighbours, so that the mean is x; bfloat16 is the upper half of a float32."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)
