"""The transformer with an encoder and a decoder, norms behind the sublayers; positions are added to queries and keys.

Source: arXiv 1706.03762; positions in every layer and queries for the decoder as in DETR, arXiv 2005.12872. Dropout is
of sublayers and hidden units, not of attention's shares.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from pizero_jax.mesh import constrain
from pizero_jax.nn.attention import attend
from pizero_jax.nn.layers import Linear, dense, dropout, layer_norm, sincos
from pizero_jax.nn.lora import NONE

Keys = Key[Array, "B"] | None
"""Of dropout, one for each row; None for none."""


class Sized(nn.Module):
    """What layers and stacks of them have. `rate` is dropout's."""

    heads: int
    mlp: int
    dtype: str
    rate: float


class Attention(nn.Module):
    """Multi-head attention with biases."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B T D"],
        keys: Float[Array, "B S E"],
        values: Float[Array, "B S E"],
        visible: Bool[Array, "#B #T S"] | None = None,
    ) -> Float[Array, "B T D"]:
        D, N = queries.shape[-1], self.heads

        def project(name: str, x: Array) -> Array:
            shape, axes = (x.shape[-1], N, D // N), ("embed", "heads", None)
            return Linear("...D,DNH->...NH", shape, axes, self.dtype, bias=True, name=name)(x)

        y = attend(project("q", queries), project("k", keys), project("v", values), visible)
        axes = ("heads", None, "embed")
        return Linear("...NH,NHD->...D", (N, D // N, D), axes, self.dtype, bias=True, name="out")(y)


class FeedForward(nn.Module):
    mlp: int
    dtype: str
    rate: float
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], keys: Keys) -> Float[Array, "B T D"]:
        D, F = x.shape[-1], self.mlp
        y = self.activation(dense(D, F, ("embed", "mlp"), self.dtype, NONE, name="up")(x))
        return dense(F, D, ("mlp", "embed"), self.dtype, NONE, name="down")(dropout(y, keys, self.rate))


class EncoderLayer(Sized):
    @nn.compact
    def __call__(self, x, positions, visible, keys: Keys):
        attention_keys, hidden_keys, mlp_keys = split(keys, 3)
        x = constrain(x, "batch", None, None)
        placed = x + positions
        y = Attention(self.heads, self.dtype, name="attention")(placed, placed, x, visible)
        x = layer_norm(self.dtype, "norm")(x + dropout(y, attention_keys, self.rate))
        y = FeedForward(self.mlp, self.dtype, self.rate, name="feed_forward")(x, hidden_keys)
        return layer_norm(self.dtype, "mlp_norm")(x + dropout(y, mlp_keys, self.rate)), None


class DecoderLayer(Sized):
    @nn.compact
    def __call__(self, x, queries, memory, places, visible, keys: Keys):
        own_keys, seen_keys, hidden_keys, mlp_keys = split(keys, 4)
        x = constrain(x, "batch", None, None)
        placed = x + queries
        y = Attention(self.heads, self.dtype, name="own")(placed, placed, x)
        x = layer_norm(self.dtype, "own_norm")(x + dropout(y, own_keys, self.rate))
        y = Attention(self.heads, self.dtype, name="seen")(x + queries, memory + places, memory, visible)
        x = layer_norm(self.dtype, "seen_norm")(x + dropout(y, seen_keys, self.rate))
        y = FeedForward(self.mlp, self.dtype, self.rate, name="feed_forward")(x, hidden_keys)
        return layer_norm(self.dtype, "mlp_norm")(x + dropout(y, mlp_keys, self.rate)), None


def split(keys: Keys, n: int) -> list[Keys]:
    """n of each row's."""
    return [None] * n if keys is None else list(jax.vmap(lambda key: jax.random.split(key, n), out_axes=1)(keys))


class Stack(Sized):
    depth: int
    unroll: int = 1

    def layers(self, layer: type[Sized], shared: int, keys: Keys, **more):
        """`layer`, scanned over its carry and `shared` inputs that are the same for all; and the keys of each."""
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(*(nn.broadcast for _ in range(shared)), 0),
            length=self.depth,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.heads, self.mlp, self.dtype, self.rate, **more, name="layers")
        return scanned, None if keys is None else jnp.stack(split(keys, self.depth))


class Encoder(Stack):
    """Tokens that have seen each other."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        positions: Float[Array, "#B S D"],
        visible: Bool[Array, "B S"],
        keys: Keys = None,
    ) -> Float[Array, "B S D"]:
        """Args: `visible` tokens may be used by all."""
        layers, keys = self.layers(EncoderLayer, 2, keys)
        return layers(x.astype(self.dtype), positions.astype(self.dtype), visible[:, None], keys)[0]


class Decoder(Stack):
    """What queries, which begin as zeros, have found in a memory."""

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "T D"],
        memory: Float[Array, "B S D"],
        places: Float[Array, "#B S D"],
        visible: Bool[Array, "B S"],
        keys: Keys = None,
    ) -> Float[Array, "B T D"]:
        """Args: `queries` are the positions of the T; `places` those of the memory, of which `visible` may be used."""
        queries, places = queries.astype(self.dtype)[None], places.astype(self.dtype)
        x = jnp.zeros((memory.shape[0], *queries.shape[1:]), self.dtype)
        layers, keys = self.layers(DecoderLayer, 4, keys)
        x, _ = layers(x, queries, memory, places, visible[:, None], keys)
        return layer_norm(self.dtype, "final_norm")(x)


def places_in_line(count: int, width: int) -> Float[Array, "count width"]:
    """Sines and cosines of 0, 1, 2, ... Source: arXiv 1706.03762, section 3.5."""
    return sincos(jnp.arange(count), width, 2 * jnp.pi, 2e4 * jnp.pi)


def places_in_picture(height: int, width: int, features: int) -> Float[Array, "hw features"]:
    """Sines and cosines of how far down and how far across, a half each, row by row. Source: DETR, appendix A.4."""
    down, across = (
        sincos((jnp.arange(side) + 1) / side, features // 2, shortest=1.0, longest=1e4) for side in (height, width)
    )
    rows, columns = jnp.repeat(down, width, axis=0), jnp.tile(across, (height, 1))
    return jnp.concatenate([rows, columns], axis=-1)
