import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow import elbo
from pizero_jax.flow.paths import PATHS

MEAN, STD = 0.7, 0.4
ENTROPY = 0.5 * np.log(2 * np.pi * np.e * STD**2)


def grid(n):
    return 1 - jnp.arange(n + 1) / n


def data(n):
    """Evenly spread over the distribution, so that its moments are exact."""
    return MEAN + STD * jax.scipy.special.ndtri((jnp.arange(n) + 0.5) / n)


def test_the_bound_by_drawing_is_the_one_in_closed_form(gaussian):
    path, times, n = PATHS["ddpm_cosine"], grid(100), 20_000
    eps = jax.random.normal(jax.random.key(1), (100, n))
    drawn = elbo.estimate(gaussian.denoise(path), path, data(n), eps, times)
    exact = elbo.gaussian(path, MEAN, STD, times)
    # A mean square of n draws is known to sqrt(2 / n) = 1%; four times that, as 99 are looked at.
    np.testing.assert_allclose(drawn.steps, exact.steps, rtol=0.04)
    error = 0.01 * float(jnp.sqrt(jnp.sum(exact.steps**2) + 0.25))
    assert float(drawn.total) == pytest.approx(float(exact.total), abs=3 * error)
    assert float(drawn.prior) == pytest.approx(float(exact.prior), abs=1e-6)


def test_no_model_beats_the_entropy_and_finer_steps_approach_it():
    """Steps of equal ratio of signal to noise: each costs half of what it exceeds its own logarithm by."""
    path, gaps = PATHS["vp_linear"], []
    for n in (50, 100, 200, 400):
        snr = jnp.exp(jnp.linspace(jnp.log(path.snr(1.0)), jnp.log(1e6), n))
        times = jnp.append(path.time_at(1 / (1 + jnp.sqrt(snr))), 0.0)
        gaps.append(float(elbo.gaussian(path, MEAN, STD, times).total) - ENTROPY)
    assert min(gaps) > 0
    np.testing.assert_allclose(np.array(gaps[1:]) / gaps[:-1], 0.5, atol=0.05)


def test_a_worse_denoiser_costs_more(gaussian):
    path, times = PATHS["ddpm_cosine"], grid(100)
    x_0, eps = data(5_000), jax.random.normal(jax.random.key(1), (100, 5_000))
    best = gaussian.denoise(path)

    def worse(x, t):
        found = best(x, t)
        return found._replace(x_0=found.x_0 + 0.1)

    gap = elbo.estimate(worse, path, x_0, eps, times).total - elbo.estimate(best, path, x_0, eps, times).total
    # The steps' ratios of signal to noise add up to that of the last, which the data's own term has once more.
    assert float(gap) == pytest.approx(0.1**2 * float(path.snr(times[-2])), rel=0.05)
