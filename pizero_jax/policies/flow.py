"""What pi0 and its successors share: a backbone, and an action expert that turns noise into a chunk of actions.

The sequence is [pictures, prompt | lead | actions]: full attention inside a block, none to later blocks. The backbone
reads the prefix once; its keys and values, layer by layer, are all that the expert sees of it, training and acting.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from pizero_jax.config import BackboneConfig, FlowConfig, LossConfig
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
        self, state: Float[Array, "B P"], x_t: Float[Array, "B M C A"], t: Float[Array, "B M"]
    ) -> tuple[Float[Array, "B l D"], Float[Array, "B M C D"], Float[Array, "B M D"] | None]:
        """The l tokens before the chunks, those of the M noisy chunks, and what conditions the norms for each chunk."""
        raise NotImplementedError

    def read(self, observation: Observation, output: bool = False) -> Cache:
        return Cache(self.backbone.read(observation, output=output), observation.state)

    def suffix(
        self,
        cache: Cache,
        x_t: Float[Array, "B M C A"],
        t: Float[Array, "B M"],
        steps: Bool[Array, "B C"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Output of the expert at the suffix, the M chunks one after the other behind the lead.

        The M chunks are blocks that share prefix and lead but do not see each other, so that each gives what it would
        give alone. Nothing sees the steps of the chunk for which `steps` is False.
        """
        lead, actions, condition = self.embed_suffix(cache.state, x_t, t)
        B, M, C, D = actions.shape
        steps = jnp.ones((B, C), bool) if steps is None else steps
        visible, positions = suffix_layout(cache.prefix, steps, lead.shape[1], M)
        tokens = jnp.concatenate([lead, actions.reshape(B, M * C, D)], axis=1)
        y, _ = self.expert(tokens, positions, visible, cache.prefix.keys_values, condition=condition)
        return y

    def velocities(self, cache: Cache, x_t, t, steps=None) -> Float[Array, "B M C A"]:
        """At M points of the flow for one observation, from a single pass of the expert."""
        B, M, C, A = x_t.shape
        y = self.suffix(cache, x_t, t, steps)[:, -M * C :]
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


def example(config: BackboneConfig) -> Observation:
    """An observation of one row of zeros, for shapes."""
    B, h = 1, config.image_size
    return Observation(
        images={name: jnp.zeros((B, h, h, 3)) for name in config.cameras},
        image_masks={name: jnp.ones(B, bool) for name in config.cameras},
        state=jnp.zeros((B, config.state_dim)),
        prompt=jnp.zeros((B, config.prompt_length), int),
        prompt_mask=jnp.ones((B, config.prompt_length), bool),
    )


