"""Solvers that carry noise at t = 1 to data at t = 0 along a velocity field."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def euler(
    velocity: Callable[[Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]],
    noise: Float[Array, "..."],
    num_steps: int,
) -> Float[Array, "..."]:
    """The sample at t = 0 reached from `noise` by `num_steps` equal Euler steps of `velocity(x_t, t)`.

    The state stays in the noise's precision (float32): ten rounded additions would show in the actions.
    """
    dt = -1.0 / num_steps

    def step(x_t, i):
        return x_t + dt * velocity(x_t, 1.0 + i * dt).astype(x_t.dtype), None

    x_0, _ = jax.lax.scan(step, noise, jnp.arange(num_steps))
    return x_0
