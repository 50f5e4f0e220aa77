"""Solvers that carry noise at t = 1 to data at t = 0 along a velocity field."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def euler(
    velocity: Callable[[Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]],
    noise: Float[Array, "..."],
    num_steps: int,
) -> Float[Array, "..."]:
    """The sample at t = 0 reached from `noise` by `num_steps` equal Euler steps of `velocity(x_t, t)`.

    The state stays in the noise's precision (float32): ten rounded additions would show in the actions.
    """
    x_0, _ = jax.lax.scan(lambda x_t, i: (euler_step(velocity, x_t, i, num_steps), None), noise, jnp.arange(num_steps))
    return x_0


def euler_path(
    velocity: Callable[[Float[Array, "..."], Float[Array, ""]], Float[Array, "..."]],
    noise: Float[Array, "..."],
    num_steps: int,
) -> Float[Array, "n ..."]:
    """All n = `num_steps` + 1 points that `euler` goes through, from the noise (t = 1) to the sample (t = 0)."""

    def step(x_t, i):
        following = euler_step(velocity, x_t, i, num_steps)
        return following, following

    _, path = jax.lax.scan(step, noise, jnp.arange(num_steps))
    return jnp.concatenate([noise[None], path])


def euler_step(velocity: Callable, x_t: Float[Array, "..."], i: Int[Array, ""], num_steps: int) -> Float[Array, "..."]:
    """The point after step i of `num_steps`."""
    dt = -1.0 / num_steps
    return x_t + dt * velocity(x_t, 1.0 + i * dt).astype(x_t.dtype)