def make(network: FlowNetwork, loss_config: LossConfig) -> Policy:
    """A network as pure functions."""
    config = network.config
    C, A = config.chunk, config.action_dim
    path, kind = PATHS[loss_config.path], loss_config.prediction
    steps = {"ddim": solvers.ddim(0.0), "ddpm": solvers.ddpm}

    def init(key):
        return network.init(key, example(config), jnp.zeros((1, 1, C, A)), jnp.zeros((1, 1)))["params"]

    def prefix(params, observation: Observation) -> Cache:
        return network.apply({"params": params}, observation, method="read")

    def predict(params, cache: Cache, x_t, t):
        """What the expert says [B, C, A] of x_t [B, C, A] at time t, a scalar or [B], of its kind and on its path."""
        t = jnp.broadcast_to(t, x_t.shape[:1])
        return network.apply({"params": params}, cache, x_t[:, None], t[:, None], method="velocities")[:, 0]

    def denoise(params, cache: Cache):
        return predictions.denoiser(lambda x_t, t: predict(params, cache, x_t, t.reshape(-1)), kind, path)

    def velocity(params, cache: Cache, x_t, t):
        """v_t [B, C, A] of the straight path at x_t [B, C, A] and time t, a scalar or [B], whatever the expert's is."""
        if loss_config.path == "straight" and kind == "u":
            return predict(params, cache, x_t, t)
        t = jnp.broadcast_to(t, x_t.shape[:1])[:, None, None]
        return solvers.straightened(denoise(params, cache), path)(x_t, t)

    def attention(params, cache: Cache, x_t, t):
        """Shares [L, B, N, C, S] in which the chunk's tokens attend to the prefix, the lead and themselves."""
        t = jnp.broadcast_to(t, x_t.shape[:1])
        _, sown = network.apply(
            {"params": params}, cache, x_t[:, None], t[:, None], method="velocities", mutable=["intermediates"]
        )
        (weights,) = sown["intermediates"]["expert"]["layers"]["attention"]["weights"]
        return weights[..., -C:, :]

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Squared error of the prediction for each step of the chunk, over what is real: see `velocity_losses`."""
        velocities = velocities_of(network, params, prefix(params, batch.observation))
        return velocity_losses(velocities, key, batch, loss_config, noise=noise, time=time)

    def act(params, key, observation: Observation, *, noise=None, num_steps: int = config.num_steps):
        """Normalised actions [B, C, A], carried from noise [B, C, A] by `num_steps` steps of `config.solver`."""
        if noise is None:
            noise = jax.random.normal(key, (observation.state.shape[0], C, A))
        cache, times = prefix(params, observation), solvers.even_times(num_steps)
        if config.solver in steps:
            fresh = jax.random.fold_in(key, 1)
            return solvers.sample_steps(steps[config.solver], denoise(params, cache), path, noise, times, fresh)
        start, taus = noise / path.size(times[0]), path.tau(times)
        return solvers.solve(config.solver, lambda x_t, t: velocity(params, cache, x_t, t), start, taus)

    return Policy(init, loss, act, prefix, velocity, attention=attention)


def velocities_of(network: FlowNetwork, params, cache: Cache) -> Callable:
    """The function (x_t [B, M, C, A], t [B, M], steps [B, C]) -> v_t [B, M, C, A] for what was read."""
    return lambda x_t, t, steps: network.apply({"params": params}, cache, x_t, t, steps, method="velocities")


def velocity_losses(velocities: Callable, key, batch: Batch, loss_config: LossConfig, *, noise=None, time=None):
    """Squared error of the prediction for each step of the chunk, over what is real.

    Args:
      velocities: (x_t, t, steps) -> v_t, as `velocities_of` gives it.
      key: one, or one for each row.
      noise: [B, C, A], and time [B]: given instead of drawn (then one sample per observation).

    Returns:
      values [B, C], the mean over the real dimensions and the samples, zero for padded steps; weights [B, C], one for
      real steps; metrics: `time` [B, M] and `loss_at_time` [B, M] for the loss by flow time.
    """
    (B, C, A), M = batch.actions.shape, loss_config.samples_per_observation
    noise_keys, time_keys = jax.vmap(jax.random.split, out_axes=1)(row_keys(key, B))
    noise = by_row(jax.random.normal, noise_keys, (M, C, A)) if noise is None else noise[:, None]
    time = by_row(TIMES[loss_config.time].draw, time_keys, noise.shape[1:2]) if time is None else time[:, None]
    steps, dims = batch.action_mask, batch.action_dim_mask[:, None]
    if loss_config.openpi_padding:
        steps, dims = jnp.ones_like(steps), jnp.ones_like(dims)
    actions = jnp.where(dims & steps[:, :, None], batch.actions, 0)  # what is padded may hold anything
    path, t = PATHS[loss_config.path], time[:, :, None, None]
    target = predictions.target(loss_config.prediction, path, actions[:, None], noise, t)
    predicted = velocities(path.point(actions[:, None], noise, t), time, steps)
    steps, dims = steps[:, None], dims[:, None]  # [B, 1, C] and [B, 1, 1, A]: the same for every sample
    error = jnp.square(predicted - target)  # [B, M, C, A]
    by_step = jnp.sum(error * dims, axis=-1) / jnp.sum(dims, axis=-1) * steps  # [B, M, C]
    weights = jnp.broadcast_to(steps[:, 0], (B, C)).astype(jnp.float32)
    at_time = jnp.sum(by_step, axis=-1) / jnp.maximum(jnp.sum(steps, axis=-1), 1)
    return jnp.mean(by_step, axis=1), weights, {"time": time, "loss_at_time": at_time}


def by_row(draw: Callable, keys: Key[Array, "B"], shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """What `draw(key, shape)` gives for the key of each row."""
    return jax.vmap(lambda key: draw(key, shape))(keys)
