"""pi0: a vision-language backbone and an action expert that turns noise into a chunk of actions (arXiv 2410.24164).

The sequence is [pictures, prompt | state | actions]: full attention inside a block, none to later blocks. The backbone
reads the prefix once; its keys and values, layer by layer, are all that the expert sees of it, training and acting.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from pizero_jax.config import LossConfig, Pi0Config
from pizero_jax.flow.paths import interpolate
from pizero_jax.flow.solvers import euler
from pizero_jax.flow.times import shifted_beta
from pizero_jax.nn.layers import dense, sincos, weight
from pizero_jax.nn.siglip import Siglip
from pizero_jax.nn.transformer import KeysValues, Transformer
from pizero_jax.types import Batch, Observation, Policy


@struct.dataclass
class Cache:
    """What the expert needs of an observation, whatever the noise and the time."""

    keys_values: KeysValues
    mask: Bool[Array, "B S"]  # which prefix tokens are real
    state: Float[Array, "B P"]


def to_unit_range(image: Array) -> Float[Array, "B h w 3"]:
    """Pictures in [-1, 1], from grey levels or unchanged; they travel to the device as bytes."""
    return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


class Pi0(nn.Module):
    """The network; `make` wraps its two passes into a policy."""

    config: Pi0Config

    def setup(self):
        c = self.config
        width = c.expert.width
        self.vision = Siglip(c.vision, c.language.width, c.dtype, c.remat, c.unroll)
        self.embedding = weight(
            self,
            "embedding",
            (c.language.vocabulary, c.language.width),
            ("vocabulary", "embed"),
            nn.initializers.normal(c.language.width**-0.5),
        )
        self.language = Transformer(c.attention, c.language.width, c.language.mlp, c.dtype, c.remat, c.unroll)
        self.expert = Transformer(c.attention, c.expert.width, c.expert.mlp, c.dtype, c.remat, c.unroll)
        self.state_in = dense(width, (None, "embed"), c.dtype)
        self.action_in = dense(width, (None, "embed"), c.dtype)
        self.action_time_in = dense(width, (None, "embed"), c.dtype)
        self.action_time_out = dense(width, ("embed", None), c.dtype)
        self.action_out = dense(c.action_dim, ("embed", None), "float32")  # the solver's state is float32

    def embed_prefix(self, observation: Observation) -> tuple[Float[Array, "B S D"], Bool[Array, "B S"]]:
        """Tokens and their mask: the cameras in the config's order, then the prompt. Absent cameras cost nothing."""
        cameras = [name for name in self.config.cameras if name in observation.images]
        pictures = [to_unit_range(observation.images[name]) for name in cameras]
        tokens = [self.vision(picture) for picture in pictures]
        masks = [
            jnp.broadcast_to(observation.image_masks[name][:, None], x.shape[:2])
            for name, x in zip(cameras, tokens, strict=True)
        ]
        text = self.embedding[observation.prompt].astype(self.config.dtype)
        tokens.append(text * self.config.language.width**0.5)  # text only: PaliGemma leaves image tokens as they are
        masks.append(observation.prompt_mask)
        return jnp.concatenate(tokens, axis=1), jnp.concatenate(masks, axis=1)

    def embed_suffix(self, state, x_t, t) -> Float[Array, "B T D"]:
        """The state token, then M chunks of noisy actions, each action mixed with the time of its chunk."""
        actions = self.action_in(x_t)
        time = sincos(t, self.config.expert.width).astype(actions.dtype)
        time = jnp.broadcast_to(time[:, :, None], actions.shape)
        actions = self.action_time_out(nn.swish(self.action_time_in(jnp.concatenate([actions, time], axis=-1))))
        B, M, C, D = actions.shape
        return jnp.concatenate([self.state_in(state)[:, None], actions.reshape(B, M * C, D)], axis=1)

    def prefix(self, observation: Observation) -> Cache:
        tokens, mask = self.embed_prefix(observation)
        positions = jnp.cumsum(mask, axis=1) - 1  # absent tokens take no position
        _, keys_values = self.language(tokens, positions, mask[:, None], only_keys_values=True)
        return Cache(keys_values, mask, observation.state)

    def velocities(
        self,
        cache: Cache,
        x_t: Float[Array, "B M C A"],
        t: Float[Array, "B M"],
        steps: Bool[Array, "B C"] | None = None,
    ):
        """Velocities [B, M, C, A] at M points of the flow for one observation, from a single pass of the expert.

        The M chunks are blocks that share prefix and state token but do not see each other, so that each gives what it
        would give alone. Nothing sees the steps of the chunk for which `steps` is False.
        """
        tokens = self.embed_suffix(cache.state, x_t, t)
        steps = jnp.ones((x_t.shape[0], x_t.shape[2]), bool) if steps is None else steps
        visible, positions = suffix_layout(cache.mask, steps, x_t.shape[1])
        y, _ = self.expert(tokens, positions, visible, cache.keys_values)
        return self.action_out(y[:, 1:].astype(jnp.float32)).reshape(x_t.shape)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.prefix(observation), x_t, t)


