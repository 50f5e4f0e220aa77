"""What a network should say of a whole span of time, so that few steps suffice; on the straight path.

u(x_t, t, span) is the mean velocity of the flow between t and t - span, towards data: x_(t - span) = x_t - span u. Over
no time at all it is the velocity v_t itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.flow.paths import Time

MeanVelocity = Callable[[Float[Array, "..."], Time, Time], Float[Array, "..."]]
"""From a point, its time and a span to the mean velocity; times are broadcastable to the points."""


def mean_velocity(
    u: MeanVelocity, x_t: Float[Array, "..."], v_t: Float[Array, "..."], t: Time, span: Time
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """u at a point, and what it should be: v_t - span du/dt along the flow, with its end t - span held.

    That is an identity of the mean velocity, and with v_t = noise - actions of one sample it holds in the mean. No
    gradient flows through the second.

    Source: MeanFlow, arXiv 2505.13447, equations 6 to 10.
    """
    ones = jnp.ones_like(t)
    predicted, slope = jax.jvp(u, (x_t, t, span), (v_t, ones, ones))
    return predicted, jax.lax.stop_gradient(v_t - span * slope)


def two_halves(u: MeanVelocity, x_t: Float[Array, "..."], t: Time, span: Time, smallest: float) -> Float[Array, "..."]:
    """What u should be at a point: the mean of two steps over half of the span, one after the other; no gradient.

    Args:
      smallest: half, for which u is asked over no time at all, where it learns from data.

    Source: shortcut models, arXiv 2410.12557, equation 4 and section 3.
    """
    half = span / 2
    asked = jnp.where(half > smallest, half, 0)
    first = u(x_t, t, asked)
    second = u(x_t - half * first, t - half, asked)
    return jax.lax.stop_gradient((first + second) / 2)
