import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.config import AttentionConfig
from pizero_jax.nn.transformer import Transformer

ATTENTION = AttentionConfig(depth=2, heads=4, kv_heads=2, head_dim=8)
B, T, D, F = 2, 5, 16, 32


def gradient(remat: str, only_keys_values: bool = False):
    """Of a loss on two layers' output, or on their keys and values, as a function of the parameters; and parameters."""
    network = Transformer(ATTENTION, D, F, "float32", remat=remat)
    rng = np.random.default_rng(0)
    x, positions = rng.standard_normal((B, T, D), np.float32), jnp.broadcast_to(jnp.arange(T), (B, T))
    inputs = jnp.asarray(x), positions, jnp.ones((1, 1, T), bool)
    params = nn.unbox(network.init(jax.random.key(0), *inputs))
    weights = rng.standard_normal((B, T, D), np.float32)

    def loss(params):
        y, own = network.apply(params, *inputs, only_keys_values=only_keys_values)
        return jnp.sum(own.keys**2 + own.values**2) if only_keys_values else jnp.sum(weights * y)

    return jax.grad(loss), params


def equations(jaxpr):
    """Of what was traced, inner ones too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            yield from equations(inner) if hasattr(inner, "eqns") else ()


def products(jaxpr) -> int:
    """Matrix products in what was traced."""
    return sum(equation.primitive.name == "dot_general" for equation in equations(jaxpr))


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


@pytest.mark.parametrize(("remat", "kept"), [("full", 0), ("attention", 0), ("dots", 2)])
def test_the_branch_of_the_last_layer_leaves_nothing_but_what_is_kept(remat, kept):
    function, params = gradient(remat, only_keys_values=True)
    conds = [x for x in equations(jax.make_jaxpr(function)(params).jaxpr) if x.primitive.name == "cond"]
    hidden = [[x.aval.shape for x in cond.outvars].count((B, T, F)) for cond in conds]
    assert len(hidden) == 3  # forward, again, backward
    assert max(hidden) == kept  # gate and up, and none of the GELU's derivatives


def test_a_branch_that_is_computed_again_changes_no_gradient():
    (plain, params), (full, _) = (gradient(remat, only_keys_values=True) for remat in ("none", "full"))
    found, expected = jax.jit(full)(params), jax.jit(plain)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
