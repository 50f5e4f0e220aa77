"""What pi0 and its successors share: a backbone, and an action expert that turns noise into a chunk of actions.

The sequence is [pictures, prompt | lead | actions]: full attention inside a block, none to later blocks. The backbone
reads the prefix once; its keys and values, layer by layer, are all that the expert sees of it, training and acting.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from pizero_jax.config import FlowConfig, LossConfig, PolicyConfig
from pizero_jax.flow import predictions, solvers
from pizero_jax.flow.paths import PATHS
from pizero_jax.flow.times import TIMES
from pizero_jax.nn.layers import RMSNorm, dense
from pizero_jax.nn.paligemma import PaliGemma, Prefix
from pizero_jax.nn.transformer import Transformer
from pizero_jax.types import Batch, Observation, Policy, row_keys


@struct.dataclass
class Cache:
    """What the expert needs of an observation, whatever the noise and the time."""

    prefix: Prefix
    state: Float[Array, "B P"]


class FlowNetwork(nn.Module):
    """The network; `make` wraps its two passes into a policy. A variant defines its suffix and its norm."""

    config: FlowConfig

    norm = RMSNorm

    def setup(self):
        c = self.config
        self.backbone = PaliGemma(c)
        self.expert = Transformer(
            c.attention, c.expert.width, c.expert.mlp, c.dtype, c.lora, c.remat, c.unroll, self.norm
        )
        self.action_in = self.dense(c.action_dim, c.expert.width)
        # The solver's state is float32.
        self.action_out = dense(c.expert.width, c.action_dim, ("embed", None), "float32", c.lora)

    def dense(self, width: int, features: int):
        axes = (None, "embed") if width != features else ("embed", None)
        return dense(width, features, axes, self.config.dtype, self.config.lora)

    def embed_suffix(
        self, state: Float[Array, "B P"], x_t: Float[Array, "B M C A"], t: Float[Array, "B M #C"], **told: Array
    ) -> tuple[Float[Array, "B l D"], Float[Array, "B M C D"], Float[Array, "B n D"] | None]:
        """The l tokens before the chunks, those of the M noisy chunks, and what conditions the norms.

        There is one condition for each chunk (n = M), or where its steps have times of their own for each step (M C).
        `told` is what else a variant's expert is told of the M points.
        """
        raise NotImplementedError

    def read(self, observation: Observation, output: bool = False) -> Cache:
        return Cache(self.backbone.read(observation, output=output), observation.state)

    def suffix(
        self,
        cache: Cache,
        x_t: Float[Array, "B M C A"],
        t: Float[Array, "B M"] | Float[Array, "B M #C"],
        steps: Bool[Array, "B C"] | None = None,
        **told: Array,
    ) -> Float[Array, "B T D"]:
        """Output of the expert at the suffix, the M chunks one after the other behind the lead.

        The M chunks are blocks that share prefix and lead but do not see each other, so that each gives what it would
        give alone. Nothing sees the steps of the chunk for which `steps` is False.
        """
        lead, actions, condition = self.embed_suffix(cache.state, x_t, t if t.ndim == 3 else t[:, :, None], **told)
        B, M, C, D = actions.shape
        steps = jnp.ones((B, C), bool) if steps is None else steps
        visible, positions = suffix_layout(cache.prefix, steps, lead.shape[1], M)
        tokens = jnp.concatenate([lead, actions.reshape(B, M * C, D)], axis=1)
        y, _ = self.expert(tokens, positions, visible, cache.prefix.keys_values, condition=condition)
        return y

    def velocities(self, cache: Cache, x_t, t, steps=None, **told) -> Float[Array, "B M C A"]:
        """At M points of the flow for one observation, from a single pass of the expert."""
        B, M, C, A = x_t.shape
        y = self.suffix(cache, x_t, t, steps, **told)[:, -M * C :]
        return self.action_out(y.astype(jnp.float32)).reshape(B, M, C, A)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


def suffix_layout(
    prefix: Prefix, steps: Bool[Array, "B C"], lead: int, M: int
) -> tuple[Bool[Array, "B T U"], Int[Array, "B T"]]:
    """What the tokens [lead | actions_1 | ... | actions_M] may see of [prefix, themselves], and their positions."""
    (B, S), C = prefix.mask.shape, steps.shape[1]
    block = jnp.concatenate([jnp.zeros(lead, int), jnp.repeat(jnp.arange(M) + 1, C)])
    real = jnp.concatenate([jnp.ones((B, lead), bool), jnp.tile(steps, (1, M))], axis=1)
    among_suffix = ((block[None, :] == block[:, None]) | (block[None, :] == 0)) & real[:, None]
    of_prefix = jnp.broadcast_to(prefix.mask[:, None], (B, block.size, S))
    offset = jnp.concatenate([jnp.arange(lead), jnp.tile(jnp.arange(C) + lead, M)])  # every chunk follows the lead
    return jnp.concatenate([of_prefix, among_suffix], axis=2), prefix.end[:, None] + offset


def example(config: PolicyConfig) -> Observation:
    """An observation of one row of zeros, for shapes."""
    B, h = 1, config.image_size
    return Observation(
        images={name: jnp.zeros((B, h, h, 3)) for name in config.cameras},
        image_masks={name: jnp.ones(B, bool) for name in config.cameras},
        state=jnp.zeros((B, config.state_dim)),
        prompt=jnp.zeros((B, config.prompt_length), int),
        prompt_mask=jnp.ones((B, config.prompt_length), bool),
    )


def make(network: nn.Module, loss_config: LossConfig, *, clip: float | None = None) -> Policy:
    """A network as pure functions.

    Args:
      network: a `FlowNetwork`, or what has its `config`, its `read` of an observation and its `velocities` of that.
      clip: bound of the data that a prediction is taken to mean, when acting (`predictions.denoiser`).
    """
    config = network.config
    C, A = config.chunk, config.action_dim
    path, kind = PATHS[loss_config.path], loss_config.prediction
    steps = {"ddim": solvers.ddim(0.0), "ddpm": solvers.ddpm}

    def init(key):
        return network.init(key, example(config), jnp.zeros((1, 1, C, A)), jnp.zeros((1, 1)))["params"]

    def prefix(params, observation: Observation):
        return network.apply({"params": params}, observation, method="read")

    def predict(params, cache, x_t, t):
        """What the expert says [B, C, A] of x_t [B, C, A] at times t [B, #C, 1], of its kind and on its path."""
        return network.apply({"params": params}, cache, x_t[:, None], t[:, None, :, 0], method="velocities")[:, 0]

    def denoise(params, cache):
        return predictions.denoiser(lambda x_t, t: predict(params, cache, x_t, of_steps(t, x_t)), kind, path, clip)

    def velocity(params, cache, x_t, t):
        """v_t [B, C, A] of the straight path at x_t [B, C, A], whatever the expert's is.

        The time t is a scalar, one for each row [B], or for each step of the chunk [B, C].
        """
        t = of_steps(t, x_t)
        if loss_config.path == "straight" and kind == "u" and clip is None:
            return predict(params, cache, x_t, t)
        return solvers.straightened(denoise(params, cache), path)(x_t, t)

    def attention(params, cache, x_t, t):
        """Shares [L, B, N, C, S] in which the chunk's tokens attend to the prefix, the lead and themselves."""
        t = of_steps(t, x_t)[:, None, :, 0]
        _, sown = network.apply(
            {"params": params}, cache, x_t[:, None], t, method="velocities", mutable=["intermediates"]
        )
        (weights,) = sown["intermediates"]["expert"]["layers"]["attention"]["weights"]
        return weights[..., -C:, :]

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Squared error of the prediction for each step of the chunk, over what is real: see `velocity_losses`."""
        velocities = velocities_of(network, params, prefix(params, batch.observation))
        return velocity_losses(velocities, key, batch, loss_config, noise=noise, time=time)

    def act(
        params, key, observation: Observation, *,
        noise=None, num_steps: int = config.num_steps, solver: str = config.solver, steer=None,
    ):  # fmt: skip
        """Normalised actions [B, C, A], carried from noise [B, C, A] by `num_steps` steps of `solver`.

        Args:
          steer: (velocity field, noise) -> both as they should be followed (`flow/real_time.py`). DDIM is then Euler's
            method, which it is without fresh noise, and so is DDPM.
        """
        if noise is None:
            noise = jax.random.normal(key, (observation.state.shape[0], C, A))
        cache, times = prefix(params, observation), solvers.even_times(num_steps)
        if solver in steps and steer is None:
            fresh = jax.random.fold_in(key, 1)
            return solvers.sample_steps(steps[solver], denoise(params, cache), path, noise, times, fresh)
        method = "euler" if solver in steps else solver
        field, start = partial(velocity, params, cache), noise / path.size(times[0])
        if steer is not None:
            field, start = steer(field, start)
        return solvers.solve(method, field, start, path.tau(times))

    return Policy(init, loss, act, prefix, velocity, attention=attention)


def of_steps(t: Float[Array, ""] | Float[Array, "B"] | Float[Array, "B C"], x_t: Float[Array, "B C A"]) -> Array:
    """Times [B, #C, 1] of one for all, for each row or for each step; such ones stay as they are."""
    if jnp.ndim(t) > 1:
        return t if t.ndim == 3 else t[:, :, None]
    return jnp.broadcast_to(t, x_t.shape[:1])[:, None, None]


def velocities_of(network: nn.Module, params, cache: Any) -> Callable:
    """The function (x_t [B, M, C, A], t [B, M] or [B, M, #C], steps [B, C]) -> v_t [B, M, C, A] for what was read.

    What a variant's expert is told beside the time goes by its name.
    """

    def velocities(x_t, t, steps, **told):
        return network.apply({"params": params}, cache, x_t, t, steps, **told, method="velocities")

    return velocities


class Drawn(NamedTuple):
    """What the loss of a flow draws for each row, and what of it is real."""

    actions: Float[Array, "B 1 C A"]  # zero where they are padded, which may hold anything
    noise: Float[Array, "B M C A"]
    time: Float[Array, "B M"]
    steps: Bool[Array, "B C"]
    dims: Bool[Array, "B 1 1 A"]

    def errors(self, predicted: Float[Array, "B M C A"], target: Float[Array, "B M C A"]) -> Float[Array, "B M C"]:
        """Squared ones for each step, the mean over the real dimensions."""
        return jnp.sum(jnp.square(predicted - target) * self.dims, axis=-1) / jnp.sum(self.dims, axis=-1)


def draw(key, batch: Batch, loss_config: LossConfig, *, noise=None, time=None) -> Drawn:
    """Noise and times as `config.loss` has them, or those that are given: [B, C, A] and [B], one for each row."""
    (B, C, A), M = batch.actions.shape, loss_config.samples_per_observation
    noise_keys, time_keys = jax.vmap(jax.random.split, out_axes=1)(row_keys(key, B))
    noise = by_row(jax.random.normal, noise_keys, (M, C, A)) if noise is None else noise[:, None]
    time = by_row(TIMES[loss_config.time].draw, time_keys, noise.shape[1:2]) if time is None else time[:, None]
    steps, dims = batch.action_mask, batch.action_dim_mask[:, None]
    if loss_config.openpi_padding:
        steps, dims = jnp.ones_like(steps), jnp.ones_like(dims)
    actions = jnp.where(dims & steps[:, :, None], batch.actions, 0)
    return Drawn(actions[:, None], noise, time, steps, dims[:, None])


def velocity_losses(velocities: Callable, key, batch: Batch, loss_config: LossConfig, *, noise=None, time=None):
    """Squared error of the prediction for each step of the chunk, over what is real.

    Args:
      velocities: (x_t, t, steps) -> v_t, as `velocities_of` gives it.
      key: one, or one for each row.
      noise: [B, C, A], and time [B]: given instead of drawn (then one sample per observation).

    With `max_delay` the first d steps of a sample, d uniform in 0 .. `max_delay`, are what the robot is executing
    already: they are shown at time 0, as data, and nothing is asked of them (arXiv 2512.05964, section 3).

    Returns:
      values [B, C], the mean over the real dimensions and the samples, zero for padded steps; weights [B, C], one for
      real steps, less the share of the samples in which they are shown; metrics: `time` [B, M] and `loss_at_time`
      [B, M] for the loss by flow time.
    """
    drawn = draw(key, batch, loss_config, noise=noise, time=time)
    path, t, asked = PATHS[loss_config.path], drawn.time[:, :, None], drawn.steps[:, None]  # [B, M, #C] and [B, #M, C]
    if loss_config.max_delay:
        (B, C), shape = drawn.steps.shape, t.shape[1:]
        shown = jnp.arange(C) < by_row(partial(_delays, loss_config.max_delay), row_keys(key, B), shape)
        t, asked = jnp.where(shown, 0, t), asked & ~shown
    # Of what is shown, too, at the time that was drawn: at 0 some paths have no velocity, and inf * 0 is no number.
    target = predictions.target(loss_config.prediction, path, drawn.actions, drawn.noise, drawn.time[..., None, None])
    predicted = velocities(path.point(drawn.actions, drawn.noise, t[..., None]), t, drawn.steps)
    values, weights, at_time = averaged(drawn.errors(predicted, target), asked)
    return values, weights, {"time": drawn.time, "loss_at_time": at_time}


def averaged(
    errors: Float[Array, "B M C"], asked: Bool[Array, "B #M C"]
) -> tuple[Float[Array, "B C"], Float[Array, "B C"], Float[Array, "B M"]]:
    """Values and weights of a loss, means over the samples of what is asked for; and the mean of each sample."""
    errors = errors * asked
    weights = jnp.mean(jnp.broadcast_to(asked, errors.shape), axis=1, dtype=jnp.float32)
    return jnp.mean(errors, axis=1), weights, jnp.sum(errors, axis=-1) / jnp.maximum(jnp.sum(asked, axis=-1), 1)


def _delays(limit: int, key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "..."]:
    return jax.random.randint(jax.random.fold_in(key, 2), shape, 0, limit + 1)  # beside the keys of noise and time


def by_row(draw: Callable, keys: Key[Array, "B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """What `draw(key, shape)` gives for the key of each row."""
    return jax.vmap(lambda key: draw(key, shape))(keys)
