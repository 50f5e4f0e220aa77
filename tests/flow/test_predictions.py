import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow.paths import PATHS, STRAIGHT
from pizero_jax.flow.predictions import denoiser, ends, error_ratio, guided, target

KINDS = ["u", "eps", "x0", "v"]
T = np.linspace(0.02, 0.95, 32)


@pytest.fixture
def pairs():
    return jax.random.normal(jax.random.key(0), (2, 32))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_data_and_noise_are_found_in_every_prediction(name, kind, pairs):
    path, (x_0, eps) = PATHS[name], pairs
    found = ends(kind, path, target(kind, path, x_0, eps, T), path.point(x_0, eps, T), T)
    np.testing.assert_allclose(found.x_0, x_0, atol=1e-10)
    np.testing.assert_allclose(found.eps, eps, atol=1e-10)


def test_the_velocity_is_the_derivative_of_the_point(pairs):
    for path in PATHS.values():
        _, slope = jax.jvp(lambda t, path=path: path.point(*pairs, t), (jnp.array(T),), (jnp.ones_like(T),))
        np.testing.assert_allclose(target("u", path, *pairs, T), slope, rtol=1e-12)
    np.testing.assert_allclose(target("u", STRAIGHT, *pairs, T), pairs[1] - pairs[0], rtol=1e-12)


def test_known_forms(pairs):
    """On the straight path and on one that preserves the variance."""
    x_0, eps = pairs
    x, u = STRAIGHT.point(x_0, eps, T), eps - x_0
    np.testing.assert_allclose(ends("u", STRAIGHT, u, x, T), [x - T * u, x + (1 - T) * u])
    path = PATHS["vp_cosine"]
    x, v = path.point(x_0, eps, T), target("v", path, x_0, eps, T)
    a, b = path.alpha(T), path.sigma(T)
    np.testing.assert_allclose(ends("v", path, v, x, T), [a * x - b * v, b * x + a * v], rtol=1e-10)
    np.testing.assert_allclose(ends("eps", path, eps, x, T).x_0, (x - b * eps) / a)


def test_losses_of_one_error(pairs):
    """A wrong guess of the data, and the noise that goes with it, are an error of each kind."""
    x_0, eps = pairs
    wrong = x_0 + 0.1
    for path in PATHS.values():
        noise = (path.point(x_0, eps, T) - path.alpha(T) * wrong) / path.sigma(T)
        errors = {k: (target(k, path, wrong, noise, T) - target(k, path, x_0, eps, T)) ** 2 for k in KINDS}
        for kind in KINDS:
            np.testing.assert_allclose(errors[kind], errors["x0"] * error_ratio(kind, "x0", path, T), rtol=1e-7)
    np.testing.assert_allclose(error_ratio("u", "x0", STRAIGHT, T), 1 / T**2)
    np.testing.assert_allclose(error_ratio("u", "eps", STRAIGHT, T), 1 / (1 - T) ** 2)
    path = PATHS["vp_linear"]
    np.testing.assert_allclose(error_ratio("eps", "x0", path, T), path.snr(T), rtol=1e-10)
    np.testing.assert_allclose(error_ratio("v", "x0", path, T), 1 + path.snr(T), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_denoising_stays_finite_from_end_to_end(kind):
    for path in PATHS.values():
        for t in (0.0, 1.0):
            found = denoiser(lambda x, t: 0.5 * x, kind, path)(jnp.ones(3), t)
            assert np.isfinite(found).all()


def test_clipped_data_and_their_noise_still_make_the_point():
    path, x, t = PATHS["ddpm_cosine"], jnp.array([-3.0, 0.2, 2.0]), 0.6
    found = denoiser(lambda x, t: jnp.zeros_like(x), "eps", path, clip=1.0)(x, t)
    assert np.abs(found.x_0).max() == 1
    np.testing.assert_allclose(path.point(*found, t), x)
    assert (found.eps[0], found.eps[2]) != (0, 0)


def test_guidance_at_its_limits():
    one, other = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    np.testing.assert_array_equal(guided(one, other, 0.0), other)
    np.testing.assert_array_equal(guided(one, other, 1.0), one)
    np.testing.assert_array_equal(guided(one, other, 3.0), other + 3 * (one - other))


def test_guidance_of_gaussians_is_linear():
    """Velocities of N(1, 1) and N(0, 1), whose slopes agree: guided they belong to N(w, 1)."""

    def velocity(x, t, mean):
        variance = (1 - t) ** 2 + t**2
        return (x - (1 - t) * mean) * (2 * t - 1) / variance - mean

    x = jnp.linspace(-2, 2, 9)
    for w in (0.5, 1.5, 4.0):
        both = guided(velocity(x, 0.4, 1.0), velocity(x, 0.4, 0.0), w)
        np.testing.assert_allclose(both, velocity(x, 0.4, w), atol=1e-12)
