"""pi0 whose expert is told a span beside the time: it says the mean velocity over it, so that few steps suffice.

What `mean_flow.py` and `shortcut.py` share. They differ in the spans that they learn, and in what they learn of them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pizero_jax.config import LossConfig, TwoTimesConfig
from pizero_jax.flow import solvers
from pizero_jax.flow.paths import STRAIGHT
from pizero_jax.nn.layers import Linear, sincos
from pizero_jax.policies import flow
from pizero_jax.policies.pi0 import Pi0
from pizero_jax.types import Batch, Observation, Policy, row_keys

_SMALL = 1e-3  # mean squared error of a chunk below which it no longer counts for more


class TwoTimes(Pi0):
    """Over no time at all it is pi0, and so is a fresh one over any span."""

    config: TwoTimesConfig

    def setup(self):
        super().setup()
        c, width = self.config, self.config.expert.width
        zeros = nn.initializers.zeros
        self.span_in = Linear("...D,DF->...F", (width, width), (None, "embed"), c.dtype, c.lora, kernel_init=zeros)

    def embed_time(self, t, span=0.0):
        embed = partial(sincos, width=self.config.expert.width, shortest=self.config.shortest_period)
        nothing = jnp.zeros_like(t)
        return embed(t) + self.span_in(embed(nothing + span) - embed(nothing))


def make(
    network: nn.Module, loss_config: LossConfig, name: str, spans: Callable, learnt: Callable, *, smallest: float = 0.0
) -> Policy:
    """A policy that learns the flow, in `config.flow_share` of its samples, and beside it mean velocities over spans.

    Its `velocity` is the flow's, and its `act` goes over spans of 1 / `num_steps`, each told as it was in training.

    Args:
      network: a `TwoTimes`, or what has its `config`, its `read` and its `velocities`.
      name: of the second loss.
      spans: (key, t [M]) -> t and span [M], of the samples that have one.
      learnt: (u, x_t, v_t, t, span) -> what u says and what it should, both [B, M, C, A] (`flow/few_steps.py`).
      smallest: spans that are no longer are told as none at all, over which u is the flow.
    """
    config, plain = network.config, flow.make(network, loss_config)

    def drawn_spans(key, t):
        of_flow, of_span = jax.random.split(jax.random.fold_in(key, 3))  # beside the keys of noise and time
        flows = jax.random.bernoulli(of_flow, config.flow_share, t.shape)
        later, span = spans(of_span, t)
        return jnp.where(flows, t, later), jnp.where(flows, 0, span)

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Values and weights [B, C] of "flow", pi0's own loss, and of `name`; each is a mean over its samples.

        Args:
          time: [B], given instead of drawn; then all is flow.
        """
        drawn = flow.draw(key, batch, loss_config, noise=noise, time=time)
        t, span = drawn.time, jnp.zeros_like(drawn.time)
        if time is None:
            t, span = jax.vmap(drawn_spans)(row_keys(key, len(t)), t)
        velocities = flow.velocities_of(network, params, plain.prefix(params, batch.observation))

        def u(x_t, t, span):
            return velocities(x_t, t[..., 0], drawn.steps, span=span[..., 0])

        t_, span_ = t[..., None, None], span[..., None, None]
        x_t, v_t = STRAIGHT.point(drawn.actions, drawn.noise, t_), drawn.noise - drawn.actions
        predicted, target = learnt(u, x_t, v_t, t_, span_)
        asked = drawn.steps[:, None]
        errors = drawn.errors(predicted, target)
        *_, at_time = flow.averaged(errors, asked)
        errors = tempered(errors, at_time, config.error_power)
        parts = {"flow": span == 0, name: span > 0}
        averages = {part: flow.averaged(errors, asked & of[:, :, None]) for part, of in parts.items()}
        values, weights = ({part: average[i] for part, average in averages.items()} for i in (0, 1))
        return values, weights, {"time": t, "loss_at_time": at_time}

    def act(
        params, key, observation: Observation, *,
        noise=None, num_steps: int = config.num_steps, solver: str = "euler", steer=None,
    ):  # fmt: skip
        """Normalised actions [B, C, A], from noise [B, C, A] by `num_steps` steps, each over a span of its own length.

        Args:
          solver: any other than "euler" follows the flow itself.
          steer: as of `flow.make`.
        """
        if solver != "euler":
            return plain.act(params, key, observation, noise=noise, num_steps=num_steps, solver=solver, steer=steer)
        if noise is None:
            noise = jax.random.normal(key, (observation.state.shape[0], config.chunk, config.action_dim))
        cache = plain.prefix(params, observation)
        span = 1 / num_steps if 1 / num_steps > smallest else 0.0

        def field(x_t, t):
            at = flow.of_steps(t, x_t)[:, None, :, 0]
            return network.apply({"params": params}, cache, x_t[:, None], at, span=span, method="velocities")[:, 0]

        start = noise
        if steer is not None:
            field, start = steer(field, start)
        return solvers.solve("euler", field, start, solvers.even_times(num_steps))

    return plain._replace(loss=loss, act=act)


def tempered(errors: Float[Array, "B M C"], means: Float[Array, "B M"], power: float) -> Float[Array, "B M C"]:
    """The errors, whose gradient is divided by a power of the mean error of their chunk: none outweighs the others.

    Source: MeanFlow, arXiv 2505.13447, section 4.
    """
    weight = jax.lax.stop_gradient((means + _SMALL) ** -power)[..., None]
    return jax.lax.stop_gradient(errors * (1 - weight)) + errors * weight
