"""Gemma's decoder, used once per expert.

Experts share attention one way: later tokens see the keys and values of earlier experts, layer by layer, and never the
other way round. So one expert's pass returns its keys and values, and the next expert attends to them beside its own:
training, prefilling and denoising are the same two calls.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from pizero_jax.config import AttentionConfig
from pizero_jax.nn.attention import attend, rotate
from pizero_jax.nn.layers import RMSNorm, fan_in, weight


@struct.dataclass
class KeysValues:
    """Rotated keys, and values; with a leading axis L over all layers, or of one layer."""

    keys: Float[Array, "*L B S K H"]
    values: Float[Array, "*L B S K H"]

    def followed_by(self, other: "KeysValues") -> "KeysValues":
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-3), self, other)


class Attention(nn.Module):
    """Grouped-query attention without biases (Gemma, arXiv 2403.08295)."""

    config: AttentionConfig
    width: int
    dtype: str

    def setup(self):
        c, init = self.config, fan_in(-2, (-3, -1))
        self.q = weight(self, "q", (c.heads, self.width, c.head_dim), ("heads", "embed", None), init)
        self.k = weight(self, "k", (c.kv_heads, self.width, c.head_dim), ("kv_heads", "embed", None), init)
        self.v = weight(self, "v", (c.kv_heads, self.width, c.head_dim), ("kv_heads", "embed", None), init)
        self.out = weight(
            self, "out", (c.heads, c.head_dim, self.width), ("heads", None, "embed"), fan_in((-3, -2), -1)
        )

    def keys_values(self, x: Float[Array, "B T D"], positions: Int[Array, "B T"]) -> KeysValues:
        k = jnp.einsum("BTD,KDH->BTKH", x, self.k.astype(self.dtype))
        v = jnp.einsum("BTD,KDH->BTKH", x, self.v.astype(self.dtype))
        return KeysValues(rotate(k, positions), v)

    def __call__(self, x, positions, visible, keys_values: KeysValues) -> Float[Array, "B T D"]:
        q = rotate(jnp.einsum("BTD,NDH->BTNH", x, self.q.astype(self.dtype)), positions)
        y = attend(q, keys_values.keys, keys_values.values, visible)
        return jnp.einsum("BTNH,NHD->BTD", y, self.out.astype(self.dtype))


class FeedForward(nn.Module):
    """GeGLU: tanh-approximated GELU of the gate times the values (Gemma, arXiv 2403.08295)."""

    width: int
    mlp: int
    dtype: str

    def setup(self):
        self.gate = weight(self, "gate", (self.width, self.mlp), ("embed", "mlp"), fan_in(-2, -1))
        self.up = weight(self, "up", (self.width, self.mlp), ("embed", "mlp"), fan_in(-2, -1))
        self.down = weight(self, "down", (self.mlp, self.width), ("mlp", "embed"), fan_in(-2, -1))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate, up, down = (w.astype(self.dtype) for w in (self.gate, self.up, self.down))
        # Without the barrier XLA's CPU compiler recomputes the GELU's gradient inside a slow transposed copy.
        gate, up = jax.lax.optimization_barrier((x @ gate, x @ up))
        return (nn.gelu(gate) * up) @ down


class Block(nn.Module):
    """One layer: what it shows to later experts, and its output if anything reads it."""

    config: AttentionConfig
    width: int
    mlp: int
    dtype: str

    def setup(self):
        self.attention_norm = RMSNorm()
        self.attention = Attention(self.config, self.width, self.dtype)
        self.mlp_norm = RMSNorm()
        self.feed_forward = FeedForward(self.width, self.mlp, self.dtype)

    def __call__(self, x, seen: KeysValues | None, has_reader, positions, visible):
        y = self.attention_norm(x)
        own = self.attention.keys_values(y, positions)
        everything = own if seen is None else seen.followed_by(own)

        def output(block: "Block", x, y):
            x = x + block.attention(y, positions, visible, everything)
            return x + block.feed_forward(block.mlp_norm(x))

        if has_reader is True or self.is_initializing():
            return output(self, x, y), own
        return nn.cond(has_reader, output, lambda block, x, y: x, self, x, y), own


class Transformer(nn.Module):
    """A stack of layers and a last norm: one expert."""

    config: AttentionConfig
    width: int
    mlp: int
    dtype: str
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        visible: Bool[Array, "#B #T S"],
        seen: KeysValues | None = None,
        *,
        only_keys_values: bool = False,
    ) -> tuple[Float[Array, "B T D"] | None, KeysValues]:
        """Output [B, T, D] and this expert's keys and values [L, B, T, K, H].

        Args:
          x: token embeddings.
          positions: of the tokens, counted over the whole sequence.
          visible: which keys each token may use; S counts those in `seen`, then the T of this call.
          seen: what an earlier expert showed, [L, B, S - T, K, H].
          only_keys_values: nothing reads the output: the last layer stops after its keys and values (4.5% of the
            FLOPs of pi0's training step), and the output is None.
        """
        depth = self.config.depth
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, 0 if only_keys_values else nn.broadcast, nn.broadcast, nn.broadcast),
            length=depth,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.width, self.mlp, self.dtype, name="layers")
        has_reader = jnp.arange(depth) < depth - 1 if only_keys_values else True
        x, own = layers(x.astype(self.dtype), seen, has_reader, positions, visible)
        y = RMSNorm(name="final_norm")(x)  # outside the branch, so that its scale exists either way
        return (None if only_keys_values else y), own
