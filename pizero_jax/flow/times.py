"""Densities of the flow time that training draws from, on (0, 1]."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.flow.paths import Time

EDGE = 1e-5  # no draw is below: at data steep paths have no velocity, in float32 "vp_cosine" has none up to 3e-6
FLOOR, SPAN = 0.001, 0.999  # t = 0.001 + 0.999 b with b ~ Beta(1.5, 1): mostly noisy times, never exactly data


class Density(NamedTuple):
    """A distribution of times by its three functions."""

    pdf: Callable[[Time], Time]
    cdf: Callable[[Time], Time]
    quantile: Callable[[Time], Time]  # the time that a share of the draws lies below

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
        return jnp.maximum(self.quantile(jax.random.uniform(key, shape)), EDGE)


def logit_normal(mean: float, std: float) -> Density:
    """The logistic function of a normal number.

    Source: arXiv 2403.03206, section 3.1.
    """

    def z(t: Time) -> Time:
        return (jax.scipy.special.logit(t) - mean) / std

    return Density(
        lambda t: jax.scipy.stats.norm.pdf(z(t)) / (std * t * (1 - t)),
        lambda t: jax.scipy.stats.norm.cdf(z(t)),
        lambda share: jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(jnp.clip(share, 1e-7, 1 - 1e-7))),
    )


UNIFORM = Density(jnp.ones_like, lambda t: t, lambda share: share)

SHIFTED_BETA = Density(
    lambda t: 1.5 / SPAN * jnp.sqrt((t - FLOOR) / SPAN),
    lambda t: ((t - FLOOR) / SPAN) ** 1.5,
    lambda share: FLOOR + SPAN * share ** (2 / 3),
)
"""Mean 0.6004, variance 0.0684. Source: pi0, arXiv 2410.24164, appendix B, with its time turned round."""

TIMES: Mapping[str, Density] = MappingProxyType(
    {"uniform": UNIFORM, "shifted_beta": SHIFTED_BETA, "logit_normal": logit_normal(0.0, 1.0)}
)
