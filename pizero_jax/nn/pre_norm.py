"""The transformer with norms before its sublayers; it looks into a memory, and its norms read a condition, if given.

Source: arXiv 2002.04745. With `AdaptiveLayerNorm` it is DiT with adaLN-Zero, arXiv 2212.09748, section 3.2, whose
cross-attention stands behind the self-attention. Dropout is as in `encoder_decoder.py`.
"""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from pizero_jax.mesh import constrain
from pizero_jax.nn.encoder_decoder import Attention, FeedForward, Keys, Sized, Stack, split
from pizero_jax.nn.layers import LayerNorm, dropout


class PreNormLayer(Sized):
    norm: type[nn.Module]

    @nn.compact
    def __call__(self, x, visible, memory, seen, condition, keys: Keys):
        own_keys, seen_keys, hidden_keys, mlp_keys = split(keys, 4)
        x = constrain(x, "batch", None, None)

        def added(x: Array, name: str, sublayer: Callable, keys: Keys) -> Array:
            y, gate = self.norm(name=name)(x, condition)
            return x + gate * dropout(sublayer(y), keys, self.rate)

        own = Attention(self.heads, self.dtype, name="own")
        x = added(x, "own_norm", lambda y: own(y, y, y, visible), own_keys)
        if memory is not None:
            look = Attention(self.heads, self.dtype, name="seen")
            x = added(x, "seen_norm", lambda y: look(y, memory, memory, seen), seen_keys)
        feed_forward = FeedForward(self.mlp, self.dtype, self.rate, nn.gelu, name="feed_forward")
        return added(x, "mlp_norm", lambda y: feed_forward(y, hidden_keys), mlp_keys), None


class PreNorm(Stack):
    """Layers and a last norm."""

    norm: type[nn.Module] = LayerNorm

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        visible: Bool[Array, "#B #T T"],
        memory: Float[Array, "B S E"] | None = None,
        seen: Bool[Array, "#B #T S"] | None = None,
        condition: Float[Array, "B M F"] | None = None,
        keys: Keys = None,
    ) -> Float[Array, "B T D"]:
        """Args: `visible` and `seen` tokens may be used; `condition` of each of M equal blocks of x."""
        layers, keys = self.layers(PreNormLayer, 4, keys, norm=self.norm)
        memory = None if memory is None else memory.astype(self.dtype)
        x, _ = layers(x.astype(self.dtype), visible, memory, seen, condition, keys)
        return self.norm(name="final_norm")(x, condition)[0]
