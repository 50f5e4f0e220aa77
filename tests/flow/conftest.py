import jax
import jax.numpy as jnp
import pytest

from pizero_jax.flow.predictions import Ends


@pytest.fixture(autouse=True)
def double_precision():
    """Identities hold to the last digits."""
    with jax.enable_x64(True):
        yield


class Mixture:
    """Data of one dimension from sum_k w_k N(m_k, s_k^2), and what is best to predict at a point of any path."""

    def __init__(self, weights, means, stds):
        self.weights, self.means, self.stds = (jnp.array(x) for x in (weights, means, stds))

    def draw(self, key, n):
        of, noise = jax.random.split(key)
        k = jax.random.choice(of, len(self.weights), (n,), p=self.weights)
        return self.means[k] + self.stds[k] * jax.random.normal(noise, (n,))

    def denoise(self, path):
        def ends(x, t):
            a, b = path.alpha(t), path.sigma(t)
            variance = (a * self.stds) ** 2 + b**2
            centred = x[..., None] - a * self.means
            r = jax.nn.softmax(jnp.log(self.weights) - (jnp.log(variance) + centred**2 / variance) / 2, axis=-1)
            x_0 = jnp.sum(r * (self.means + a * self.stds**2 / variance * centred), axis=-1)
            return Ends(x_0, jnp.sum(r * b / variance * centred, axis=-1))

        return ends


@pytest.fixture
def mixture():
    return Mixture([0.5, 0.5], [-1.0, 1.0], [0.3, 0.5])


@pytest.fixture
def gaussian():
    """N(0.7, 0.4^2)."""
    return Mixture([1.0], [0.7], [0.4])
