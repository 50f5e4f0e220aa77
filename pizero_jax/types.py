"""What flows through the whole house: observations, batches and the functions that make up a policy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

Params = Any
"""Nested dictionary of arrays, as Flax Linen keeps it."""


@struct.dataclass
class Observation:
    """What the policy sees at one moment, for a batch of rows.

    The order of cameras in the model's sequence comes from the config, never from these dictionaries.
    """

    images: dict[str, UInt8[Array, "B h w 3"] | Float[Array, "B h w 3"]]  # uint8 grey levels, or floats in [-1, 1]
    image_masks: dict[str, Bool[Array, "B"]]  # False where the row has no such picture
    state: Float[Array, "B P"]  # normalised proprioception, zero-padded to the policy's width
    prompt: Int[Array, "B T"]  # token ids
    prompt_mask: Bool[Array, "B T"]


@struct.dataclass
class Batch:
    """Observations with the chunk of actions that followed."""

    observation: Observation
    actions: Float[Array, "B C A"]  # normalised, zero-padded to the policy's width
    action_mask: Bool[Array, "B C"]  # False for steps past the end of the episode
    action_dim_mask: Bool[Array, "B A"]  # False for dimensions that the embodiment does not have
    action_tokens: Int[Array, "B T"] | None = (
        None  # the chunk as text that follows the prompt, for policies that read it
    )
    action_token_mask: Bool[Array, "B T"] | None = None  # False on padding
    dataset: Int[Array, "B"] | None = None  # number in the mixture, if there is one


class Policy(NamedTuple):
    """A policy is a few pure functions; trainer, evaluation and server see only these.

    init(key) -> params
    loss(params, key, batch, *, noise=None, time=None) -> (values, weights, metrics): the trainer divides the sum of
      values by the sum of weights over the global batch. A joint policy gives values and weights as dictionaries of
      the same names, whose quotients add up. Weights follow from the batch alone, not from the parameters. `key` is one
      key, or one for each row (`row_keys`): with these a row's draws do not depend on the rows beside it.
    act(params, key, observation, *, noise=None, num_steps=...) -> normalised actions [B, C, A]; policies over tokens
      return token ids [B, T], which `data.transforms.Processor` turns into actions.
    prefix(params, observation) -> cache and velocity(params, cache, x_t, t) -> v_t: flow policies only.
    attention(params, cache, x_t, t) -> [L, B, N, C, S], shares of what is seen that sum to 1 over S, for looking at:
      flow policies only. S counts the prefix's tokens (cameras in the config's order, prompt), then the suffix's.
    logits(params, batch) -> [B, T, V], of each action token: policies over tokens only.
    """

    init: Callable[[jax.Array], Params]
    loss: Callable[..., tuple[Any, Any, dict[str, Array]]]
    act: Callable[..., Array]
    prefix: Callable[..., Any] | None = None
    velocity: Callable[..., Float[Array, "B C A"]] | None = None
    logits: Callable[..., Float[Array, "B T V"]] | None = None
    attention: Callable[..., Float[Array, "L B N C S"]] | None = None


def row_keys(key: Key[Array, ""] | Key[Array, "B"], rows: int) -> Key[Array, "B"]:
    """One random key for each row: those given, or `key` split."""
    return key if key.ndim else jax.random.split(key, rows)
