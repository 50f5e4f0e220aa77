"""Validation on held-out episodes: the same windows, noise and times every time, or the flow loss is too noisy."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from pizero_jax.train.step import by_name
from pizero_jax.types import Batch, Params, Policy

LOOKS = 4  # rows of a data set whose sampled chunks are drawn


class Look(NamedTuple):
    """Sampled chunks beside the recorded ones, normalised, in all processes."""

    sampled: Float[Array, "b C A"]
    recorded: Float[Array, "b C A"]
    real: Bool[Array, "b C A"]


def compile_validation(
    policy: Policy, time_bins: int, mesh: Mesh, decode: Callable | None = None
) -> Callable[[Params, jax.Array, Batch], tuple[dict, Look | None]]:
    """A jitted function of (params, key, batch) that returns sums, to be added over batches, and a look at some rows.

    Args:
      time_bins: of the loss by flow time.
      decode: from written tokens [B, T] and the data sets' numbers ([B], or None) to normalised actions [B, C, A] and
        whether they are well-formed [B], on the host; without it nothing is said of actions written as tokens.
    """

    def written(ids: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        shapes = batch.actions.astype(jnp.float32), jnp.ones(len(ids), bool)
        return jax.pure_callback(decode, shapes, ids, batch.dataset)

    def sums(params: Params, key: jax.Array, batch: Batch) -> tuple[dict, Look | None]:
        loss_key, act_key = jax.random.split(key)
        values, weights, metrics = policy.loss(params, loss_key, batch)
        named, named_weights = by_name(values), by_name(weights)
        result = {f"loss_{name}" if name else "loss": (x.sum(), named_weights[name].sum()) for name, x in named.items()}
        look = None
        if not policy.logits or decode:
            actions = policy.act(params, act_key, batch.observation)
            if policy.logits:
                actions, well_formed = written(actions, batch)
                rows = jnp.any(batch.action_mask, axis=1)
                result["malformed"] = jnp.sum(~well_formed & rows), rows.sum()
            real = batch.action_mask[:, :, None] & batch.action_dim_mask[:, None]
            result["action_error"] = jnp.sum(jnp.abs(actions - batch.actions) * real), real.sum()
            look = Look(actions[:LOOKS], batch.actions[:LOOKS], real[:LOOKS])
        if "time" in metrics:
            rows = jnp.any(batch.action_mask, axis=1, keepdims=True)  # repeats that fill a batch do not count
            at = (metrics["time"] * time_bins).astype(int).clip(0, time_bins - 1)
            one_hot = jax.nn.one_hot(at, time_bins) * rows[..., None]
            by_bin = jnp.einsum("BM,BMb->b", metrics["loss_at_time"], one_hot)
            result["loss_by_time"] = (by_bin, one_hot.sum((0, 1)))
        return result, look

    return jax.jit(sums, out_shardings=NamedSharding(mesh, PartitionSpec()))


def validate(
    sums: Callable, params: Params, batches: Mapping[str, Sequence[Batch]], seed: int
) -> tuple[dict[str, float], dict[str, Look | None]]:
    """Numbers, and by data set a look at the first rows.

    Mean losses and mean absolute error of sampled actions (normalised); of flows the loss by flow time.

    Of policies over tokens also the share of malformed chunks. All rows count alike; of a mixture, each data set has
    its own means, too.
    """
    key, totals, looks = jax.random.key(seed), {}, {}
    for name, held_out in batches.items():
        parts, seen = zip(*(sums(params, jax.random.fold_in(key, i), batch) for i, batch in enumerate(held_out)),
                          strict=True)  # fmt: skip
        totals[name], looks[name] = _add(parts), jax.device_get(seen[0])
    metrics = _means(_add(totals.values()))
    by_time = metrics.pop("loss_by_time", ())
    values = {f"val/{name}": float(value) for name, value in metrics.items()}
    if len(totals) > 1:
        for name, total in totals.items():
            values |= {f"val/{key}/{name}": float(value) for key, value in _means(total).items() if np.ndim(value) == 0}
    edges = [i / len(by_time) for i in range(len(by_time) + 1)] if len(by_time) else []
    for low, high, value in zip(edges, edges[1:], by_time, strict=False):
        values[f"val/loss_t{low:.1f}-{high:.1f}"] = float(value)
    return values, looks


def _add(trees: Iterable[dict]) -> dict:
    return functools.reduce(functools.partial(jax.tree.map, jnp.add), trees)


def _means(totals: dict) -> dict:
    return jax.device_get({name: total / jnp.maximum(weight, 1) for name, (total, weight) in totals.items()})
