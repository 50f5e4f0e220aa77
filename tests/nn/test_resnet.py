from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.config import ResNetConfig
from pizero_jax.nn.resnet import ResNet, spatial_softmax

KEY = jax.random.key(0)
PUBLISHED = ResNetConfig(widths=(64, 128, 256, 512), depth=2)


def test_resnet_18_has_its_published_number_of_parameters():
    shapes = jax.eval_shape(ResNet(PUBLISHED, "float32").init, KEY, jnp.zeros((1, 224, 224, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 11_176_512


@pytest.mark.parametrize(("side", "left"), [(224, 7), (96, 3), (84, 3), (64, 2), (480, 15)])
def test_a_picture_is_halved_five_times(side, left):
    network = ResNet(PUBLISHED, "float32")
    out, _ = jax.eval_shape(network.init_with_output, KEY, jnp.zeros((2, side, side, 3)))
    assert out.shape == (2, left, left, 512)


def test_rows_do_not_see_each_other(random_params):
    """As they would in norms of batches."""
    network = ResNet(ResNetConfig(widths=(16, 32), depth=1), "float32")
    pictures = jax.random.uniform(KEY, (3, 16, 16, 3), minval=-1)
    params = random_params(SimpleNamespace(init=lambda key: network.init(key, pictures)))
    apply = jax.jit(network.apply)
    together, alone = apply(params, pictures), apply(params, pictures[1:2])
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-5, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_a_single_bright_place_is_found_where_it_is():
    features = np.zeros((1, 3, 5, 2), np.float32)
    features[0, 2, 1, 0] = features[0, 0, 4, 1] = 100
    np.testing.assert_allclose(spatial_softmax(features)[0], [[-0.5, 1], [1, -1]], atol=1e-6)


def test_of_two_places_the_mean_by_their_shares_is_found():
    features = np.full((1, 1, 3, 1), -np.inf, np.float32)
    features[0, 0, 0, 0], features[0, 0, 2, 0] = np.log(1), np.log(3)
    across, _ = spatial_softmax(features)[0, 0]
    assert across == pytest.approx(-1 * 0.25 + 1 * 0.75)
