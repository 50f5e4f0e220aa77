import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow.paths import PATHS, STRAIGHT, cosine_betas, linear_betas, table

T = np.linspace(0, 1, 41)
INNER = T[1:-1]


@pytest.mark.parametrize("name", PATHS)
def test_paths_begin_at_data_and_end_at_noise(name):
    path = PATHS[name]
    assert path.alpha(0.0) == 1
    assert path.sigma(0.0) == 0
    assert path.alpha(1.0) < 0.007
    assert path.sigma(1.0) == pytest.approx(1, abs=3e-5)
    assert (np.diff(path.alpha(T)) < 0).all()
    assert (np.diff(path.tau(T)) > 0).all()


@pytest.mark.parametrize("name", PATHS)
def test_noise_is_finite_in_float32_too(name):
    path, t = PATHS[name], jnp.float32(1)
    assert 0 <= abs(path.alpha(t)) < 0.007
    assert path.sigma(t) == pytest.approx(1, abs=3e-5)
    assert np.isfinite(path.slopes(t)).all()


@pytest.mark.parametrize("name", PATHS)
def test_times_of_the_straight_path_are_found_again(name):
    path = PATHS[name]
    np.testing.assert_allclose(path.time_at(path.tau(T)), T, atol=1e-7)  # near data, a small share of 1 - abar is left


@pytest.mark.parametrize("name", ["trigonometric", "ddpm_linear", "ddpm_cosine", "vp_linear", "vp_cosine"])
def test_data_of_unit_variance_keep_it(name):
    path = PATHS[name]
    np.testing.assert_allclose(path.alpha(T) ** 2 + path.sigma(T) ** 2, 1, rtol=1e-14)


@pytest.mark.parametrize("name", PATHS)
def test_slopes_are_derivatives(name):
    path, h, t = PATHS[name], 1e-6, INNER + 0.0007  # between the steps of tables
    for slope, function in zip(path.slopes(t), (path.alpha, path.sigma), strict=True):
        np.testing.assert_allclose(slope, (function(t + h) - function(t - h)) / (2 * h), rtol=1e-6, atol=1e-8)


def test_the_straight_path_is_that_of_flow_matching():
    x_0, eps = jax.random.normal(jax.random.key(0), (2, 3))
    np.testing.assert_allclose(STRAIGHT.point(x_0, eps, 0.3), 0.3 * eps + 0.7 * x_0)
    np.testing.assert_array_equal(STRAIGHT.slopes(T), [-np.ones(41), np.ones(41)])
    np.testing.assert_array_equal(STRAIGHT.tau(T), T)


def test_published_values_of_schedules():
    """Of diffusers' squaredcos_cap_v2 with 100 steps, and of DDPM."""
    cosine, betas = PATHS["ddpm_cosine"], cosine_betas()
    assert betas[0] == pytest.approx(6.3128e-4, rel=1e-4)
    assert betas[99] == 0.999
    abar = cosine.alpha((jnp.array([0, 50, 99]) + 1) / 100) ** 2
    np.testing.assert_allclose(abar, [0.99936872, 0.47826463, 2.429e-7], rtol=2e-4)
    assert float(PATHS["ddpm_linear"].alpha(1.0) ** 2) == pytest.approx(4.036e-5, rel=1e-3)


@pytest.mark.parametrize(("continuous", "betas"), [("vp_linear", linear_betas), ("vp_cosine", cosine_betas)])
def test_tables_tend_to_their_continuous_forms(continuous, betas):
    """The error halves with twice the steps; DDPM's betas are of 1,000 steps."""
    path, errors = PATHS[continuous], []
    for n in (1000, 2000, 4000):
        finer = table(betas(n) * (1000 / n if betas is linear_betas else 1))
        errors.append(float(jnp.max(jnp.abs(finer.alpha(INNER) - path.alpha(INNER)))))
    assert errors[0] < 2e-3
    if betas is linear_betas:
        np.testing.assert_allclose(np.array(errors[1:]) / errors[:-1], 0.5, atol=0.05)
    else:  # a product of ratios: exact
        assert errors[-1] < 1e-12
