"""Regression of a whole chunk at once: pi0's backbone and expert without flow (OpenVLA-OFT, arXiv 2502.19645).

OpenVLA-OFT decodes in parallel what its empty action tokens find, and learns it by their absolute error. Here the empty
tokens are the expert's, told apart by learned positions.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pizero_jax.config import LossConfig, RegressionConfig
from pizero_jax.nn.layers import Positions
from pizero_jax.policies import flow
from pizero_jax.types import Batch, Observation, Policy


class Regression(flow.FlowNetwork):
    """Suffix: [state | empty actions]; they are the same whatever the noise."""

    config: RegressionConfig

    def setup(self):
        super().setup()
        self.state_in = self.dense(self.config.state_dim, self.config.expert.width)
        self.actions = Positions(self.config.chunk, self.config.expert.width)

    def embed_suffix(self, state, x_t, t):
        empty = self.actions().astype(self.config.dtype)
        return self.state_in(state)[:, None], jnp.broadcast_to(empty, (*x_t.shape[:3], empty.shape[-1])), None

    def __call__(self, observation: Observation) -> Float[Array, "B C A"]:
        B = observation.state.shape[0]
        nothing = jnp.zeros((B, 1, self.config.chunk, self.config.action_dim))
        return self.velocities(self.read(observation), nothing, nothing[:, :, 0, 0])[:, 0]


def make(config: RegressionConfig, loss_config: LossConfig) -> Policy:
    """A regression as pure functions."""
    network = Regression(config)

    def init(key):
        return network.init(key, flow.example(config))["params"]

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Absolute error for each step of the chunk (`absolute_errors`); key, noise and time are not used."""
        return *absolute_errors(network.apply({"params": params}, batch.observation), batch), {}

    def act(params, key, observation: Observation, *, noise=None):
        """Normalised actions [B, C, A]; nothing is drawn."""
        return network.apply({"params": params}, observation)

    return Policy(init, loss, act)


def absolute_errors(predicted: Float[Array, "B C A"], batch: Batch) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """The mean over the real dimensions, zero for padded steps; and weights, one for each real step."""
    steps, dims = batch.action_mask, batch.action_dim_mask[:, None]
    actions = jnp.where(dims & steps[:, :, None], batch.actions, 0)  # what is padded may hold anything
    error = jnp.sum(jnp.abs(predicted - actions) * dims, axis=-1) / jnp.sum(dims, axis=-1)
    return error * steps, steps.astype(jnp.float32)
