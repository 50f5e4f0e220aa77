import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.config import AttentionConfig
from pizero_jax.nn.transformer import Transformer

ATTENTION = AttentionConfig(depth=2, heads=4, kv_heads=2, head_dim=8)
B, T, D = 2, 5, 16


def gradient(remat: str):
    """Of a loss on two layers' output, as a function of the parameters; and parameters."""
    network = Transformer(ATTENTION, D, 32, "float32", remat=remat)
    rng = np.random.default_rng(0)
    x, positions = rng.standard_normal((B, T, D), np.float32), jnp.broadcast_to(jnp.arange(T), (B, T))
    inputs = jnp.asarray(x), positions, jnp.ones((1, 1, T), bool)
    params = nn.unbox(network.init(jax.random.key(0), *inputs))
    weights = rng.standard_normal((B, T, D), np.float32)
    return jax.grad(lambda params: jnp.sum(weights * network.apply(params, *inputs)[0])), params


def products(jaxpr) -> int:
    """Matrix products in what was traced."""
    count = sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            count += products(inner) if hasattr(inner, "eqns") else 0
    return count


@pytest.fixture(scope="module")
def plain():
    function, params = gradient("none")
    return jax.jit(function)(params)


@pytest.mark.parametrize("remat", ["full", "attention", "dots"])
def test_what_is_computed_again_changes_no_gradient(plain, remat):
    function, params = gradient(remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), jax.jit(function)(params), plain)


def test_what_is_kept_is_not_computed_again():
    again = {}
    for remat in ("none", "dots", "attention", "full"):
        function, params = gradient(remat)
        again[remat] = products(jax.make_jaxpr(function)(params).jaxpr)
    again = {remat: count - again["none"] for remat, count in again.items()}
    # Of a layer's nine products: logits and averages again with "dots"; gate, up and logits with "attention", whose
    # queries, keys, values and output are kept; with "full" all but the last, which the backward pass does not read.
    assert again == {"none": 0, "dots": 2, "attention": 4, "full": 8}
