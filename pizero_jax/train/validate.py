"""Validation on held-out episodes: the same windows, noise and times every time, or the flow loss is too noisy."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pizero_jax.train.step import by_name
from pizero_jax.types import Batch, Params, Policy


def compile_validation(
    policy: Policy, time_bins: int, decode: Callable | None = None
) -> Callable[[Params, jax.Array, Batch], dict]:
    """A jitted function of (params, key, batch) that returns sums, to be added over batches.

    Args:
      time_bins: of the loss by flow time.
      decode: from written tokens [B, T] and the data sets' numbers ([B], or None) to normalised actions [B, C, A] and
        whether they are well-formed [B], on the host; without it nothing is said of actions written as tokens.
    """

    def written(ids: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        shapes = batch.actions.astype(jnp.float32), jnp.ones(len(ids), bool)
        return jax.pure_callback(decode, shapes, ids, batch.dataset)

    def sums(params: Params, key: jax.Array, batch: Batch) -> dict:
        loss_key, act_key = jax.random.split(key)
        values, weights, metrics = policy.loss(params, loss_key, batch)
        named, named_weights = by_name(values), by_name(weights)
        result = {f"loss_{name}" if name else "loss": (x.sum(), named_weights[name].sum()) for name, x in named.items()}
        if policy.velocity or decode:
            actions = policy.act(params, act_key, batch.observation)
            if not policy.velocity:
                actions, well_formed = written(actions, batch)
                rows = jnp.any(batch.action_mask, axis=1)
                result["malformed"] = jnp.sum(~well_formed & rows), rows.sum()
            real = batch.action_mask[:, :, None] & batch.action_dim_mask[:, None]
            result["action_error"] = jnp.sum(jnp.abs(actions - batch.actions) * real), real.sum()
        if "time" in metrics:
            rows = jnp.any(batch.action_mask, axis=1, keepdims=True)  # repeats that fill a batch do not count
            at = (metrics["time"] * time_bins).astype(int).clip(0, time_bins - 1)
            one_hot = jax.nn.one_hot(at, time_bins) * rows[..., None]
            by_bin = jnp.einsum("BM,BMb->b", metrics["loss_at_time"], one_hot)
            result["loss_by_time"] = (by_bin, one_hot.sum((0, 1)))
        return result

    return jax.jit(sums)


def validate(sums: Callable, params: Params, batches: Mapping[str, Sequence[Batch]], seed: int) -> dict[str, float]:
    """Mean losses and mean absolute error of sampled actions (normalised); of flows the loss by flow time.

    Of policies over tokens also the share of malformed chunks. All rows count alike; of a mixture, each data set has
    its own means, too.
    """
    key = jax.random.key(seed)
    totals = {name: _add(sums(params, jax.random.fold_in(key, i), batch) for i, batch in enumerate(held_out))
              for name, held_out in batches.items()}  # fmt: skip
    metrics = _means(_add(totals.values()))
    by_time = metrics.pop("loss_by_time", ())
    values = {f"val/{name}": float(value) for name, value in metrics.items()}
    if len(totals) > 1:
        for name, total in totals.items():
            values |= {f"val/{key}/{name}": float(value) for key, value in _means(total).items() if np.ndim(value) == 0}
    edges = [i / len(by_time) for i in range(len(by_time) + 1)] if len(by_time) else []
    for low, high, value in zip(edges, edges[1:], by_time, strict=False):
        values[f"val/loss_t{low:.1f}-{high:.1f}"] = float(value)
    return values


def _add(trees: Iterable[dict]) -> dict:
    return functools.reduce(functools.partial(jax.tree.map, jnp.add), trees)


def _means(totals: dict) -> dict:
    return jax.device_get({name: total / jnp.maximum(weight, 1) for name, (total, weight) in totals.items()})
