"""Diffusion Policy's other form: the steps of the chunk are tokens that see the earlier ones (arXiv 2303.04137, IV-A).

They look into a memory of two tokens, the flow time and what was seen, which is the same as in the form with
convolutions. As released, but that dropout is of sublayers and hidden units, not of attention's shares.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pizero_jax.config import DiffusionTransformerConfig, LossConfig
from pizero_jax.nn.layers import Positions, dense, sincos
from pizero_jax.nn.lora import NONE
from pizero_jax.nn.pre_norm import PreNorm
from pizero_jax.policies import flow
from pizero_jax.policies.diffusion_policy import KeypointPolicy
from pizero_jax.types import Batch, Policy, row_keys


class DiffusionTransformer(KeypointPolicy):
    """The form with a transformer."""

    config: DiffusionTransformerConfig

    def setup(self):
        super().setup()
        c = self.config
        w, D, E = c.transformer, c.transformer.width, c.state_dim + 2 * c.keypoints * len(c.cameras)
        self.action_in = dense(c.action_dim, D, (None, "embed"), c.dtype, NONE)
        self.seen_in = dense(E, D, (None, "embed"), c.dtype, NONE)
        self.steps, self.places = Positions(c.chunk, D), Positions(2, D)
        self.memory_in = dense(D, 4 * D, ("embed", "mlp"), c.dtype, NONE)
        self.memory_out = dense(4 * D, D, ("mlp", "embed"), c.dtype, NONE)
        self.transformer = PreNorm(w.heads, w.mlp, c.dtype, c.dropout, w.depth, c.unroll)
        self.action_out = dense(D, c.action_dim, ("embed", None), "float32", NONE)

    def memory(self, t, seen) -> Array:
        """[time | what was seen], [B, 2, D]."""
        time = sincos(t, self.config.transformer.width)
        tokens = jnp.stack([time, self.seen_in(seen).astype(time.dtype)], axis=1) + self.places()
        return self.memory_out(jax.nn.mish(self.memory_in(tokens)))

    def chunks(self, x_t, t, seen, steps, keys):
        C = x_t.shape[1]
        visible = jnp.tril(jnp.ones((C, C), bool)) & steps[:, None]
        tokens = self.action_in(x_t) + self.steps()
        return self.action_out(self.transformer(tokens, visible, self.memory(t, seen), keys=keys))


def make(config: DiffusionTransformerConfig, loss_config: LossConfig) -> Policy:
    """The transformer of Diffusion Policy as pure functions."""
    network = DiffusionTransformer(config)

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """As that of `flow.make`, with dropout."""
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 3))(row_keys(key, len(batch.actions)))
        cache = network.apply({"params": params}, batch.observation, method="read")

        def velocities(x_t, t, steps):
            return network.apply({"params": params}, cache, x_t, t, steps, keys, method="velocities")

        return flow.velocity_losses(velocities, key, batch, loss_config, noise=noise, time=time)

    return flow.make(network, loss_config, clip=config.clip or None)._replace(attention=None, loss=loss)
