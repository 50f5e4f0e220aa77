"""Small layers that every network uses: weights with their sharding, RMSNorm, dense layers, the time embedding."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def fan_in(in_axis: int | Sequence[int], out_axis: int | Sequence[int], scale: float = 1.0) -> Callable:
    """Normal initialiser of variance `scale` / fan-in, the axes being those of the weight without its layer axis."""
    return nn.initializers.variance_scaling(scale, "fan_in", "normal", in_axis=in_axis, out_axis=out_axis)


def weight(module: nn.Module, name: str, shape: Sequence[int], axes: Sequence[str | None], init: Callable) -> Array:
    """The parameter `name` of `module`: its shape, its logical axes (for sharding) and its initialiser in one place."""
    return module.param(name, nn.with_logical_partitioning(init, tuple(axes)), tuple(shape), jnp.float32)


def dense(features: int, axes: tuple[str | None, str | None], dtype: str, name: str | None = None) -> nn.Dense:
    """Linear layer with bias; `axes` are the logical axes of its kernel [in, out]."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=nn.with_logical_partitioning(fan_in(0, 1), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        name=name,
    )


def layer_norm(dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with SigLIP's epsilon; Linen computes its statistics in float32."""
    return nn.LayerNorm(
        epsilon=1e-6,
        dtype=dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, (None,)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
        name=name,
    )


class RMSNorm(nn.Module):
    """Root-mean-square norm; the scale is stored as its difference from 1 (Gemma, arXiv 2403.08295)."""

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = weight(self, "scale", x.shape[-1:], (None,), nn.initializers.zeros)
        y = x.astype(jnp.float32)  # the mean of squares loses digits in bfloat16
        y = y / jnp.sqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
        return (y * (1 + scale)).astype(x.dtype)


def sincos(
    t: Float[Array, "..."], width: int, shortest: float = 4e-3, longest: float = 4.0
) -> Float[Array, "... width"]:
    """Sines and cosines of t at `width` / 2 periods, geometric from `shortest` to `longest` (flow times lie in [0, 1]).

    Source: pi0, arXiv 2410.24164, appendix B; the two periods are openpi's.
    """
    periods = shortest * (longest / shortest) ** jnp.linspace(0, 1, width // 2)
    angle = 2 * jnp.pi * t.astype(jnp.float32)[..., None] / periods
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
