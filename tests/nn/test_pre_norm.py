import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.nn.layers import AdaptiveLayerNorm
from pizero_jax.nn.pre_norm import PreNorm

B, T, S, D, E, F = 2, 6, 4, 16, 12, 8
KEY = jax.random.key(0)
INPUTS = dict(zip(("x", "memory", "condition"), (
    jax.random.normal(key, shape)
    for key, shape in zip(jax.random.split(KEY, 3), ((B, T, D), (B, S, E), (B, 2, F)), strict=True)
), strict=True))  # fmt: skip
VISIBLE = jnp.ones((1, 1, T), bool)


NETWORK = PreNorm(4, 24, "float32", 0.0, 3, norm=AdaptiveLayerNorm)


@jax.jit
def apply(params, x, memory, condition, visible=VISIBLE, seen=None):
    return NETWORK.apply(params, x, visible, memory, seen, condition)


@pytest.fixture(scope="module")
def fresh():
    return nn.unbox(jax.jit(functools.partial(NETWORK.init, KEY, visible=VISIBLE))(**INPUTS))


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(SimpleNamespace(init=functools.partial(NETWORK.init, visible=VISIBLE, **INPUTS)))


def test_every_adaptive_block_is_the_identity_at_first(fresh, params):
    """What is left of three layers of three sublayers is the last norm."""
    x = INPUTS["x"]
    normed = (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(apply(fresh, **INPUTS), normed, atol=1e-5)
    assert np.abs(apply(params, **INPUTS) - normed).max() > 0.1


def test_the_gates_of_adaptive_blocks_learn_from_the_first_step(fresh):
    def total(params):
        return jnp.sum(jnp.sin(NETWORK.apply(params, visible=VISIBLE, **INPUTS)))

    layers = jax.jit(jax.grad(total))(fresh)["params"]["layers"]
    for name in ("own_norm", "seen_norm", "mlp_norm"):
        scale, shift, gate = jnp.split(layers[name]["modulation"]["kernel"], 3, axis=-1)
        assert (np.abs(gate).max(axis=(1, 2)) > 1e-4).all()
        assert not scale.any()  # behind a gate that is closed
        assert not shift.any()


def test_blocks_of_tokens_that_do_not_see_each_other_are_as_alone(params):
    block = jnp.repeat(jnp.arange(2), T // 2)
    both = apply(params, **INPUTS | {"visible": (block[:, None] == block)[None]})
    for i, half in enumerate((slice(None, T // 2), slice(T // 2, None))):
        part = INPUTS | {"x": INPUTS["x"][:, half], "condition": INPUTS["condition"][:, i : i + 1]}
        alone = apply(params, **part, visible=VISIBLE[..., half])
        np.testing.assert_allclose(both[:, half], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hidden", ["visible", "seen"])
def test_what_is_hidden_changes_nothing(params, hidden):
    size, name = (T, "x") if hidden == "visible" else (S, "memory")
    mask = (jnp.arange(size) < size - 1)[None, None]
    other = INPUTS | {name: INPUTS[name].at[:, -1].add(5.0)}
    masked, changed = (apply(params, **inputs, **{hidden: mask}) for inputs in (INPUTS, other))
    rest = slice(None, -1) if hidden == "visible" else slice(None)
    np.testing.assert_array_equal(masked[:, rest], changed[:, rest])
    assert np.abs(apply(params, **other) - masked)[:, rest].max() > 1e-2
