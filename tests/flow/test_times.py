import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow.paths import PATHS
from pizero_jax.flow.times import SHIFTED_BETA, TIMES

N = 200_000


@pytest.mark.parametrize("name", TIMES)
def test_draws_follow_the_distribution(name):
    t = np.sort(TIMES[name].draw(jax.random.key(0), (N,)))
    distance = np.max(np.abs(TIMES[name].cdf(t) - (np.arange(N) + 0.5) / N))
    assert distance < 1.95 / np.sqrt(N)  # Kolmogorov and Smirnov: exceeded once in a thousand seeds


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_a_velocity_at_the_first_draw(monkeypatch, name, path):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.zeros(shape, jnp.float32))
    t = TIMES[name].draw(jax.random.key(0), ())
    assert t.dtype == jnp.float32
    assert t > 0
    assert np.isfinite(PATHS[path].slopes(t)).all()


@pytest.mark.parametrize("name", TIMES)
def test_the_density_is_the_slope_of_the_distribution(name):
    t = jnp.linspace(0.01, 0.99, 50)
    slope = jax.vmap(jax.grad(TIMES[name].cdf))(t)
    np.testing.assert_allclose(TIMES[name].pdf(t), slope, rtol=1e-9)


@pytest.mark.parametrize("name", TIMES)
def test_quantile_and_distribution_are_inverse_to_each_other(name):
    share = jnp.linspace(0.001, 0.999, 101)
    np.testing.assert_allclose(TIMES[name].cdf(TIMES[name].quantile(share)), share, atol=1e-9)


def test_those_of_pi0_are_shifted_beta():
    t = np.sort(SHIFTED_BETA.draw(jax.random.key(1), (N,)))
    np.testing.assert_allclose(SHIFTED_BETA.cdf(t), ((t - 0.001) / 0.999) ** 1.5)  # of Beta(1.5, 1) on [0.001, 1]
    # Moments in closed form; three standard errors.
    assert abs(t.mean() - 0.6004) < 3 * np.sqrt(0.068434 / N)
    assert abs(t.var() - 0.068434) < 3 * 0.068434 * np.sqrt(1.2 / N)
    assert abs(np.mean(t > 0.5) - 0.647) < 3 * np.sqrt(0.647 * 0.353 / N) + 5e-4  # 0.647 is rounded
    assert t[0] >= 0.001
    assert t[-1] <= 1
