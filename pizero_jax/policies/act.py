"""ACT: a chunk by regression, given a latent style that only training sees (arXiv 2304.13705).

The posterior encodes the actions into the mean and the variance of z; the decoder says them again, from z, pictures and
state. Acting sets z to the mean of its prior, zero. As published, but for the ResNet's norms and its weights, which are
of groups and start fresh, and for the decoder's one layer: the released code has seven, and uses the first.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from pizero_jax.config import ActConfig, LossConfig
from pizero_jax.nn.encoder_decoder import Decoder, Encoder, Keys, places_in_line, places_in_picture
from pizero_jax.nn.layers import Linear, Positions, dense, weight
from pizero_jax.nn.lora import NONE
from pizero_jax.nn.paligemma import to_unit_range
from pizero_jax.nn.resnet import ResNet
from pizero_jax.policies.flow import by_row, example
from pizero_jax.policies.regression import absolute_errors
from pizero_jax.types import Batch, Observation, Policy, row_keys


class Posterior(nn.Module):
    """Mean and log variance of z, each [B, Z], from [start | state | actions]."""

    config: ActConfig

    @nn.compact
    def __call__(
        self, state: Float[Array, "B P"], actions: Float[Array, "B C A"], steps: Bool[Array, "B C"], keys: Keys
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        c, (B, C, _) = self.config, actions.shape
        start = weight(self, "start", (c.width,), ("embed",), nn.initializers.normal(1.0)).astype(c.dtype)
        state, actions = _into(c, c.state_dim, "state_in")(state), _into(c, c.action_dim, "actions_in")(actions)
        x = jnp.concatenate([jnp.broadcast_to(start, (B, 1, c.width)), state[:, None], actions], axis=1)
        seen = jnp.concatenate([jnp.ones((B, 2), bool), steps], axis=1)
        encoder = Encoder(c.heads, c.mlp, c.dtype, c.dropout, c.posterior_depth, name="encoder")
        first = encoder(x, places_in_line(C + 2, c.width)[None], seen, keys)[:, 0]
        # At first the prior, so that its divergence does not drown the actions; in float32, as what it is made of.
        zeros = nn.initializers.zeros
        out = dense(c.width, 2 * c.latent, ("embed", None), "float32", NONE, kernel_init=zeros, name="out")(first)
        return tuple(jnp.split(out, 2, axis=-1))


class Act(nn.Module):
    """Encoder over [z | state | features of the cameras], and a decoder whose queries are the steps of the chunk."""

    config: ActConfig

    def setup(self):
        c = self.config
        sizes = c.heads, c.mlp, c.dtype, c.dropout
        self.posterior = Posterior(c)
        self.resnet = ResNet(c.resnet, c.dtype)  # one for all cameras
        self.latent_in, self.state_in = _into(c, c.latent), _into(c, c.state_dim)
        self.features_in = _into(c, c.resnet.widths[-1])
        self.lead = Positions(2, c.width)
        self.encoder, self.decoder = Encoder(*sizes, c.encoder_depth), Decoder(*sizes, c.decoder_depth)
        self.queries = Positions(c.chunk, c.width)
        self.action_out = dense(c.width, c.action_dim, ("embed", None), "float32", NONE)

    def tokens(
        self, observation: Observation, z: Float[Array, "B Z"]
    ) -> tuple[Float[Array, "B S D"], Float[Array, "1 S D"], Bool[Array, "B S"]]:
        """[z | state | features], their positions, and which are real; a camera that is absent costs nothing."""
        lead = jnp.stack([self.latent_in(z), self.state_in(observation.state)], axis=1)
        x, positions, real = [lead], [self.lead()], [jnp.ones(lead.shape[:2], bool)]
        for name in self.config.cameras:
            if name in observation.images:
                features = self.features_in(self.resnet(to_unit_range(observation.images[name])))
                B, h, w, D = features.shape
                x.append(features.reshape(B, h * w, D))
                positions.append(places_in_picture(h, w, D))
                real.append(jnp.broadcast_to(observation.image_masks[name][:, None], (B, h * w)))
        return jnp.concatenate(x, axis=1), jnp.concatenate(positions)[None], jnp.concatenate(real, axis=1)

    def chunk(self, observation: Observation, z: Float[Array, "B Z"], keys: Keys = None) -> Float[Array, "B C A"]:
        x, positions, real = self.tokens(observation, z)
        memory = self.encoder(x, positions, real, _folded(keys, 0))
        return self.action_out(self.decoder(self.queries(), memory, positions, real, _folded(keys, 1)))

    def __call__(self, batch: Batch, eps: Float[Array, "B Z"], keys: Keys = None):
        """The chunk as training says it, with z = mean + deviation x `eps`; mean and log variance of z."""
        steps, dims = batch.action_mask, batch.action_dim_mask[:, None]
        actions = jnp.where(dims & steps[:, :, None], batch.actions, 0)
        mean, log_variance = self.posterior(batch.observation.state, actions, steps, _folded(keys, 2))
        z = mean + jnp.exp(log_variance / 2) * eps
        return self.chunk(batch.observation, z, keys), mean, log_variance


def make(config: ActConfig, loss_config: LossConfig) -> Policy:
    """ACT as pure functions."""
    network = Act(config)
    C, A, Z = config.chunk, config.action_dim, config.latent

    def init(key):
        batch = Batch(example(config), jnp.zeros((1, C, A)), jnp.ones((1, C), bool), jnp.ones((1, A), bool))
        return network.init(key, batch, jnp.zeros((1, Z)))["params"]

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Values and weights of "actions", absolute errors [B, C], and "kl", `kl_weight` x the divergence of z [B, 1].

        Args:
          noise: [B, Z], what z is drawn with, given instead of drawn; time is not used.
        """
        keys = row_keys(key, len(batch.actions))
        eps = by_row(jax.random.normal, _folded(keys, 3), (Z,)) if noise is None else noise
        predicted, mean, log_variance = network.apply({"params": params}, batch, eps, keys)
        values, weights = absolute_errors(predicted, batch)
        rows = jnp.any(batch.action_mask, axis=1, keepdims=True).astype(jnp.float32)
        kl = config.kl_weight * divergence(mean, log_variance)[:, None] * rows
        return {"actions": values, "kl": kl}, {"actions": weights, "kl": rows}, {}

    def act(params, key, observation: Observation, *, noise=None):
        """Normalised actions [B, C, A], with z = 0; nothing is drawn."""
        z = jnp.zeros((observation.state.shape[0], Z))
        return network.apply({"params": params}, observation, z, method="chunk")

    return Policy(init, loss, act)


def divergence(mean: Float[Array, "B Z"], log_variance: Float[Array, "B Z"]) -> Float[Array, "B"]:
    """Of N(mean, variance) from the standard normal, in nats, summed over dimensions (arXiv 1312.6114, appendix B)."""
    return jnp.sum(jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance, axis=-1) / 2


def _into(config: ActConfig, width: int, name: str | None = None) -> Linear:
    return dense(width, config.width, (None, "embed"), config.dtype, NONE, name=name)


def _folded(keys: Keys, number: int) -> Keys:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
