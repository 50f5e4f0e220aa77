"""What a network may predict of a point on a path, and how one prediction is turned into another.

Every kind is a sum of data and noise, p = a(t) x_0 + b(t) eps; with x_t = alpha x_0 + sigma eps these are two equations
for the two, of determinant alpha b - sigma a.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.flow.paths import Path, Time

Kind = Literal["u", "eps", "x0", "v"]
"""Velocity of the path; noise; data; and alpha eps - sigma x_0 (arXiv 2202.00512, appendix D)."""

Predict = Callable[[Float[Array, "..."], Time], Float[Array, "..."]]
"""From a point and its time to a prediction."""

# At data x_0 tells nothing of the noise, nor does the velocity of a path that begins steeply; where alpha is 0 eps
# tells nothing of the data.
_EDGE = 1e-4


class Ends(NamedTuple):
    """Data and noise that a point seems to lie between."""

    x_0: Float[Array, "..."]
    eps: Float[Array, "..."]


def parts(kind: Kind, path: Path, t: Time) -> tuple[Time, Time]:
    """a and b of a kind."""
    match kind:
        case "u":
            return path.slopes(t)
        case "eps":
            return jnp.zeros_like(t), jnp.ones_like(t)
        case "x0":
            return jnp.ones_like(t), jnp.zeros_like(t)
        case "v":
            return -path.sigma(t), path.alpha(t)


def target(kind: Kind, path: Path, x_0: Float[Array, "..."], eps: Float[Array, "..."], t: Time) -> Float[Array, "..."]:
    """What a network should predict."""
    a, b = parts(kind, path, t)
    return a * x_0 + b * eps


def determinant(kind: Kind, path: Path, t: Time) -> Time:
    a, b = parts(kind, path, t)
    return path.alpha(t) * b - path.sigma(t) * a


def ends(kind: Kind, path: Path, prediction: Float[Array, "..."], x_t: Float[Array, "..."], t: Time) -> Ends:
    """Data and noise from a prediction of any kind."""
    a, b = parts(kind, path, t)
    d = determinant(kind, path, t)
    return Ends((b * x_t - path.sigma(t) * prediction) / d, (path.alpha(t) * prediction - a * x_t) / d)


def error_ratio(kind: Kind, other: Kind, path: Path, t: Time) -> Time:
    """Squared error of a prediction of `kind` for each of `other`, of the same data and noise.

    A loss on `other`, times this, is a loss on `kind`.
    """
    return jnp.square(determinant(kind, path, t) / determinant(other, path, t))


def denoiser(
    predict: Predict, kind: Kind, path: Path, clip: float | None = None
) -> Callable[[Float[Array, "..."], Time], Ends]:
    """From a point and its time to data and noise.

    Times are kept 1e-4 away from where a kind says nothing.

    Args:
      clip: data are cut to [-clip, clip], and the noise is what is left of the point (Diffusion Policy's clip_sample).
    """

    def denoise(x_t: Float[Array, "..."], t: Time) -> Ends:
        t = jnp.asarray(t, x_t.dtype)
        if kind in ("x0", "u"):
            t = jnp.maximum(t, _EDGE)
        elif kind == "eps":
            t = jnp.minimum(t, 1 - _EDGE)
        found = ends(kind, path, predict(x_t, t).astype(x_t.dtype), x_t, t)
        if clip is None:
            return found
        x_0 = jnp.clip(found.x_0, -clip, clip)
        return Ends(x_0, (x_t - path.alpha(t) * x_0) / jnp.maximum(path.sigma(t), _EDGE))

    return denoise


def guided(conditional: Float[Array, "..."], unconditional: Float[Array, "..."], weight: float) -> Float[Array, "..."]:
    """Classifier-free guidance: 0 the unconditional prediction, 1 the conditional one, more than that beyond it.

    Source: arXiv 2207.12598, with 1 + w as the weight.
    """
    return unconditional + weight * (conditional - unconditional)
