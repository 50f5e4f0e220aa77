"""The memory of a training step from shapes alone, where no compiler for the devices is at hand.

What lies on a device between steps is exact. The rest is what the backward pass keeps, found by tracing it, and the
work of one layer. Both ignore what compilers fuse and how they order things: `benchmarks/plan.md` compares.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from pizero_jax.config import FreezeConfig, LossConfig, PolicyConfig
from pizero_jax.train import freeze
from pizero_jax.train.plan import Make, Run, abstract_batch, bytes_on_device, held_bytes
from pizero_jax.types import row_keys

_ROWS = 2  # that are traced


class Traced(NamedTuple):
    """Bytes of a loss and its gradient, on one device."""

    kept: float  # from the forward pass for the backward pass, per row
    casts: float  # of whole weights, likewise kept
    in_layer: float  # of `kept`, by one iteration of the loop that keeps most in one, per row
    weights: float  # that one iteration reads, of the loop that reads most


def step_bytes(make: Make, run: Run) -> dict[str, int]:
    """Bytes on each device when most is there, by what they hold, with those between steps."""
    config, sizes = run.config, run.mesh.shape
    rows = config.batch_size / (sizes["data"] * sizes["fsdp"] * config.accumulation)
    kept, whole = (
        trace(make, dataclasses.replace(config.policy, remat=remat), config.loss, config.freeze)
        for remat in (config.policy.remat, "none")
    )
    gradients = bytes_on_device(run.state.params, run.placed.params)
    return held_bytes(run) | {
        "gradients": gradients * (1 if config.accumulation == 1 else 2),
        "kept for the backward pass": int(rows * kept.kept + kept.casts / (sizes["fsdp"] * sizes["tensor"])),
        "one layer's work": int(rows * max(whole.in_layer - kept.in_layer, 0)),
        "one layer's weights, gathered": int(kept.weights) if sizes["fsdp"] > 1 else 0,
    }


@functools.cache
def trace(make: Make, config: PolicyConfig, loss: LossConfig, frozen: FreezeConfig) -> Traced:
    """What the gradient of the loss keeps."""
    policy = make(config, loss)
    learning, still = freeze.split(nn.unbox(jax.eval_shape(policy.init, jax.random.key(0))), frozen)

    def residuals(learning, still, keys, batch):
        def total(learning):
            values, _, _ = policy.loss(freeze.join(learning, still), keys, batch)
            return sum(x.sum() for x in jax.tree.leaves(values))

        return jax.vjp(total, learning)[1]

    keys = jax.eval_shape(lambda: row_keys(jax.random.key(0), _ROWS))
    traced = jax.make_jaxpr(residuals)(learning, still, keys, abstract_batch(config, _ROWS)).jaxpr
    weights = {x.shape for x in jax.tree.leaves((learning, still))}
    variables = {x for x in traced.outvars if not isinstance(x, Literal)} - {*traced.invars, *traced.constvars}
    casts = sum(_bytes(x) for x in variables if x.aval.shape in weights)
    loops = [(0.0, 0.0), *(_iteration(loop, weights) for loop in _scans(traced))]
    return Traced(
        kept=(sum(map(_bytes, variables)) - casts) / _ROWS,
        casts=casts,
        in_layer=max(kept for kept, _ in loops) / _ROWS,
        weights=max(read for _, read in loops),
    )


def _scans(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        else:
            for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    yield from _scans(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, Jaxpr | ClosedJaxpr)


def _iteration(loop: Any, weights: set[tuple[int, ...]]) -> tuple[float, float]:
    """Bytes that one iteration leaves behind, but for casts of weights, and bytes of the weights that it reads."""
    body, length = loop.params["jaxpr"].jaxpr, loop.params["length"]
    left = sum(_bytes(x) for x in _stacked(loop.outvars, body.outvars) if x.aval.shape not in weights)
    read = sum(_bytes(x) for x in _stacked(loop.invars, body.invars) if x.aval.shape in weights)
    return left / length, read / length


def _stacked(outside: Sequence[Any], inside: Sequence[Any]) -> list[Any]:
    """The arrays outside of a loop of which each iteration has a part, and not the whole."""
    return [x for x, part in zip(outside, inside, strict=True) if x.aval.shape != part.aval.shape]


def _bytes(x: Any) -> int:
    # A random key says nothing of its bytes.
    return math.prod(x.aval.shape) * getattr(x.aval.dtype, "itemsize", 0)
