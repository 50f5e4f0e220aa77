"""Gemma's decoder, used once per expert.

Experts share attention one way: later tokens see the keys and values of earlier experts, layer by layer, and never the
other way round. So one expert's pass returns its keys and values, and the next expert attends to them beside its own:
training, prefilling and denoising are the same two calls.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from pizero_jax.config import AttentionConfig, LoraConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.attention import Rotations, attend, attention_weights, rotate, rotations
from pizero_jax.nn.layers import Linear, RMSNorm, rematted
from pizero_jax.nn.lora import NONE


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
    lora: LoraConfig

    def setup(self):
        c, D = self.config, self.width
        kept = self.dtype, self.lora
        self.q = Linear("...D,NDH->...NH", (c.heads, D, c.head_dim), ("heads", "embed", None), *kept)
        self.k = Linear("...D,KDH->...KH", (c.kv_heads, D, c.head_dim), ("kv_heads", "embed", None), *kept)
        self.v = Linear("...D,KDH->...KH", (c.kv_heads, D, c.head_dim), ("kv_heads", "embed", None), *kept)
        self.out = Linear("...NH,NHD->...D", (c.heads, c.head_dim, D), ("heads", None, "embed"), *kept)

    def keys_values(self, x: Float[Array, "B T D"], by: Rotations) -> KeysValues:
        axes = ("batch", None, "kv_heads", None)
        keys, values = constrain(rotate(self.k(x), by), *axes), constrain(self.v(x), *axes)
        return KeysValues(checkpoint_name(keys, "k"), checkpoint_name(values, "v"))

    def __call__(self, x, by: Rotations, visible, keys_values: KeysValues) -> Float[Array, "B T D"]:
        q = checkpoint_name(rotate(self.q(x), by), "q")
        if self.is_mutable_collection("intermediates"):  # only where a caller asks to see them
            self.sow("intermediates", "weights", attention_weights(q, keys_values.keys, visible))
        y = attend(q, keys_values.keys, keys_values.values, visible)
        return self.out(checkpoint_name(y, "attended"))


class FeedForward(nn.Module):
    """GeGLU: tanh-approximated GELU of the gate times the values (Gemma, arXiv 2403.08295)."""

    width: int
    mlp: int
    dtype: str
    lora: LoraConfig

    def setup(self):
        D, F = self.width, self.mlp
        kept = self.dtype, self.lora
        self.gate = Linear("...D,DF->...F", (D, F), ("embed", "mlp"), *kept)
        self.up = Linear("...D,DF->...F", (D, F), ("embed", "mlp"), *kept)
        self.down = Linear("...F,FD->...D", (F, D), ("mlp", "embed"), *kept)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        # Without the barrier XLA's CPU compiler recomputes the GELU's gradient inside a slow transposed copy.
        gate, up = jax.lax.optimization_barrier((self.gate(x), self.up(x)))
        return self.down(nn.gelu(gate) * up)


class Block(nn.Module):
    """One layer: what it shows to later experts, and its output if anything reads it."""

    config: AttentionConfig
    width: int
    mlp: int
    dtype: str
    lora: LoraConfig
    norm: type[nn.Module]
    remat: str

    def setup(self):
        self.attention_norm = self.norm(self.lora)
        self.attention = Attention(self.config, self.width, self.dtype, self.lora)
        self.mlp_norm = self.norm(self.lora)
        self.feed_forward = FeedForward(self.width, self.mlp, self.dtype, self.lora)

    def __call__(self, x, seen: KeysValues | None, has_reader, by: Rotations, visible, condition):
        x = constrain(x, "batch", None, None)
        y, gate = self.attention_norm(x, condition)
        own = self.attention.keys_values(y, by)
        everything = own if seen is None else seen.followed_by(own)

        def output(block: "Block", x, y):
            x = x + gate * block.attention(y, by, visible, everything)
            y, mlp_gate = block.mlp_norm(x, condition)
            return x + mlp_gate * block.feed_forward(y)

        if has_reader is None or self.is_initializing():
            return output(self, x, y), own
        # What a branch leaves for its backward pass comes out of it whole, one array for each elementwise derivative:
        # so the branch computes it again itself, and leaves its inputs.
        output = output if self.remat == "none" else nn.remat(output, prevent_cse=False)
        # Of the parameters alone: a branch not taken has nothing to sow.
        return nn.cond(has_reader, output, lambda block, x, y: x, self, x, y, variables="params"), own


class Transformer(nn.Module):
    """A stack of layers and a last norm: one expert."""

    config: AttentionConfig
    width: int
    mlp: int
    dtype: str
    lora: LoraConfig = NONE
    remat: str = "none"
    unroll: int = 1
    norm: type[nn.Module] = RMSNorm

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        visible: Bool[Array, "#B #T S"],
        seen: KeysValues | None = None,
        *,
        condition: Float[Array, "B M E"] | None = None,
        only_keys_values: bool = False,
    ) -> tuple[Float[Array, "B T D"] | None, KeysValues]:
        """Output [B, T, D] and this expert's keys and values [L, B, T, K, H].

        Args:
          x: token embeddings.
          positions: of the tokens, counted over the whole sequence.
          visible: which keys each token may use; S counts those in `seen`, then the T of this call.
          seen: what an earlier expert showed, [L, B, S - T, K, H].
          condition: of each of M equal blocks of tokens, where `norm` reads one.
          only_keys_values: nothing reads the output: the last layer stops after its keys and values (4.5% of the
            FLOPs of pi0's training step), and the output is None.
        """
        depth = self.config.depth
        layers = nn.scan(
            rematted(Block, self.remat),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(0, 0 if only_keys_values else nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
            length=depth,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.width, self.mlp, self.dtype, self.lora, self.norm, self.remat, name="layers")
        has_reader = jnp.arange(depth) < depth - 1 if only_keys_values else None  # a bool would be traced by remat
        by = rotations(positions, self.config.head_dim)
        x, own = layers(x.astype(self.dtype), seen, has_reader, by, visible, condition)
        y, _ = self.norm(self.lora, name="final_norm")(x, condition)  # outside the branch: its weights exist either way
        return (None if only_keys_values else y), own
