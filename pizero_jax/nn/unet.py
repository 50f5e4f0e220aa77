"""Convolutions over the steps of a chunk, coarser and finer again, told what to do by a condition.

Source: Diffusion Policy, arXiv 2303.04137, section III; the condition scales and shifts features (FiLM, arXiv
1709.07871).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pizero_jax.config import UnetConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import Linear, dense, fan_in, group_norm, sincos, weight
from pizero_jax.nn.lora import NONE


def windows(x: Float[Array, "B T D"], size: int, stride: int = 1) -> Float[Array, "B t k D"]:
    """The k = `size` steps around every `stride`-th one, zeros beyond the ends.

    A convolution is a linear map of them; on CPUs, XLA's own takes several times as long to train.
    """
    padded = jnp.pad(x, ((0, 0), (size // 2, size // 2), (0, 0)))
    return jnp.stack([padded[:, i : i + x.shape[1] : stride] for i in range(size)], axis=2)


def convolution(x: Float[Array, "B T d"], features: int, size: int, dtype: str, *, stride: int = 1, name: str) -> Array:
    """[B, T / stride, features] over `size` steps each."""
    shape, axes = (size, x.shape[-1], features), (None, "embed", "mlp")
    return Linear("...KD,KDF->...F", shape, axes, dtype, bias=True, name=name)(windows(x, size, stride))


class Doubled(nn.Module):
    """A transposed convolution over four steps: every two of the result are from two of x."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B T d"]) -> Float[Array, "B 2*T D"]:
        (B, T, d), D = x.shape, self.features
        kernel = weight(self, "kernel", (4, d, D), (None, "embed", "mlp"), fan_in(1, 2, scale=0.5))
        bias = weight(self, "bias", (D,), (None,), nn.initializers.zeros)
        y = jnp.einsum("BTd,JdD->BTJD", x.astype(self.dtype), kernel.astype(self.dtype)).reshape(B, T, 2, 2, D)
        none = jnp.zeros_like(y[:, :1, 0])
        early = jnp.concatenate([y[:, :, 0], none], axis=1)
        late = jnp.concatenate([none, y[:, :, 1]], axis=1)
        return (early + late).reshape(B, 2 * T + 2, D)[:, 1:-1] + bias.astype(self.dtype)


class ConvBlock(nn.Module):
    """Convolution, norm, Mish."""

    features: int
    config: UnetConfig
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B T d"]) -> Float[Array, "B T D"]:
        x = convolution(x, self.features, self.config.kernel, self.dtype, name="conv")
        return jax.nn.mish(group_norm(self.config.groups, self.dtype, "norm")(x))


class FilmBlock(nn.Module):
    """Two convolutions beside a shortcut; between them the features are scaled and shifted as the condition says."""

    features: int
    config: UnetConfig
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B T d"], condition: Float[Array, "B E"]) -> Float[Array, "B T D"]:
        D, E = self.features, condition.shape[-1]
        x = constrain(x, "batch", None, None)
        film = dense(E, 2 * D, ("embed", "mlp"), self.dtype, NONE, name="film")(jax.nn.mish(condition))
        scale, shift = jnp.split(film[:, None], 2, axis=-1)
        y = ConvBlock(D, self.config, self.dtype, name="before")(x)
        y = ConvBlock(D, self.config, self.dtype, name="after")(y * (1 + scale) + shift)
        return y + (x if x.shape == y.shape else convolution(x, D, 1, self.dtype, name="shortcut"))


class Unet(nn.Module):
    """A chunk for a chunk, its steps halved by each width but the first, and doubled again."""

    config: UnetConfig
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B C A"], t: Float[Array, "B"], condition: Float[Array, "B E"]
    ) -> Float[Array, "B C A"]:
        """[B, C, A] in float32, the solver's state.

        Args:
          x: its steps are a multiple of 2 for each width but the first.
          t: flow time in [0, 1].
          condition: of the whole chunk.
        """
        c, A, E = self.config, x.shape[-1], self.config.time

        def blocks(x: Array, width: int, name: str) -> Array:
            for i in range(2):
                x = FilmBlock(width, c, self.dtype, name=f"{name}_{i}")(x, condition)
            return x

        time = dense(E, 4 * E, ("embed", "mlp"), self.dtype, NONE, name="time_in")(sincos(t, E))
        time = dense(4 * E, E, ("mlp", "embed"), self.dtype, NONE, name="time_out")(jax.nn.mish(time))
        condition = jnp.concatenate([time, condition.astype(self.dtype)], axis=-1)
        x, kept = x.astype(self.dtype), []
        for i, width in enumerate(c.widths):
            if i:
                x = convolution(x, c.widths[i - 1], 3, self.dtype, stride=2, name=f"halve_{i}")
            x = blocks(x, width, f"down_{i}")
            kept.append(x)
        x = blocks(x, c.widths[-1], "middle")
        for i in reversed(range(1, len(c.widths))):
            x = blocks(jnp.concatenate([x, kept[i]], axis=-1), c.widths[i - 1], f"up_{i}")
            x = Doubled(c.widths[i - 1], self.dtype, name=f"double_{i}")(x)
        x = ConvBlock(c.widths[0], c, self.dtype, name="last")(x)
        return convolution(x, A, 1, "float32", name="out")
