"""A residual network for pictures, and the places where its features are (ResNet-18, arXiv 1512.03385).

Norms are of groups of channels, not of the batch: what a row gives would depend on those beside it, and a batch's
statistics do not go with averaged weights (Diffusion Policy, arXiv 2303.04137, section III).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pizero_jax.config import GROUP, ResNetConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import convolution, group_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    features: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B y x D"]:
        D, norm = self.features, lambda name: group_norm(self.features // GROUP, self.dtype, name)
        y = convolution(D, 3, self.dtype, stride=self.stride, bias=False, name="conv_1")(x)
        y = nn.relu(norm("norm_1")(y))
        y = norm("norm_2")(convolution(D, 3, self.dtype, bias=False, name="conv_2")(y))
        if x.shape != y.shape:
            x = convolution(D, 1, self.dtype, stride=self.stride, bias=False, name="shortcut")(x)
            x = norm("shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Features of a picture; the published 18 layers are two blocks of 64, 128, 256 and 512 channels."""

    config: ResNetConfig
    dtype: str

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B y x D"]:
        """[B, y, x, D] of pictures in [-1, 1]: a quarter of the side, halved by each width but the first."""
        c = self.config
        x = convolution(c.widths[0], 7, self.dtype, stride=2, bias=False, name="stem")(image)
        x = nn.relu(group_norm(c.widths[0] // GROUP, self.dtype, "stem_norm")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        for i, width in enumerate(c.widths):
            for j in range(c.depth):
                stride = 2 if i > 0 and j == 0 else 1
                x = BasicBlock(width, stride, self.dtype, name=f"block_{i}_{j}")(x)
                x = constrain(x, "batch", None, None, None)
        return x


def spatial_softmax(features: Float[Array, "B y x K"]) -> Float[Array, "B K 2"]:
    """Where each channel is strongest, across and down from -1 to 1: the mean place under its softmax, in float32.

    Source: arXiv 1504.00702, section V.
    """
    B, h, w, K = features.shape
    shares = jax.nn.softmax(features.astype(jnp.float32).reshape(B, h * w, K), axis=1)
    down, across = jnp.meshgrid(jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij")
    places = jnp.stack([across.ravel(), down.ravel()], axis=-1)
    return jnp.einsum("BsK,sp->BKp", shares, places)
