"""Weights in fewer bits: bfloat16, or int8 with one scale for each output channel.

`nn.layers.weight` multiplies int8 by its scale where it is used, inside the scan over layers, so that one layer at a
time exists in the activations' type. Activations are not quantised. Norms, biases, convolutions and positions, which
are small, stay as they are.

Neither qwix nor AQT is used. qwix 0.1.8 replaces JAX's products while a Linen module runs: its weights refuse the
change of type that ours undergo before a product, it leaves embeddings alone, and refuses convolutions whose weights
alone are int8. AQT quantises training; its last release is of August 2025.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int8

from pizero_jax.data.episodes import Episodes
from pizero_jax.nn.layers import equations
from pizero_jax.serve import open_loop
from pizero_jax.serve.policy import TrainedPolicy
from pizero_jax.types import Params, Policy

WEIGHTS = ("float32", "bfloat16", "int8")
EPISODES = 8  # by which a change is measured, at most, with `open_loop.LOOKS` observations of each


def held_as(trained: TrainedPolicy) -> str:
    """Which of `WEIGHTS` most of its numbers are."""
    sizes = {name: 0 for name in WEIGHTS}
    for x in jax.tree.leaves(trained.params):
        sizes[str(x.dtype)] = sizes.get(str(x.dtype), 0) + x.size
    return max(sizes, key=sizes.get)


def with_weights(trained: TrainedPolicy, weights: str | None) -> TrainedPolicy:
    """The policy with its weights as one of `WEIGHTS`; as they were saved without one."""
    if weights is None:
        return trained
    if weights == "int8":
        return dataclasses.replace(trained, params=quantized(trained.policy, trained.params))
    return dataclasses.replace(
        trained,
        params=jax.tree.map(
            lambda x: x.astype(weights) if jnp.issubdtype(x.dtype, jnp.floating) else x, trained.params
        ),
    )


def quantized(policy: Policy, params: Params) -> Params:
    """Kernels of linear maps and embeddings as int8, each with its scale beside it, "kernel" and "kernel_scale"."""
    leaves = flatten_dict(params, sep="/")
    summed = {name: (-1,) for name in leaves if name.split("/")[-1] == "embedding"}
    for module, equation in equations(policy).items():
        letters, out = equation.split(",")[1].split("->")
        summed[f"{module}/kernel"] = tuple(i - len(letters) for i, letter in enumerate(letters) if letter not in out)
    for name, axes in summed.items():
        leaves[name], leaves[f"{name}_scale"] = int8(leaves[name], axes)
    return unflatten_dict(leaves, sep="/")


def int8(x: Float[Array, "..."], summed: tuple[int, ...]) -> tuple[Int8[Array, "..."], Float[Array, "..."]]:
    """x in steps of scale, which is its largest number over the axes `summed`, divided by 127."""
    x = jnp.asarray(x, jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=summed, keepdims=True) / 127
    return jnp.round(x / jnp.where(scale, scale, 1)).astype(jnp.int8), scale


def change(trained: TrainedPolicy, other: TrainedPolicy, episodes: Episodes) -> dict[str, Any]:
    """How far the actions of the same noise move, root mean square over their standard deviation.

    Over recorded observations, evenly spread. "by_dimension" is None for dimensions that do not move, which "relative",
    the root mean square of the others, leaves out.
    """
    chosen = np.unique(np.linspace(0, len(episodes) - 1, EPISODES).round().astype(int))
    found = [_actions((trained, other), episodes[int(i)], int(i)) for i in chosen]
    before, after = (np.concatenate(actions).astype(np.float64) for actions in zip(*found, strict=True))
    ratio = relative(before, after)
    moving = ratio[np.isfinite(ratio)]
    return {
        "relative": float(np.sqrt(np.mean(np.square(moving)))) if len(moving) else 0.0,
        "by_dimension": [float(x) if np.isfinite(x) else None for x in ratio],
        "observations": len(before),
    }


def relative(before: Float[np.ndarray, "n C A"], after: Float[np.ndarray, "n C A"]) -> Float[np.ndarray, "A"]:
    """Root mean square of the difference over the standard deviation of `before`; NaN for what does not move."""
    std = before.std(axis=(0, 1))
    moving = std > open_loop.ROUNDING * np.abs(before).max(axis=(0, 1))
    difference = np.sqrt(np.mean(np.square(after - before), axis=(0, 1)))
    return np.where(moving, difference / np.where(moving, std, 1), np.nan)


def _actions(policies: Sequence[TrainedPolicy], episode, number: int) -> list[Float[np.ndarray, "n C A"]]:
    looks = np.unique(np.linspace(0, len(episode) - 1, open_loop.LOOKS).round().astype(int))
    key = jax.random.key(number)
    return [open_loop.predict(policy, episode, looks, key) for policy in policies]


def size(params: Params) -> int:
    """Bytes."""
    return sum(x.nbytes for x in jax.tree.leaves(params))
