"""The training step and the sampler, lowered from shapes alone for devices that need not be there."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from pizero_jax import mesh as meshes
from pizero_jax.config import FreezeConfig, LossConfig, OptimizerConfig, PolicyConfig, TrainConfig
from pizero_jax.train import optimizer
from pizero_jax.train.step import TrainState, compile_step, fresh_state
from pizero_jax.types import Batch, Observation, Policy

Make = Callable[[Any, Any], Policy]
"""(config.policy, config.loss) -> policy."""


class Run(NamedTuple):
    """What a run is made of, as shapes (`jax.ShapeDtypeStruct`)."""

    policy: Policy
    tx: optax.GradientTransformation
    config: TrainConfig
    mesh: Mesh | AbstractMesh
    state: TrainState
    placed: TrainState  # the sharding of each leaf of the state
    batch: Batch


def abstract_run(make: Make, config: TrainConfig, mesh: Mesh | AbstractMesh) -> Run:
    """Nothing is allocated, and an abstract mesh suffices for all but lowering.

    Raises:
      InputError: the batch does not divide over the mesh, or a large parameter would be whole on every device.
    """
    meshes.check_batch_size(config.batch_size, mesh, config.accumulation)
    policy, tx = make(config.policy, config.loss), optimizer.make(config.optimizer)
    # What a layer keeps says nothing of its parameters.
    any_remat = dataclasses.replace(config.policy, remat="full")
    boxed = _fresh(make, any_remat, config.loss, config.optimizer, config.freeze)
    placed = meshes.shardings(boxed, mesh)
    return Run(policy, tx, config, mesh, nn.unbox(boxed), placed, abstract_batch(config.policy, config.batch_size))


@functools.cache
def _fresh(make: Make, config: PolicyConfig, loss: LossConfig, o: OptimizerConfig, frozen: FreezeConfig) -> TrainState:
    """The shapes of a fresh state, with logical axes."""
    tx = optimizer.make(o)
    return jax.eval_shape(partial(fresh_state, make(config, loss), tx, o.ema, 0, frozen, o.ema_dtype))


def abstract_batch(config: PolicyConfig, rows: int) -> Batch:
    """The shapes of a batch as the loader makes it: pictures in uint8."""

    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    side, prompt = config.image_size, config.prompt_length
    observation = Observation(
        images={name: of(jnp.uint8, side, side, 3) for name in config.cameras},
        image_masks={name: of(jnp.bool_) for name in config.cameras},
        state=of(jnp.float32, config.state_dim),
        prompt=of(jnp.int32, prompt),
        prompt_mask=of(jnp.bool_, prompt),
    )
    T = getattr(config, "token_length", None)  # only policies over tokens have it
    tokens = {} if T is None else {"action_tokens": of(jnp.int32, T), "action_token_mask": of(jnp.bool_, T)}
    actions = of(jnp.float32, config.chunk, config.action_dim)
    return Batch(observation, actions, of(jnp.bool_, config.chunk), of(jnp.bool_, config.action_dim), **tokens)


def lower_step(run: Run) -> jax.stages.Lowered:
    """The training step."""
    c = run.config
    run_of = run.policy, run.tx, c.optimizer.ema, c.seed, run.mesh, run.placed
    step = compile_step(*run_of, accumulation=c.accumulation)
    return step.lower(run.state, run.batch)


def lower_sampler(run: Run) -> jax.stages.Lowered:
    """Acting on a whole batch over the mesh, as validation does."""
    whole, rows = NamedSharding(run.mesh, PartitionSpec()), meshes.batch_sharding(run.mesh)
    act = jax.jit(run.policy.act, in_shardings=(run.placed.acting_params, whole, rows))
    key = jax.eval_shape(partial(jax.random.key, 0))
    return act.lower(run.state.acting_params, key, run.batch.observation)


def bytes_on_device(shapes: Any, placed: Any) -> int:
    """Of a tree of arrays that lie as `placed` says, a tree of shardings or one for all."""
    placed = jax.tree.map(lambda _: placed, shapes) if isinstance(placed, NamedSharding) else placed
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(placed), strict=True)
    return sum(math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize for x, sharding in pairs)


def held_bytes(run: Run) -> dict[str, int]:
    """Bytes that lie on each device between steps, by what they hold, and those of the batch."""
    state, placed = run.state, run.placed
    parts = {
        "parameters that learn": (state.params, placed.params),
        "frozen": (state.frozen, placed.frozen),
        "optimiser": (state.opt_state, placed.opt_state),
        "average": (state.ema, placed.ema),
        "batch": (run.batch, meshes.batch_sharding(run.mesh)),
    }
    return {name: bytes_on_device(*part) for name, part in parts.items()}


class Memory(NamedTuple):
    """Bytes that a compiled program needs on each device."""

    arguments: int
    temporaries: int
    peak: int  # that are in use at once, as the compiler counts them; all that is reserved where it does not
    reserved: int  # arguments, results and temporaries as they are laid out, gaps included; and the program


def memory(compiled: jax.stages.Compiled) -> Memory:
    """What the compiler has planned; results that take the place of arguments count once."""
    m = compiled.memory_analysis()
    results = m.output_size_in_bytes - m.alias_size_in_bytes
    reserved = m.argument_size_in_bytes + results + m.temp_size_in_bytes + m.generated_code_size_in_bytes
    counted = m.peak_memory_in_bytes > m.argument_size_in_bytes  # not on CPUs, where no temporaries are in the peak
    return Memory(
        m.argument_size_in_bytes, m.temp_size_in_bytes, m.peak_memory_in_bytes if counted else reserved, reserved
    )


def refused(error: Exception) -> int | None:
    """The bytes that a program would need which the compiler (of TPUs) refused for them; None for another error."""
    needs = re.search(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm", str(error))
    return needs and int(float(needs[1]) * 1024 ** (1 + "KMG".index(needs[2])))
