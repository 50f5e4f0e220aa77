"""Probability paths between data and noise. Time runs as in openpi: t = 0 is data, t = 1 is noise.

x_t = alpha(t) x_0 + sigma(t) eps. After division by alpha + sigma every path is the straight one at the time
tau = sigma / (alpha + sigma), so that what solves the straight one solves all.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Time = Float[Array, "..."]  # broadcastable to the points

BETAS = 1e-4, 0.02  # of the first and last of DDPM's 1,000 linear steps
_OFFSET = 0.008  # of the squared cosine, so that the first steps are not too small


class Path(NamedTuple):
    """Functions of a time, or of many."""

    alpha: Callable[[Time], Time]  # falls from 1
    sigma: Callable[[Time], Time]  # rises from 0
    time_at: Callable[[Time], Time]  # the time of a tau

    def point(self, x_0: Float[Array, "..."], eps: Float[Array, "..."], t: Time) -> Float[Array, "..."]:
        return self.alpha(t) * x_0 + self.sigma(t) * eps

    def slopes(self, t: Time) -> tuple[Time, Time]:
        """Derivatives of alpha and sigma by time."""
        ones = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (ones,))[1], jax.jvp(self.sigma, (t,), (ones,))[1]

    def tau(self, t: Time) -> Time:
        return self.sigma(t) / self.size(t)

    def size(self, t: Time) -> Time:
        """What to divide by for the straight path."""
        return self.alpha(t) + self.sigma(t)

    def snr(self, t: Time) -> Time:
        """The ratio of the variances of signal and noise, for data of unit variance."""
        return jnp.square(self.alpha(t) / self.sigma(t))


def preserving(log_abar: Callable[[Time], Time], time_at: Callable[[Time], Time]) -> Path:
    """alpha^2 + sigma^2 = 1: data of unit variance keep it.

    Args:
      log_abar: log alpha^2, 0 at t = 0.
      time_at: its inverse.
    """

    def at(tau: Time) -> Time:
        ratio = tau / jnp.maximum(1 - tau, jnp.finfo(jnp.float32).tiny)
        return time_at(-jnp.log1p(jnp.square(ratio)))

    return Path(lambda t: jnp.exp(log_abar(t) / 2), lambda t: jnp.sqrt(jnp.maximum(-jnp.expm1(log_abar(t)), 0)), at)


def table(betas: Float[np.ndarray, "T"]) -> Path:
    """The path of DDPM's T steps, step k at t = (k + 1) / T; between them log abar is linear.

    Source: DDPM, arXiv 2006.11239, section 2.
    """
    T = len(betas)
    grid, values = np.arange(T + 1) / T, np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return preserving(lambda t: jnp.interp(t, grid, values), lambda log: jnp.interp(-log, -values, grid))


def linear_betas(T: int = 1000) -> Float[np.ndarray, "T"]:
    """Source: DDPM, section 4."""
    return np.linspace(*BETAS, T)


def cosine_betas(T: int = 100) -> Float[np.ndarray, "T"]:
    """Source: improved DDPM, arXiv 2102.09672, section 3.2; 100 steps as in Diffusion Policy."""
    abar = np.cos((np.arange(T + 1) / T + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], 0.999)


def _continuous_linear() -> Path:
    """What 1,000 steps with linear betas tend to when each is divided: beta(t) from 0.1 to 20.

    Source: arXiv 2011.13456, appendix C.
    """
    low, high = (1000 * beta for beta in BETAS)
    rise = high - low
    return preserving(lambda t: -t * (low + rise * t / 2), lambda log: (jnp.sqrt(low**2 - 2 * rise * log) - low) / rise)


def _continuous_cosine() -> Path:
    def log_cosine(t: Time) -> Time:
        """Of (t + offset) / (1 + offset) quarter turns; at t = 1 a float32 cosine is below 0, and this one above."""
        left = 1 - t + jnp.finfo(jnp.result_type(t, float)).eps
        return jnp.log(jnp.sin(left / (1 + _OFFSET) * jnp.pi / 2))

    start = np.log(np.cos(_OFFSET / (1 + _OFFSET) * np.pi / 2))

    def log_abar(t: Time) -> Time:
        return 2 * (log_cosine(t) - log_cosine(jnp.zeros_like(t)))

    def time_at(log: Time) -> Time:
        return jnp.arccos(jnp.exp(log / 2 + start)) * 2 / jnp.pi * (1 + _OFFSET) - _OFFSET

    return preserving(log_abar, time_at)


STRAIGHT = Path(lambda t: 1 - t, lambda t: t, lambda tau: tau)
"""Source: pi0, arXiv 2410.24164, section IV, whose tau is 1 - t; the paths of flow matching."""

TRIGONOMETRIC = Path(
    lambda t: jnp.cos(jnp.pi / 2 * t), lambda t: jnp.sin(jnp.pi / 2 * t),
    lambda tau: 2 / jnp.pi * jnp.arctan2(tau, 1 - tau),
)  # fmt: skip
"""Source: stochastic interpolants, arXiv 2303.08797, section 4."""

PATHS: Mapping[str, Path] = MappingProxyType(
    {
        "straight": STRAIGHT,
        "trigonometric": TRIGONOMETRIC,
        "ddpm_linear": table(linear_betas()),
        "ddpm_cosine": table(cosine_betas()),
        "vp_linear": _continuous_linear(),
        "vp_cosine": _continuous_cosine(),
    }
)
