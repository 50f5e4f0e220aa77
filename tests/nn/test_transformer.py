"""What a transformer shows of its attention, and that this costs nothing where nobody asks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.config import AttentionConfig
from pizero_jax.nn.transformer import Transformer

ATTENTION = AttentionConfig(depth=3, heads=4, kv_heads=2, head_dim=8)
B, T, D = 2, 5, 16
X = jax.random.normal(jax.random.key(1), (B, T, D))
INPUTS = X, jnp.broadcast_to(jnp.arange(T), (B, T)), jnp.tril(jnp.ones((1, T, T), bool))


def network(remat="none", unroll=1) -> Transformer:
    return Transformer(ATTENTION, D, 32, "float32", remat=remat, unroll=unroll)


@pytest.fixture(scope="module")
def params():
    return nn.unbox(network().init(jax.random.key(0), *INPUTS))


def primitives(jaxpr) -> list[str]:
    """Of all equations, those inside of others included."""
    names = [equation.primitive.name for equation in jaxpr.eqns]
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            names += primitives(inner) if hasattr(inner, "eqns") else []
    return names


@pytest.mark.parametrize(("remat", "unroll"), [("none", 1), ("none", 3), ("full", 1)])
def test_asking_for_attention_changes_no_number(params, remat, unroll):
    model = network(remat, unroll)
    (y, _), sown = model.apply(params, *INPUTS, mutable=["intermediates"])
    (weights,) = sown["intermediates"]["layers"]["attention"]["weights"]
    assert weights.shape == (3, B, 4, T, T)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights > 0, np.broadcast_to(INPUTS[2], weights.shape))
    np.testing.assert_array_equal(y, model.apply(params, *INPUTS)[0])


@pytest.mark.parametrize("remat", ["none", "full"])
def test_attention_that_nobody_asks_for_is_not_computed(params, remat):
    """The weights themselves would be one more product and one more softmax in a layer."""

    def traced(**options):
        apply = lambda params: network(remat).apply(params, *INPUTS, **options)  # noqa: E731
        return primitives(jax.make_jaxpr(apply)(params).jaxpr)

    asked, plain = traced(mutable=["intermediates"]), traced()
    assert asked.count("dot_general") == plain.count("dot_general") + 1
    assert asked.count("exp") == plain.count("exp") + 1


def test_nothing_is_stored_in_fresh_parameters(params):
    assert set(params) == {"params"}


def test_a_pass_that_stops_at_its_keys_and_values_sows_nothing(params):
    (y, own), sown = network().apply(params, *INPUTS, only_keys_values=True, mutable=["intermediates"])
    assert y is None
    assert not jax.tree.leaves(sown)
    expected = network().apply(params, *INPUTS)[1]
    np.testing.assert_allclose(own.keys, expected.keys, atol=1e-6)
