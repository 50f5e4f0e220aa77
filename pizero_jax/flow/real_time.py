"""Real-time chunking: a chunk that goes on from the one whose beginning will have been executed when it is there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from pizero_jax.flow.solvers import Field


@struct.dataclass
class Plan:
    """What is left of the chunk before, when a new one is asked for; normalised for the new observation.

    Of the `left` actions, the first one is due now, and the first `delay` are executed before the new chunk is there,
    which has to begin with them. What lies behind them in `actions` may be anything; without a plan both are 0.
    """

    actions: Float[Array, "B C A"]
    left: Int[Array, "B"]
    delay: Int[Array, "B"]

    @property
    def executed(self) -> Bool[Array, "B C"]:
        return jnp.arange(self.actions.shape[1]) < self.delay[:, None]


def steering(plan: Plan, trained: bool, limit: float) -> Callable[[Field, Array], tuple[Field, Array]]:
    """The argument `steer` of a flow policy's `act`.

    Args:
      trained: whether the policy was trained to see what will be executed (`config.loss.max_delay`).
      limit: of the guidance of a policy that was not.
    """

    def steer(velocity: Field, noise: Float[Array, "B C A"]) -> tuple[Field, Float[Array, "B C A"]]:
        if trained:
            return held(velocity, plan.actions, plan.executed), begun(noise, plan.actions, plan.executed)
        return guided(velocity, plan.actions, overlap_weights(plan), limit), noise

    return steer


def overlap_weights(plan: Plan) -> Float[Array, "B C"]:
    """How much each of the new actions should be the planned one: 1 while it is executed, then falling to 0.

    Source: real-time chunking, arXiv 2506.07339, equation 5.
    """
    i, left, delay = jnp.arange(plan.actions.shape[1]), plan.left[:, None], plan.delay[:, None]
    c = jnp.clip((left - i) / (left - delay + 1), 0, 1)
    return jnp.where(plan.executed, 1, c * jnp.expm1(c) / jnp.expm1(1.0))


def guided(velocity: Field, previous: Float[Array, "B C A"], weights: Float[Array, "B C"], limit: float) -> Field:
    """The velocity, led to where the chunk at t = 0 is `previous`, as far as `weights` ask for it.

    Along the gradient of the weighted squared distance between `previous` and the data that x_t seems to come from;
    where the weights are zero, or all that is free is independent of the rest, that changes nothing.

    Args:
      limit: of the guidance's strength, which has no bound at t = 1 and t = 0; the paper's is the number of steps.

    Source: real-time chunking, arXiv 2506.07339, equations 2 to 4, in whose time noise is at 0.
    """

    def field(x_t: Float[Array, "B C A"], t: Float[Array, ""]) -> Float[Array, "B C A"]:
        def data(x_t):
            v_t = velocity(x_t, t)
            return x_t - t * v_t, v_t

        x_0, pull, v_t = jax.vjp(data, x_t, has_aux=True)
        (towards,) = pull(weights[..., None] * (previous - x_0))
        strength = (jnp.square(t) + jnp.square(1 - t)) / jnp.maximum(t * (1 - t), jnp.finfo(t.dtype).tiny)
        return v_t - jnp.minimum(strength, limit) * towards

    return field


def held(velocity: Field, previous: Float[Array, "B C A"], executed: Bool[Array, "B C"]) -> Field:
    """The velocity of a policy that was trained with `config.loss.max_delay`, which is shown what will be executed.

    These steps are at time 0, as data; the others flow beside them. The solver starts from `begun`.

    Source: training-time real-time chunking, arXiv 2512.05964, section 3.
    """
    fixed = executed[..., None]

    def field(x_t: Float[Array, "B C A"], t: Float[Array, ""]) -> Float[Array, "B C A"]:
        v_t = velocity(jnp.where(fixed, previous, x_t), jnp.where(executed, 0, t))
        return jnp.where(fixed, 0, v_t)

    return field


def begun(
    noise: Float[Array, "B C A"], previous: Float[Array, "B C A"], executed: Bool[Array, "B C"]
) -> Float[Array, "B C A"]:
    """Noise where a chunk is free, and what will be executed where it is not."""
    return jnp.where(executed[..., None], previous, noise)
