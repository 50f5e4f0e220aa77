"""pi0-FAST: the backbone alone writes the actions as text, token by token (arXiv 2501.09747)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from pizero_jax.config import LossConfig, Pi0FastConfig
from pizero_jax.nn.paligemma import PaliGemma, Prefix
from pizero_jax.nn.transformer import KeysValues
from pizero_jax.policies.flow import example
from pizero_jax.types import Batch, Observation, Policy

PAD, END = 0, 1  # PaliGemma's and our byte tokenizer's


class Pi0Fast(nn.Module):
    """A PaliGemma; with `config.openpi_positions`, where openpi trains, absent cameras take positions."""

    config: Pi0FastConfig

    def setup(self):
        self.backbone = PaliGemma(self.config)

    def states(self, batch: Batch) -> Float[Array, "B T D"]:
        """The output before each action token."""
        prefix = self.read(batch.observation, self.config.openpi_positions)
        return states_before(self.backbone, prefix, batch.action_tokens)

    def read(self, observation: Observation, count_absent: bool = False) -> Prefix:
        return self.backbone.read(observation, output=True, count_absent=count_absent)

    def logits(self, batch: Batch) -> Float[Array, "B T V"]:
        return self.backbone.logits(self.states(batch))

    def losses(self, batch: Batch) -> Float[Array, "B T"]:
        return self.backbone.token_losses(self.states(batch), batch.action_tokens)

    def first(self, prefix: Prefix) -> Float[Array, "B V"]:
        return self.backbone.logits(prefix.last)[:, 0]

    def step(self, ids, position, seen: KeysValues, seen_mask):
        return self.backbone.step(ids, position, seen, seen_mask)

    def __call__(self, observation: Observation):
        return self.first(self.read(observation))


def states_before(backbone: PaliGemma, prefix: Prefix, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The backbone's output before each token of `ids`: at the prompt's end, then at the tokens but the last."""
    return jnp.concatenate([prefix.last, backbone.follow(prefix, ids[:, :-1])], axis=1)


def token_weights(mask: Array, openpi_padding: bool) -> Float[Array, "B T"]:
    """One for each real token; openpi weighs each row alike, however many tokens it has."""
    mask = mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1) if openpi_padding else mask


def make(config: Pi0FastConfig, loss_config: LossConfig) -> Policy:
    """An autoregressive policy over action tokens as pure functions."""
    network = Pi0Fast(config)
    T = config.token_length

    def init(key):
        return network.init(key, example(config))["params"]

    def logits(params, batch: Batch):
        """[B, T, V] before each of `batch.action_tokens`."""
        return network.apply({"params": params}, batch, method="logits")

    def loss(params, key, batch: Batch, *, noise=None, time=None):
        """Cross entropy [B, T] of the action tokens, and their weights; key, noise and time are not used."""
        weights = token_weights(batch.action_token_mask, loss_config.openpi_padding)
        return network.apply({"params": params}, batch, method="losses") * weights, weights, {}

    def act(params, key, observation: Observation, *, temperature: float = 0.0, num_tokens: int = T):
        """Token ids [B, num_tokens]: up to each row's own end of text, then zeros.

        Args:
          temperature: 0 takes the likeliest token.
        """
        apply = partial(network.apply, {"params": params})
        prefix = apply(observation, method="read")
        (B, S), skipped = prefix.mask.shape, int(config.openpi_positions)
        room = ((0, 0), (0, 0), (0, num_tokens), (0, 0), (0, 0))
        seen = jax.tree.map(lambda x: jnp.pad(x, room), prefix.keys_values)  # [L, B, S + num_tokens, K, H]
        real = jnp.pad(prefix.mask, ((0, 0), (0, num_tokens)))

        def unfinished(carry):
            i, *_, done = carry
            return (i < num_tokens) & ~jnp.all(done)

        def write(carry):
            i, ids, logits, seen, done = carry
            token = choose(jax.random.fold_in(key, i), logits, temperature)
            token = jnp.where(done, PAD, token)
            visible = real | ((jnp.arange(S + num_tokens) >= S) & (jnp.arange(S + num_tokens) < S + i))
            logits, own = apply(token, prefix.end + i + skipped, seen, visible, method="step")
            at = (0, 0, S + i, 0, 0)
            seen = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice(x, new, at), seen, own)
            return i + 1, ids.at[:, i].set(token), logits, seen, done | (token == END)

        carry = 0, jnp.full((B, num_tokens), PAD), apply(prefix, method="first"), seen, jnp.zeros(B, bool)
        return jax.lax.while_loop(unfinished, write, carry)[1]

    return Policy(init, loss, act, logits=logits)


def choose(key: jax.Array, logits: Float[Array, "B V"], temperature: float) -> Int[Array, "B"]:
    """The likeliest token, or one drawn."""
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    return jax.random.categorical(key, logits / temperature)
