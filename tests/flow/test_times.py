import jax
import jax.numpy as jnp
import numpy as np

from pizero_jax.flow.times import shifted_beta, shifted_beta_cdf, shifted_beta_quantile

N = 200_000


def test_draws_follow_the_distribution():
    t = np.sort(shifted_beta(jax.random.key(0), (N,)))
    expected = ((t - 0.001) / 0.999) ** 1.5  # of Beta(1.5, 1) on [0.001, 1]
    distance = np.max(np.abs(expected - (np.arange(N) + 0.5) / N))
    assert distance < 1.95 / np.sqrt(N)  # Kolmogorov and Smirnov: exceeded once in a thousand seeds
    # Moments in closed form; three standard errors.
    assert abs(t.mean() - 0.6004) < 3 * np.sqrt(0.068434 / N)
    assert abs(t.var() - 0.068434) < 3 * 0.068434 * np.sqrt(1.2 / N)
    assert abs(np.mean(t > 0.5) - 0.647) < 3 * np.sqrt(0.647 * 0.353 / N) + 5e-4  # 0.647 is rounded
    assert t[0] >= 0.001
    assert t[-1] <= 1


def test_quantile_and_distribution_are_inverse_to_each_other():
    share = jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(shifted_beta_cdf(shifted_beta_quantile(share)), share, atol=1e-6)
    t = jnp.linspace(0.001, 1, 101)
    np.testing.assert_allclose(shifted_beta_quantile(shifted_beta_cdf(t)), t, atol=1e-6)
