"""The state of a training run and the one jitted step that advances it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from pizero_jax import mesh as meshes
from pizero_jax.config import FreezeConfig
from pizero_jax.train import freeze
from pizero_jax.types import Batch, Params, Policy


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
    policy: Policy, tx: optax.GradientTransformation, ema: float, seed: int, frozen: FreezeConfig
) -> TrainState:
    """The state before the first step; its leaves carry their logical axes."""
    params, still = freeze.split(policy.init(jax.random.key(seed)), frozen)
    # A copy of its own: params and EMA are both donated to the step.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, average, tx.init(params), freeze.cast(still, frozen))


def init_state(
    policy: Policy,
    tx: optax.GradientTransformation,
    ema: float,
    seed: int,
    mesh: Mesh,
    frozen: FreezeConfig = freeze.NOTHING,
):
    """The fresh state, each leaf created where it will live, and the tree of those shardings."""
    fresh = partial(fresh_state, policy, tx, ema, seed, frozen)
    # The boxes that carry logical axes pass through the optimiser, whose moments are then sharded like their weights.
    placed = meshes.shardings(jax.eval_shape(fresh), mesh)
    return jax.jit(lambda: nn.unbox(fresh()), out_shardings=placed)(), placed


def train_step(
    policy: Policy, tx: optax.GradientTransformation, ema: float, seed: int, sets: int, state: TrainState, batch: Batch
):
    """One update: each loss is a sum of values over a sum of weights, both over the global batch; several add up.

    Of a mixture of `sets` data sets, the metrics have these sums for each.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def objective(params: Params):
        values, weights, _ = policy.loss(freeze.join(params, state.frozen), key, batch)
        losses = means(values, weights)
        apart = by_data_set(values, weights, batch.dataset, sets) if sets > 1 else {}
        return sum(losses.values()), (losses, apart)

    (loss, (losses, apart)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = None if state.ema is None else optax.incremental_update(params, state.ema, 1 - ema)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), "param_norm": optax.tree.norm(params)}
    metrics |= {f"loss_{name}": value for name, value in losses.items() if name}
    metrics |= {"by_data_set": apart} if apart else {}
    return TrainState(state.step + 1, params, average, opt_state, state.frozen), metrics


def means(values: Array | dict[str, Array], weights: Array | dict[str, Array]) -> dict[str, Array]:
    """Each loss over its weights, by name."""
    weights = by_name(weights)
    return {name: x.sum() / jnp.maximum(weights[name].sum(), 1) for name, x in by_name(values).items()}


def by_data_set(values, weights, dataset: Int[Array, "B"], sets: int) -> dict[str, tuple[Array, Array]]:
    """The sums of values and of weights over the rows of each data set, [sets], by the name of the loss."""
    weights, one_hot = by_name(weights), jax.nn.one_hot(dataset, sets)

    def sums(x: Float[Array, "B n"]) -> Float[Array, "sets"]:
        return x.sum(axis=1) @ one_hot

    return {name: (sums(x), sums(weights[name])) for name, x in by_name(values).items()}


def by_name(x: Array | dict[str, Array]) -> dict[str, Array]:
    """What a joint policy names; the one loss of another has the name ""."""
    return x if isinstance(x, dict) else {"": x}


def compile_step(policy: Policy, tx, ema: float, seed: int, mesh: Mesh, placed: TrainState, sets: int = 1) -> Callable:
    """`train_step` over the mesh: (state, batch) -> (state, metrics); the state is donated."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        partial(train_step, policy, tx, ema, seed, sets),
        in_shardings=(placed, meshes.batch_sharding(mesh)),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )


def to_mesh(batch: Batch, mesh: Mesh) -> Batch:
    """This process's rows of the global batch, as arrays over the mesh."""
    return jax.tree.map(partial(jax.make_array_from_process_local_data, meshes.batch_sharding(mesh)), batch)
