"""MeanFlow: the expert says the mean velocity over any span of time, and a single step may act (arXiv 2505.13447)."""

import jax.numpy as jnp
from flax import linen as nn

from pizero_jax.config import LossConfig, MeanFlowConfig
from pizero_jax.flow.few_steps import mean_velocity
from pizero_jax.flow.times import TIMES
from pizero_jax.policies import two_times
from pizero_jax.types import Policy


def make(config: MeanFlowConfig, loss: LossConfig) -> Policy:
    """MeanFlow with pi0's expert as pure functions."""
    return of_network(two_times.TwoTimes(config), loss)


def of_network(network: nn.Module, loss: LossConfig) -> Policy:
    """What a network learns beside the "flow" is the "mean", between two times that are each drawn as the flow's."""

    def spans(key, t):
        other = TIMES[loss.time].draw(key, t.shape)
        return jnp.maximum(t, other), jnp.abs(t - other)

    return two_times.make(network, loss, "mean", spans, mean_velocity)
