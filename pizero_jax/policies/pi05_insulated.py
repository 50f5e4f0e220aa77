"""pi0.5 with knowledge insulation: the backbone learns to write action tokens, the expert to flow (arXiv 2505.23705).

The expert reads the backbone's keys and values, but its loss does not reach them: the backbone keeps what it knows.
Action tokens follow the prompt in a pass of their own, so that they and the expert's actions never see each other.
"""

import jax

from pizero_jax.config import InsulatedConfig, LossConfig
from pizero_jax.policies import flow
from pizero_jax.policies.pi0_fast import states_before, token_weights
from pizero_jax.policies.pi05 import Pi05
from pizero_jax.types import Batch, Policy


class Insulated(Pi05):
    """pi0.5 whose backbone also writes."""

    config: InsulatedConfig

    def token_losses(self, cache: flow.Cache, ids):
        return self.backbone.token_losses(states_before(self.backbone, cache.prefix, ids), ids)


def make(config: InsulatedConfig, loss_config: LossConfig) -> Policy:
    """As pi0.5, with a joint loss over "tokens" and "flow"."""
    network = Insulated(config)

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Values and weights of "tokens", cross entropy [B, T], and "flow", `config.loss.flow_weight` x [B, C]."""
        cache = network.apply({"params": params}, batch.observation, True, method="read")
        tokens = network.apply({"params": params}, cache, batch.action_tokens, method="token_losses")
        insulated = flow.velocities_of(network, params, jax.lax.stop_gradient(cache))
        values, weights, metrics = flow.velocity_losses(insulated, key, batch, loss_config, noise=noise, time=time)
        real = token_weights(batch.action_token_mask, loss_config.openpi_padding)
        return (
            {"tokens": tokens * real, "flow": loss_config.flow_weight * values},
            {"tokens": real, "flow": weights},
            metrics,
        )

    return flow.make(network, loss_config)._replace(loss=loss)
