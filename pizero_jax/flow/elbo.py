"""The variational bound of DDPM for Gaussian data, step by step, in nats for each dimension.

Source: DDPM, arXiv 2006.11239, equation 5; by signal-to-noise ratios: arXiv 2107.00630, section 4.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.flow.paths import Path
from pizero_jax.flow.solvers import Denoise, posterior_variance, step_variance


class Bound(NamedTuple):
    """What adds up to an upper bound of -log p(x_0)."""

    prior: Float[Array, ""]  # divergence of q(x_1 | x_0) from the standard normal
    steps: Float[Array, "N-1"]  # of q(x_s | x_t, x_0) from its model, from noise to data
    data: Float[Array, ""]  # -log p(x_0 | x_t) at the last step, of deviation sigma(t) / alpha(t)

    @property
    def total(self) -> Float[Array, ""]:
        return self.prior + self.steps.sum() + self.data


def estimate(
    denoise: Denoise, path: Path, x_0: Float[Array, "n"], eps: Float[Array, "N n"], times: Float[Array, "N+1"]
) -> Bound:
    """By drawing: the mean over n data and their noise at each of N times.

    The model of a step has the posterior's variance, its mean with the predicted data in place of x_0.
    """
    t, s = times[:-1], times[1:]
    found = jnp.stack([denoise(path.point(x_0, e, at), at).x_0 for e, at in zip(eps, t, strict=True)])
    squared = jnp.mean(jnp.square(found - x_0), axis=1)
    before, after = t[:-1], s[:-1]
    weight = path.alpha(after) * step_variance(path, before, after) / jnp.square(path.sigma(before))  # of x_0 in it
    steps = jnp.square(weight) * squared[:-1] / (2 * posterior_variance(path, before, after))
    return Bound(_prior(path, jnp.mean(jnp.square(x_0)), times[0]), steps, _data(path, squared[-1], t[-1]))


def gaussian(path: Path, mean: float, std: float, times: Float[Array, "N+1"]) -> Bound:
    """In closed form, with the best denoiser, for data from N(mean, std^2)."""
    t, s = times[:-1], times[1:]
    squared = jnp.square(std * path.sigma(t)) / (jnp.square(std * path.alpha(t)) + jnp.square(path.sigma(t)))
    steps = (path.snr(s[:-1]) - path.snr(t[:-1])) / 2 * squared[:-1]
    return Bound(_prior(path, mean**2 + std**2, times[0]), steps, _data(path, squared[-1], t[-1]))


def _prior(path: Path, squared: Array | float, t: Array) -> Array:
    variance = jnp.square(path.sigma(t))
    return (variance + jnp.square(path.alpha(t)) * squared - 1 - jnp.log(variance)) / 2


def _data(path: Path, squared: Array, t: Array) -> Array:
    variance = 1 / path.snr(t)
    return (jnp.log(2 * jnp.pi * variance) + squared / variance) / 2
