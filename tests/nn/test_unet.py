import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.config import UnetConfig
from pizero_jax.nn.unet import Doubled, FilmBlock, Unet, windows

KEY = jax.random.key(0)
SMALL = UnetConfig(widths=(8, 16), kernel=3, groups=4, time=8)


@pytest.mark.parametrize(
    ("widths", "time", "condition", "parameters"),
    [((512, 1024, 2048), 128, 132, 251_511_938), ((256, 512, 1024), 256, 40, 65_783_298)],
    ids=["PushT from pictures", "PushT from states"],
)
def test_the_published_networks_have_their_numbers_of_parameters(widths, time, condition, parameters):
    network = Unet(UnetConfig(widths=widths, kernel=5, groups=8, time=time), "float32")
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, 16, 2)), jnp.zeros(1), jnp.zeros((1, condition)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters


@pytest.fixture(scope="module")
def unet(random_params):
    """A function of (x, t, condition)."""
    network = Unet(SMALL, "float32")
    empty = SimpleNamespace(init=lambda key: network.init(key, jnp.zeros((1, 8, 3)), jnp.zeros(1), jnp.zeros((1, 5))))
    return jax.jit(functools.partial(network.apply, random_params(empty)))


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(KEY, 3)
    return jax.random.normal(keys[0], (2, 8, 3)), jnp.array([0.2, 0.7]), jax.random.normal(keys[2], (2, 5))


def test_chunk_time_and_condition_all_matter_to_every_step(unet, inputs):
    x, t, condition = inputs
    before = unet(x, t, condition)
    assert before.shape == x.shape
    for changed in [(x[::-1], t, condition), (x, t[::-1], condition), (x, t, condition[::-1])]:
        assert np.all(np.abs(unet(*changed) - before).max(axis=2) > 1e-4)


def test_rows_do_not_see_each_other(unet, inputs):
    alone = unet(*(x[1:] for x in inputs))
    np.testing.assert_allclose(unet(*inputs)[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def block(random_params):
    network = FilmBlock(8, SMALL, "float32")
    x, condition = jax.random.normal(KEY, (1, 6, 8)), jax.random.normal(jax.random.key(1), (1, 5))
    return network, random_params(SimpleNamespace(init=lambda key: network.init(key, x, condition)["params"])), x


def film(params, scale, shift):
    """The block's parameters, its condition's map being a constant."""
    bias = jnp.concatenate([jnp.full(8, scale), jnp.full(8, shift)]).astype(jnp.float32)
    return params | {"film": {"kernel": jnp.zeros((5, 16)), "bias": bias}}


def test_the_condition_scales_and_shifts_between_the_convolutions(block):
    network, params, x = block
    condition = jnp.ones((1, 5))

    @jax.jit
    def features(params):
        """What goes into the second convolution."""
        _, sown = network.apply({"params": params}, x, condition, capture_intermediates=True, mutable=["intermediates"])
        return sown["intermediates"]["before"]["__call__"][0], sown["intermediates"]["after"]["conv"]["__call__"][0]

    h, _ = features(film(params, 0.0, 0.0))
    kernel, bias = params["after"]["conv"]["kernel"], params["after"]["conv"]["bias"]

    def convolved(h):
        return jnp.einsum("BTkd,kdD->BTD", windows(h, 3), kernel) + bias

    for scale, shift in [(0.0, 0.0), (-1.0, 0.3), (0.7, -2.0)]:
        unchanged, found = features(film(params, scale, shift))
        np.testing.assert_allclose(unchanged, h, rtol=1e-6)
        np.testing.assert_allclose(found, convolved(h * (1 + scale) + shift), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2)])
def test_linear_maps_of_windows_are_convolutions(size, stride):
    x, kernel = jax.random.normal(KEY, (2, 8, 3)), jax.random.normal(jax.random.key(1), (size, 3, 4))
    ours = jnp.einsum("BTkd,kdD->BTD", windows(x, size, stride), kernel)
    around = [(size // 2, size // 2)]
    theirs = jax.lax.conv_general_dilated(x, kernel, (stride,), around, dimension_numbers=("NWC", "WIO", "NWC"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_doubling_is_the_transposed_convolution():
    x, kernel = jax.random.normal(KEY, (2, 8, 3)), jax.random.normal(jax.random.key(1), (4, 3, 5))
    ours = Doubled(5, "float32").apply({"params": {"kernel": kernel, "bias": jnp.arange(5.0)}}, x)
    # The gradient of a convolution that halves, which is what its name means.
    halve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(2,), padding=[(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")
    )
    _, pull = jax.vjp(lambda y: halve(y, kernel.swapaxes(1, 2)), jnp.zeros((2, 16, 5)))
    np.testing.assert_allclose(ours, pull(x)[0] + jnp.arange(5.0), rtol=1e-5, atol=1e-5)
