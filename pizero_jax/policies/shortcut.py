"""Shortcut models: a step of any size 1 / 2^k is what two of half its size are (arXiv 2410.12557)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from pizero_jax.config import LossConfig, ShortcutConfig
from pizero_jax.flow.few_steps import two_halves
from pizero_jax.policies import two_times
from pizero_jax.types import Policy


def make(config: ShortcutConfig, loss: LossConfig) -> Policy:
    """A shortcut model with pi0's expert as pure functions."""
    return of_network(two_times.TwoTimes(config), loss)


def of_network(network: nn.Module, loss: LossConfig) -> Policy:
    """What a network learns beside the "flow" are the "halves"; the smallest step is the flow, told as no span at all.

    Source: arXiv 2410.12557, section 3.
    """
    halvings = network.config.halvings
    smallest = 0.5**halvings

    def learnt(u, x_t, v_t, t, span):
        halves = two_halves(u, x_t, t, span, smallest)
        return u(x_t, t, span), jnp.where(span > 0, halves, v_t)

    return two_times.make(network, loss, "halves", partial(spans, halvings=halvings), learnt, smallest=smallest)


def spans(key: Key[Array, ""], t: Float[Array, "M"], halvings: int) -> tuple[Float[Array, "M"], Float[Array, "M"]]:
    """Times and spans: 1, 1/2, .. down to twice the smallest step, each from one of its own multiples."""
    of_size, of_time = jax.random.split(key)
    span = 0.5 ** jax.random.randint(of_size, t.shape, 0, halvings)
    return span * (1 + jnp.floor(jax.random.uniform(of_time, t.shape) / span)), span
