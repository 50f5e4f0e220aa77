"""pi0.5: the state is words of the prompt, and the flow time steers the expert's norms (arXiv 2504.16054)."""

import jax.numpy as jnp
from flax import linen as nn

from pizero_jax.config import InsulatedConfig, LossConfig, Pi05Config
from pizero_jax.mesh import constrain
from pizero_jax.nn.layers import AdaptiveRMSNorm, sincos
from pizero_jax.policies import flow
from pizero_jax.types import Policy


class Pi05(flow.FlowNetwork):
    """Suffix: [actions]; a fresh expert does nothing, as all its gates are zero."""

    config: Pi05Config | InsulatedConfig

    norm = AdaptiveRMSNorm

    def setup(self):
        super().setup()
        width = self.config.expert.width
        self.time_in = self.dense(width, width)
        self.time_out = self.dense(width, width)

    def embed_suffix(self, state, x_t, t):
        actions = constrain(self.action_in(x_t), "batch", None, None, None)
        time = sincos(t, self.config.expert.width).astype(actions.dtype)
        condition = nn.swish(self.time_out(nn.swish(self.time_in(time))))
        nothing = jnp.zeros((x_t.shape[0], 0, actions.shape[-1]), actions.dtype)
        return nothing, actions, condition.reshape(len(x_t), -1, condition.shape[-1])


def make(config: Pi05Config, loss: LossConfig) -> Policy:
    """pi0.5's flow as pure functions."""
    return flow.make(Pi05(config), loss)
