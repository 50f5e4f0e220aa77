"""What a checkpoint does inside, as arrays and rows: its weights by module; losses, paths and attention of its flow."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Bool, Float

from pizero_jax.config import FlowConfig
from pizero_jax.errors import InputError
from pizero_jax.flow.solvers import even_times, solve, solve_path
from pizero_jax.types import Batch, Observation, Params, Policy


def parameters(params: Params, depth: int = 2) -> list[dict[str, Any]]:
    """A row for each module and one for all: how many parameters, their mean, deviation and largest magnitude.

    Args:
      depth: as `by_module`.
    """
    rows = []
    for module, leaves in by_module(params, depth).items():
        n = sum(x.size for x in leaves)
        mean = sum(float(_float32(x).sum(dtype=np.float64)) for x in leaves) / n
        std = _norm(_float32(x) - np.float32(mean) for x in leaves) / n**0.5
        largest = max(float(np.abs(_float32(x)).max()) for x in leaves)
        rows.append({"module": module, "parameters": n, "mean": mean, "std": std, "largest": largest})
    return rows


def drift(params: Params, origin: Params, depth: int = 2) -> list[dict[str, Any]]:
    """A row for each module and one for all: how far it lies from where it was in `origin`.

    "distance" is the Euclidean norm |params - origin| over all numbers of the module; "relative" is that divided by
    |origin|, and None where that is zero.

    Raises:
      InputError: the two have other parameters.
    """
    a, b = ({path: x.shape for path, x in flatten_dict(tree, sep="/").items()} for tree in (params, origin))
    odd = sorted(path for path in a.keys() | b.keys() if a.get(path) != b.get(path))
    if odd:
        found = f"{a.get(odd[0], 'missing')} in one checkpoint and {b.get(odd[0], 'missing')} in the other"
        raise InputError(f"parameter {odd[0]!r} is {found}; compare checkpoints of one configuration of the policy")
    pairs = by_module(jax.tree.map(lambda *pair: pair, params, origin), depth)
    rows = []
    for module, leaves in pairs.items():
        distance = _norm(_float32(x) - _float32(o) for x, o in leaves)
        length = _norm(_float32(o) for _, o in leaves)
        rows.append({"module": module, "distance": distance, "relative": distance / length if length else None})
    return rows


def _norm(leaves: Iterable[Float[np.ndarray, "..."]]) -> float:
    return sum(float(np.square(x).sum(dtype=np.float64)) for x in leaves) ** 0.5


def _float32(x: Float[Array, "..."]) -> Float[np.ndarray, "..."]:
    """On the host: each leaf has a shape of its own, for which JAX would compile."""
    return np.asarray(x, np.float32)


def by_module(params: Params, depth: int) -> dict[str, list[Any]]:
    """The leaves of each module, and of "all"; a parameter that lies beside modules is one of its own.

    Args:
      depth: names that a module's path is cut to, one more in the backbone: what is deeper is taken together.
    """
    leaves, modules = flatten_dict(params), {}
    above = {path[:i] for path in leaves for i in range(len(path) - 1)}  # modules that have modules
    for path, x in leaves.items():
        module = path if path[:-1] in above else path[:-1]
        name = "/".join(module[: depth + (path[0] == "backbone")])
        modules.setdefault(name, []).append(x)
    return dict(sorted(modules.items())) | {"all": list(leaves.values())}


@functools.partial(jax.jit, static_argnames="policy")
def loss_at_times(
    policy: Policy, params: Params, key: jax.Array, batch: Batch, times: Float[Array, "n"]
) -> Float[Array, "n"]:
    """The flow's mean loss at each flow time, over the rows with real steps and with one noise for all times.

    Raises:
      InputError: the policy has no flow.
    """
    _check_flow(policy)
    noise = jax.random.normal(key, batch.actions.shape)
    rows = jnp.any(batch.action_mask, axis=1)

    def at(t):
        _, _, metrics = policy.loss(params, key, batch, noise=noise, time=jnp.full(len(rows), t))
        return jnp.sum(metrics["loss_at_time"][:, 0] * rows) / jnp.maximum(rows.sum(), 1)

    return jax.lax.map(at, times)


@functools.partial(jax.jit, static_argnames=("policy", "num_steps"))
def denoising_path(
    policy: Policy, params: Params, observation: Observation, noise: Float[Array, "B C A"], num_steps: int
) -> Float[Array, "n B C A"]:
    """The n = `num_steps` + 1 normalised chunks from the noise to what Euler's steps make of it, as pi0 acts.

    Of a policy on another path, these are points of the straight one that it is after rescaling (`flow/paths.py`).

    Raises:
      InputError: the policy has no flow.
    """
    _check_flow(policy)
    cache = policy.prefix(params, observation)
    return solve_path("euler", lambda x_t, t: policy.velocity(params, cache, x_t, t), noise, even_times(num_steps))


@functools.partial(jax.jit, static_argnames=("policy", "num_steps"))
def samples(
    policy: Policy, params: Params, observation: Observation, noise: Float[Array, "n B C A"], num_steps: int
) -> Float[Array, "n B C A"]:
    """What Euler's steps, as pi0 acts, make of each of n noises, normalised; the observations are read once for all.

    Raises:
      InputError: the policy has no flow.
    """
    _check_flow(policy)
    cache = policy.prefix(params, observation)
    times = even_times(num_steps)
    return jax.lax.map(lambda x: solve("euler", lambda *at: policy.velocity(params, cache, *at), x, times), noise)


@functools.partial(jax.jit, static_argnames="policy")
def attention(
    policy: Policy, params: Params, observation: Observation, x_t: Float[Array, "B C A"], t: float
) -> Float[Array, "L B N C S"]:
    """Shares in which the chunk's tokens attend to the whole sequence at a point of the flow; over S they sum to 1.

    Raises:
      InputError: the policy has no flow.
    """
    _check_flow(policy)
    return policy.attention(params, policy.prefix(params, observation), x_t, t)


def _check_flow(policy: Policy) -> None:
    if policy.velocity is None:
        raise InputError("this policy writes tokens and has no flow; load a checkpoint of pi0 or pi0.5")


def sequence(config: FlowConfig, observation: Observation, size: int) -> dict[str, slice]:
    """Where each part lies in a sequence of `size` tokens: each camera, "prompt", "state" if it is one, "actions".

    The order is that of the sequence; cameras that are absent from the observation have no tokens.
    """
    patches = (config.image_size // config.vision.patch) ** 2
    lengths = {camera: patches for camera in config.cameras if camera in observation.images}
    lengths |= {"prompt": config.prompt_length, "state": 0, "actions": config.chunk}
    lengths["state"] = size - sum(lengths.values())
    starts = np.cumsum([0, *lengths.values()]).tolist()
    return {name: slice(at, at + n) for (name, n), at in zip(lengths.items(), starts, strict=False) if n}


def over_pictures(
    config: FlowConfig, observation: Observation, weights: Float[Array, "*batch S"]
) -> dict[str, Float[Array, "*batch y x"]]:
    """By camera the attention on each patch of its picture."""
    side = config.image_size // config.vision.patch
    parts = sequence(config, observation, weights.shape[-1])
    pictured = {camera: weights[..., parts[camera]] for camera in config.cameras if camera in parts}
    return {camera: x.reshape(*x.shape[:-1], side, side) for camera, x in pictured.items()}


def visible(prefix: Bool[Array, "B S"], suffix: Bool[Array, "B T U"]) -> Bool[Array, "B U U"]:
    """Which token (row) may use which (column), U = S + T, from the masks of `policies.flow.suffix_layout`.

    No policy builds it; it is for looking at.
    """
    (B, S), T = prefix.shape, suffix.shape[1]
    row = jnp.concatenate([prefix, jnp.zeros((B, T), bool)], axis=1)
    return jnp.concatenate([jnp.broadcast_to(row[:, None], (B, S, S + T)), suffix], axis=1)
