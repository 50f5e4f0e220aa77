"""pi0: the state is a token before the actions, and each action is mixed with the flow time (arXiv 2410.24164)."""

import jax.numpy as jnp
from flax import linen as nn

from pizero_jax.config import LossConfig, Pi0Config
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import sincos
from pizero_jax.policies import flow
from pizero_jax.types import Policy


class Pi0(flow.FlowNetwork):
    """Suffix: [state | actions]."""

    def setup(self):
        super().setup()
        width = self.config.expert.width
        self.state_in = self.dense(self.config.state_dim, width)
        self.action_time_in = self.dense(2 * width, width)
        self.action_time_out = self.dense(width, width)

    def embed_time(self, t):
        return sincos(t, self.config.expert.width)

    def embed_suffix(self, state, x_t, t, **told):
        actions = constrain(self.action_in(x_t), "batch", None, None, None)
        time = jnp.broadcast_to(self.embed_time(t, **told).astype(actions.dtype), actions.shape)
        actions = self.action_time_out(nn.swish(self.action_time_in(jnp.concatenate([actions, time], axis=-1))))
        return self.state_in(state)[:, None], actions, None


def make(config: Pi0Config, loss: LossConfig) -> Policy:
    """pi0 as pure functions."""
    return flow.make(Pi0(config), loss)