def suffix_layout(
    prefix_mask: Bool[Array, "B S"], steps: Bool[Array, "B C"], M: int
) -> tuple[Bool[Array, "B T U"], Int[Array, "B T"]]:
    """What the tokens [state | actions_1 | ... | actions_M] may see of [prefix, themselves], and their positions."""
    (B, S), C = prefix_mask.shape, steps.shape[1]
    block = jnp.concatenate([jnp.zeros(1, int), jnp.repeat(jnp.arange(M) + 1, C)])
    real = jnp.concatenate([jnp.ones((B, 1), bool), jnp.tile(steps, (1, M))], axis=1)
    among_suffix = ((block[None, :] == block[:, None]) | (block[None, :] == 0)) & real[:, None]
    prefix = jnp.broadcast_to(prefix_mask[:, None], (B, block.size, S))
    offset = jnp.concatenate([jnp.zeros(1, int), jnp.tile(jnp.arange(C) + 1, M)])  # every chunk follows the state
    return jnp.concatenate([prefix, among_suffix], axis=2), prefix_mask.sum(axis=1, keepdims=True) + offset


def make(config: Pi0Config, loss_config: LossConfig) -> Policy:
    """pi0 as pure functions."""
    network = Pi0(config)
    C, A, M = config.chunk, config.action_dim, loss_config.samples_per_observation

    def init(key):
        B, h = 1, config.image_size
        observation = Observation(
            images={name: jnp.zeros((B, h, h, 3)) for name in config.cameras},
            image_masks={name: jnp.ones(B, bool) for name in config.cameras},
            state=jnp.zeros((B, config.state_dim)),
            prompt=jnp.zeros((B, config.prompt_length), int),
            prompt_mask=jnp.ones((B, config.prompt_length), bool),
        )
        return network.init(key, observation, jnp.zeros((B, 1, C, A)), jnp.zeros((B, 1)))["params"]

    def prefix(params, observation: Observation) -> Cache:
        return network.apply({"params": params}, observation, method="prefix")

    def velocities(params, cache: Cache, x_t, t, steps=None):
        return network.apply({"params": params}, cache, x_t, t, steps, method="velocities")

    def velocity(params, cache: Cache, x_t, t):
        """v_t [B, C, A] at x_t [B, C, A] and time t, a scalar or [B]."""
        t = jnp.broadcast_to(t, x_t.shape[:1])
        return velocities(params, cache, x_t[:, None], t[:, None])[:, 0]

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Squared error of the velocity for each step of the chunk, over what is real.

        Args:
          noise: [B, C, A], and time [B]: given instead of drawn (then one sample per observation).

        Returns:
          values [B, C], the mean over the real dimensions and the samples, zero for padded steps; weights [B, C], one
          for real steps; metrics: `time` [B, M] and `loss_at_time` [B, M] for the loss by flow time.
        """
        noise_key, time_key = jax.random.split(key)
        B = batch.actions.shape[0]
        noise = jax.random.normal(noise_key, (B, M, C, A)) if noise is None else noise[:, None]
        time = shifted_beta(time_key, (B, noise.shape[1])) if time is None else time[:, None]
        steps, dims = batch.action_mask, batch.action_dim_mask[:, None]
        if loss_config.openpi_padding:
            steps, dims = jnp.ones_like(steps), jnp.ones_like(dims)
        actions = jnp.where(dims & steps[:, :, None], batch.actions, 0)  # what is padded may hold anything
        x_t, u_t = interpolate(actions[:, None], noise, time[:, :, None, None])
        v_t = velocities(params, prefix(params, batch.observation), x_t, time, steps)
        steps, dims = steps[:, None], dims[:, None]  # [B, 1, C] and [B, 1, 1, A]: the same for every sample
        error = jnp.square(v_t - u_t)  # [B, M, C, A]
        by_step = jnp.sum(error * dims, axis=-1) / jnp.sum(dims, axis=-1) * steps  # [B, M, C]
        weights = jnp.broadcast_to(steps[:, 0], (B, C)).astype(jnp.float32)
        at_time = jnp.sum(by_step, axis=-1) / jnp.maximum(jnp.sum(steps, axis=-1), 1)
        return jnp.mean(by_step, axis=1), weights, {"time": time, "loss_at_time": at_time}

    def act(params, key, observation: Observation, *, noise=None, num_steps: int = config.num_steps):
        """Normalised actions [B, C, A], carried from noise [B, C, A] by `num_steps` Euler steps."""
        B = observation.state.shape[0]
        noise = jax.random.normal(key, (B, C, A)) if noise is None else noise
        cache = prefix(params, observation)
        return euler(lambda x_t, t: velocity(params, cache, x_t, t), noise, num_steps)

    return Policy(init, loss, act, prefix, velocity)
