"""pi0-small, the baseline of pi0's paper: no language model, trained from scratch (arXiv 2410.24164, appendix C).

An encoder reads [pictures | words | state]; the steps of the chunk look at what it gives, in a DiT whose norms read the
flow time. As published, each camera has a network of its own. Published with DistilBERT for the words and a hybrid of
ResNet and ViT that knows ImageNet: here words are those of `config.data.tokenizer`, read by an encoder that starts
fresh, and pictures go through convolutions and a ViT, fresh as well. Sizes of layers are not published.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float

from pizero_jax.config import LossConfig, Pi0SmallConfig, TransformerConfig
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import AdaptiveLayerNorm, Positions, dense, sincos, weight
from pizero_jax.nn.lora import NONE
from pizero_jax.nn.paligemma import to_unit_range
from pizero_jax.nn.pre_norm import PreNorm
from pizero_jax.nn.siglip import Siglip
from pizero_jax.policies import flow
from pizero_jax.types import Observation, Policy


@struct.dataclass
class Seen:
    """What was read, and which of its tokens are real."""

    tokens: Float[Array, "B S D"]
    mask: Bool[Array, "B S"]


class Words(nn.Module):
    """Tokens of the instruction that have seen each other, [B, T, `width`]."""

    config: Pi0SmallConfig
    width: int

    @nn.compact
    def __call__(self, observation: Observation) -> Float[Array, "B T width"]:
        c, D = self.config.language, self.config.language.width
        init, axes = nn.initializers.normal(1.0), ("vocabulary", "embed")
        x = weight(self, "embedding", (c.vocabulary, D), axes, init)[observation.prompt]
        x = x + Positions(self.config.prompt_length, D, name="places")()
        x = _transformer(self.config, c, name="layers")(x, observation.prompt_mask[:, None])
        return dense(D, self.width, ("embed", None), self.config.dtype, NONE, name="out")(x)


class Pi0Small(nn.Module):
    """What `flow.make` needs: `read` and `velocities`. A fresh expert does nothing, as all its gates are zero."""

    config: Pi0SmallConfig

    def setup(self):
        c, D, E = self.config, self.config.expert.width, self.config.observation.width
        self.cameras = {name: Siglip(c.vision, E, c.dtype, unroll=c.unroll) for name in c.cameras}
        self.words = Words(c, E)
        self.state_in = dense(c.state_dim, E, (None, "embed"), c.dtype, NONE)
        self.observation = _transformer(c, c.observation)
        self.action_in = dense(c.action_dim, D, (None, "embed"), c.dtype, NONE)
        self.steps = Positions(c.chunk, D)
        self.time_in = dense(D, D, ("embed", None), c.dtype, NONE)
        self.time_out = dense(D, D, ("embed", None), c.dtype, NONE)
        self.expert = _transformer(c, c.expert, norm=AdaptiveLayerNorm)
        zeros = nn.initializers.zeros
        self.action_out = dense(D, c.action_dim, ("embed", None), "float32", NONE, kernel_init=zeros)

    def read(self, observation: Observation) -> Seen:
        """[pictures | words | state]; a camera that is absent costs nothing."""
        there = [name for name in self.config.cameras if name in observation.images]
        pictures = [self.cameras[name](to_unit_range(observation.images[name])) for name in there]
        shown = [observation.image_masks[name][:, None] for name in there]
        state = self.state_in(observation.state)[:, None]
        x = jnp.concatenate([*pictures, self.words(observation), state], axis=1)
        mask = jnp.concatenate(
            [
                *(jnp.broadcast_to(m, p.shape[:2]) for m, p in zip(shown, pictures, strict=True)),
                observation.prompt_mask,
                jnp.ones((len(state), 1), bool),
            ],
            axis=1,
        )
        return Seen(self.observation(x, mask[:, None]), mask)

    def velocities(
        self,
        cache: Seen,
        x_t: Float[Array, "B M C A"],
        t: Float[Array, "B M"] | Float[Array, "B M #C"],
        steps: Bool[Array, "B C"] | None = None,
    ) -> Float[Array, "B M C A"]:
        """What is predicted at M points for one observation, which do not see each other.

        Nothing sees the steps of the chunk for which `steps` is False.
        """
        B, M, C, A = x_t.shape
        D = self.config.expert.width
        steps = jnp.ones((B, C), bool) if steps is None else steps
        chunk = jnp.repeat(jnp.arange(M), C)
        visible = (chunk[:, None] == chunk) & jnp.tile(steps, (1, M))[:, None]
        time = sincos(t, D).reshape(B, -1, D)  # one for each chunk or for each step
        condition = nn.swish(self.time_out(nn.swish(self.time_in(time))))
        tokens = constrain(self.action_in(x_t) + self.steps(), "batch", None, None, None).reshape(B, M * C, D)
        y = self.expert(tokens, visible, cache.tokens, cache.mask[:, None], condition)
        return self.action_out(y).reshape(B, M, C, A)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


def make(config: Pi0SmallConfig, loss: LossConfig) -> Policy:
    """pi0-small as pure functions."""
    return flow.make(Pi0Small(config), loss)._replace(attention=None)


def _transformer(policy: Pi0SmallConfig, c: TransformerConfig, **more) -> PreNorm:
    return PreNorm(c.heads, c.mlp, policy.dtype, 0.0, c.depth, policy.unroll, **more)
