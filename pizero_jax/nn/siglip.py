"""SigLIP's vision transformer: a picture becomes a square of tokens (arXiv 2303.15343; So400m/14 in PaliGemma)."""

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from pizero_jax.config import LoraConfig, VisionConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.attention import attend
from pizero_jax.nn.layers import Linear, dense, fan_in, layer_norm, rematted, weight
from pizero_jax.nn.lora import NONE


class SelfAttention(nn.Module):
    """Multi-head attention with biases over all tokens."""

    heads: int
    dtype: str
    lora: LoraConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        D = x.shape[-1]
        N, H = self.heads, D // self.heads

        def project(name):
            axes = ("embed", "heads", None)
            y = Linear("...D,DNH->...NH", (D, N, H), axes, self.dtype, self.lora, bias=True, name=name)(x)
            return checkpoint_name(y, name)

        y = checkpoint_name(attend(project("q"), project("k"), project("v")), "attended")
        axes = ("heads", None, "embed")
        return Linear("...NH,NHD->...D", (N, H, D), axes, self.dtype, self.lora, bias=True, name="out")(y)


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward with tanh-approximated GELU."""

    config: VisionConfig
    dtype: str
    lora: LoraConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], _=None):
        D, F = self.config.width, self.config.mlp
        x = constrain(x, "batch", None, None)
        attention = SelfAttention(self.config.heads, self.dtype, self.lora, name="attention")
        x = x + attention(layer_norm(self.dtype, "norm")(x))
        y = layer_norm(self.dtype, "mlp_norm")(x)
        y = nn.gelu(dense(D, F, ("embed", "mlp"), self.dtype, self.lora, name="up")(y))
        return x + dense(F, D, ("mlp", "embed"), self.dtype, self.lora, name="down")(y), None


class PatchStem(nn.Module):
    """Each patch of pixels through one linear map."""

    config: VisionConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B y x D"]:
        p, width = self.config.patch, self.config.width
        kernel = weight(self, "kernel", (p, p, 3, width), (None, None, None, "embed"), fan_in((0, 1, 2), 3))
        bias = weight(self, "bias", (width,), (None,), nn.initializers.zeros)
        B, h, w, _ = image.shape
        patches = image.reshape(B, h // p, p, w // p, p, 3)
        return jnp.einsum("Bypxqc,pqcD->ByxD", patches, kernel) + bias


class ConvStem(nn.Module):
    """Quarters the picture, then halves it by 3x3 convolutions until one position is left per patch (arXiv 2106.14881).

    Locality comes built in, so little data is enough; quartering first keeps it cheap on CPUs.
    """

    config: VisionConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B y x D"]:
        width, halvings = self.config.width, (self.config.patch // 4).bit_length() - 1
        widths = [min(max(width >> (halvings - i), 32), width) for i in range(halvings + 1)]
        x = self._convolve(image, widths[0], size=4, stride=4, name="conv_0")
        for i in range(1, halvings + 1):
            x = nn.gelu(layer_norm("float32", f"norm_{i}")(x))
            x = self._convolve(x, widths[i], size=3, stride=2, name=f"conv_{i}")
        return x

    def _convolve(self, x, features: int, *, size: int, stride: int, name: str):
        return nn.Conv(
            features,
            kernel_size=(size, size),
            strides=(stride, stride),
            kernel_init=nn.with_logical_partitioning(fan_in((0, 1, 2), 3), (None, None, None, "embed")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
            name=name,
        )(x)


STEMS = {"patch": PatchStem, "conv": ConvStem}


class Siglip(nn.Module):
    """Tokens of one picture, as wide as the language model."""

    config: VisionConfig
    width: int  # of the tokens returned
    dtype: str
    lora: LoraConfig = NONE
    remat: str = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B T width"]:
        """Image tokens [B, T, width] of pictures in [-1, 1], row by row from the upper left."""
        c = self.config
        x = STEMS[c.stem](c, name="stem")(image.astype(jnp.float32))  # stem in float32, as released
        x = x.reshape(x.shape[0], -1, c.width)
        init = nn.initializers.normal(c.width**-0.5)
        x = x + weight(self, "positions", (x.shape[1], c.width), (None, "embed"), init)
        blocks = nn.scan(
            rematted(EncoderBlock, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=c.depth,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = blocks(c, self.dtype, self.lora, name="layers")(x.astype(self.dtype), None)
        x = layer_norm(self.dtype, "final_norm")(x)
        return dense(c.width, self.width, ("embed", None), self.dtype, self.lora, name="head")(x)
