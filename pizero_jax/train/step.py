"""The state of a training run and the one jitted step that advances it."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from pizero_jax import mesh as meshes
from pizero_jax.config import FreezeConfig
from pizero_jax.train import average, freeze
from pizero_jax.types import Batch, Params, Policy, row_keys


@struct.dataclass
class TrainState:
    """All that changes while training; `step` counts finished updates and is also the data position."""

    step: Int[Array, ""]
    params: Params  # those that learn
    ema: Params | None  # their average, which acts; None if the config keeps none
    opt_state: optax.OptState
    frozen: Params  # those that do not learn; may be empty

    @property
    def acting_params(self) -> Params:
        return freeze.join(self.params if self.ema is None else self.ema, self.frozen)


def fresh_state(
    policy: Policy, tx: optax.GradientTransformation, ema: float, seed: int, frozen: FreezeConfig, ema_dtype: str
) -> TrainState:
    """The state before the first step; its leaves carry their logical axes."""
    params, still = freeze.split(policy.init(jax.random.key(seed)), frozen)
    # A copy of its own: params and EMA are both donated to the step.
    mean = jax.tree.map(lambda x: jnp.array(x, ema_dtype, copy=True), params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, mean, tx.init(params), freeze.cast(still, frozen))


def init_state(
    policy: Policy,
    tx: optax.GradientTransformation,
    ema: float,
    seed: int,
    mesh: Mesh,
    frozen: FreezeConfig = freeze.NOTHING,
    ema_dtype: str = "float32",
):
    """The fresh state, each leaf created where it will live, and the tree of those shardings."""
    fresh = partial(fresh_state, policy, tx, ema, seed, frozen, ema_dtype)
    # The boxes that carry logical axes pass through the optimiser, whose moments are then sharded like their weights.
    placed = meshes.shardings(jax.eval_shape(fresh), mesh)
    return jax.jit(lambda: nn.unbox(fresh()), out_shardings=placed)(), placed


def train_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    ema: float,
    seed: int,
    state: TrainState,
    batch: Batch,
    *,
    sets: int = 1,
    accumulation: int = 1,
    placed: TrainState | None = None,
):
    """One update: each loss is a sum of values over a sum of weights, both over the global batch; several add up.

    A step whose loss or gradient is not finite changes nothing but `step`: its data are gone through, not learnt.

    Args:
      sets: data sets of the mixture; of several, the metrics have the sums for each.
      accumulation: micro-batches that the batch goes through in, for the memory of one of them.
      placed: the shardings of the state; gradients lie as their parameters do.
    """
    loss_key, mean_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
    keys = row_keys(loss_key, len(batch.actions))

    def losses_of(params: Params, keys: Key[Array, "b"], batch: Batch):
        values, weights, _ = policy.loss(freeze.join(params, state.frozen), keys, batch)
        return by_name(values), by_name(weights)

    def objective(params: Params, keys: Key[Array, "b"], batch: Batch, counts: dict[str, Array] | None = None):
        values, weights = losses_of(params, keys, batch)
        counts = counts or totals(weights)
        losses = {name: x.sum() / counts[name] for name, x in values.items()}
        apart = by_data_set(values, weights, batch.dataset, sets) if sets > 1 else {}
        return sum(losses.values()), ((losses, apart), not_finite(values))

    def gradient(*part):
        gradients, aux = jax.grad(objective, has_aux=True)(state.params, *part)
        return gradients if placed is None else jax.lax.with_sharding_constraint(gradients, placed.params), aux

    if accumulation == 1:
        gradients, ((losses, apart), bad_rows) = gradient(keys, batch)
    else:
        # The weights of the whole batch; they do not depend on the parameters, so the compiler drops all else of this.
        counts = totals(losses_of(state.params, keys, batch)[1])
        gradients, ((losses, apart), bad_rows) = accumulate(
            lambda part: gradient(*part, counts), state.params, micro_batches((keys, batch), accumulation)
        )
    loss, norm = sum(losses.values()), optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    mean = None if state.ema is None else average.updated(state.ema, params, ema, mean_key)
    new = TrainState(state.step, params, mean, opt_state, state.frozen)
    new = jax.tree.map(partial(jnp.where, finite), new, state).replace(step=state.step + 1, frozen=state.frozen)

    metrics = {"loss": loss, "grad_norm": norm, "param_norm": optax.tree.norm(new.params)}
    metrics |= {f"loss_{name}": value for name, value in losses.items() if name}
    metrics |= {"by_data_set": apart} if apart else {}
    return new, metrics | {"skipped": ~finite, "bad_rows": bad_rows}


def micro_batches(rows: Any, n: int) -> Any:
    """Leaves [B, ...] as [n, B / n, ...]: the i-th micro-batch has the rows i, i + n, i + 2 n, ...

    Of the consecutive rows that a device holds, each micro-batch then has equally many: none leaves its device.
    """

    def part(x: Array) -> Array:
        x = x.reshape(x.shape[0] // n, n, *x.shape[1:]).swapaxes(0, 1)  # -1 fits anything where a prompt is [B, 0]
        return meshes.constrain(x, None, "batch", *(None for _ in x.shape[2:]))

    return jax.tree.map(part, rows)


def accumulate(gradient: Callable, params: Params, parts: Any) -> tuple[Params, tuple[Any, Bool[Array, "B"]]]:
    """What `gradient` gives for the whole batch, from its `micro_batches`: gradients and sums add up."""

    def add(total: Params, part: Any):
        gradients, aux = gradient(part)
        return jax.tree.map(jnp.add, total, gradients), aux

    gradients, (sums, bad) = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)
    return gradients, (jax.tree.map(lambda x: x.sum(axis=0), sums), bad.T.reshape(-1))


def totals(weights: dict[str, Array]) -> dict[str, Array]:
    """What each loss is divided by."""
    return {name: jnp.maximum(x.sum(), 1) for name, x in weights.items()}


def not_finite(values: dict[str, Float[Array, "B n"]]) -> Bool[Array, "B"]:
    """The rows that a loss is not finite for."""
    return functools.reduce(jnp.logical_or, (~jnp.isfinite(x).all(axis=1) for x in values.values()))


def by_data_set(
    values: dict[str, Array], weights: dict[str, Array], dataset: Int[Array, "B"], sets: int
) -> dict[str, tuple[Array, Array]]:
    """The sums of values and of weights over the rows of each data set, [sets], by the name of the loss."""
    one_hot = jax.nn.one_hot(dataset, sets)

    def sums(x: Float[Array, "B n"]) -> Float[Array, "sets"]:
        return x.sum(axis=1) @ one_hot

    return {name: (sums(x), sums(weights[name])) for name, x in values.items()}


def by_name(x: Array | dict[str, Array]) -> dict[str, Array]:
    """What a joint policy names; the one loss of another has the name ""."""
    return x if isinstance(x, dict) else {"": x}


def compile_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    ema: float,
    seed: int,
    mesh: Mesh,
    placed: TrainState,
    *,
    sets: int = 1,
    accumulation: int = 1,
) -> Callable:
    """`train_step` over the mesh: (state, batch) -> (state, metrics); the state is donated."""
    step = partial(train_step, policy, tx, ema, seed, sets=sets, accumulation=accumulation, placed=placed)
    return jax.jit(
        meshes.over(mesh, step),
        in_shardings=(placed, meshes.batch_sharding(mesh)),
        out_shardings=(placed, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )


def to_mesh(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows of the global batch, as arrays over the mesh."""
    return jax.tree.map(partial(jax.make_array_from_process_local_data, meshes.batch_sharding(mesh)), batch)
