import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow import solvers
from pizero_jax.flow.paths import PATHS, STRAIGHT
from pizero_jax.flow.predictions import Ends, denoiser, target
from pizero_jax.flow.solvers import (
    ddim,
    ddpm,
    even_times,
    flow_sde,
    sample_ode,
    sample_steps,
    solve,
    solve_path,
    straightened,
)

MEAN, STD = 0.7, 0.4
KINDS = ["u", "eps", "x0", "v"]
STEPS = {"ddpm": ddpm, "ddim": ddim(0.0), "ddim of eta 1": ddim(1.0)}
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
CALLS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


@pytest.mark.parametrize("method", ORDERS)
def test_the_order_of_each_method_on_a_mixture(method, mixture):
    velocity, noise = straightened(mixture.denoise(STRAIGHT), STRAIGHT), jax.random.normal(jax.random.key(0), (500,))
    exact = solve("rk4", velocity, noise, even_times(2000))
    counts = (40, 80, 160)
    errors = [jnp.mean(jnp.abs(solve(method, velocity, noise, even_times(n)) - exact)) for n in counts]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, ORDERS[method], atol=0.12)


@pytest.mark.parametrize(("num_steps", "std"), [(1, 0.0), (2, 0.1379), (5, 0.2852), (10, 0.3391)])
def test_euler_keeps_the_mean_of_a_gaussian_and_shrinks_its_deviation_as_known(num_steps, std, gaussian):
    # The map is affine: slope and offset from two points. The slope is the product over steps of
    # 1 - h (t - (1 - t) s^2) / V.
    velocity = straightened(gaussian.denoise(STRAIGHT), STRAIGHT)
    low, high = solve("euler", velocity, jnp.array([-1.0, 1.0]), even_times(num_steps))
    h = 1 / num_steps
    t = 1 - h * np.arange(num_steps)
    slope = np.prod(1 - h * (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2))
    assert float(high + low) / 2 == pytest.approx(MEAN, abs=1e-9)
    assert float(high - low) / 2 == pytest.approx(slope, abs=1e-9)
    assert slope == pytest.approx(std, abs=5e-5)  # four published digits


@pytest.mark.parametrize("method", CALLS)
def test_calls_of_the_velocity(method):
    times = []

    def velocity(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t, ordered=True)
        return jnp.zeros_like(x)

    jax.block_until_ready(solve(method, velocity, jnp.zeros(2), even_times(5)))
    jax.effects_barrier()
    assert len(times) == 5 * CALLS[method]
    if method == "euler":  # from noise to just before data
        np.testing.assert_allclose(times, 1 - np.arange(5) / 5, atol=1e-12)


def test_the_path_of_a_constant_velocity_is_straight_and_ends_where_the_solver_does(mixture):
    path = solve_path("euler", lambda x_t, t: jnp.full_like(x_t, 2.0), jnp.array([1.0, -3.0]), even_times(4))
    np.testing.assert_allclose(path, [[1, -3], [0.5, -3.5], [0, -4], [-0.5, -4.5], [-1, -5]], atol=1e-12)
    velocity, noise = straightened(mixture.denoise(STRAIGHT), STRAIGHT), jnp.linspace(-2, 2, 9)
    path = solve_path("heun", velocity, noise, even_times(5))
    np.testing.assert_array_equal(path[-1], solve("heun", velocity, noise, even_times(5)))


def test_the_state_keeps_the_precision_of_the_noise():
    out = solve("euler", lambda x, t: x.astype(jnp.bfloat16), jnp.ones(2, jnp.float32), even_times(3))
    assert out.dtype == jnp.float32


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("pair", [(0.53, 0.52), (0.9, 0.35)], ids=["neighbours", "strided"])
def test_ddim_of_eta_1_is_ddpm(name, pair):
    path, (t, s) = PATHS[name], map(jnp.float64, pair)
    x_0, eps, z = jax.random.normal(jax.random.key(0), (3, 7))
    x_t = path.point(x_0, eps, t)
    np.testing.assert_allclose(
        ddim(1.0)(path, Ends(x_0, eps), x_t, t, s, z), ddpm(path, Ends(x_0, eps), x_t, t, s, z), atol=1e-12
    )


def test_ddpm_has_the_published_form():
    """Mean by alpha_t, beta_t and the predicted noise; variance beta_t (1 - abar_s) / (1 - abar_t)."""
    path, k = PATHS["ddpm_cosine"], 50
    t, s = jnp.array((k + 1) / 100), jnp.array(k / 100)
    x_0, eps, z = jax.random.normal(jax.random.key(0), (3, 7))
    abar, before = path.alpha(t) ** 2, path.alpha(s) ** 2
    alpha, beta = abar / before, 1 - abar / before
    x_t = path.point(x_0, eps, t)
    mean = (x_t - beta / jnp.sqrt(1 - abar) * eps) / jnp.sqrt(alpha)
    expected = mean + jnp.sqrt(beta * (1 - before) / (1 - abar)) * z
    np.testing.assert_allclose(ddpm(path, Ends(x_0, eps), x_t, t, s, z), expected, atol=1e-12)


def test_ddim_without_noise_on_the_straight_path_is_euler(mixture):
    noise, times = jax.random.normal(jax.random.key(0), (50,)), even_times(7)
    denoise = mixture.denoise(STRAIGHT)
    stepped = sample_steps(ddim(0.0), denoise, STRAIGHT, noise, times, jax.random.key(1))
    np.testing.assert_allclose(stepped, sample_ode("euler", denoise, STRAIGHT, noise, times), atol=1e-12)


@pytest.mark.parametrize("name", ["ddpm_cosine", "vp_linear", "trigonometric"])
def test_ddim_without_noise_on_any_path_is_euler_on_the_straight_one(name, mixture):
    path, noise, times = PATHS[name], jax.random.normal(jax.random.key(0), (50,)), even_times(10)
    stepped = sample_steps(ddim(0.0), mixture.denoise(path), path, noise, times, jax.random.key(1))
    np.testing.assert_allclose(stepped, sample_ode("euler", mixture.denoise(path), path, noise, times), atol=1e-9)


HOWS = [*ORDERS, *STEPS, "flow SDE"]
# Every solver on every path, and every kind of prediction with each solver and on each path.
COMBINATIONS = [(p, KINDS[(i + j) % 4], how) for i, p in enumerate(PATHS) for j, how in enumerate(HOWS)]


@pytest.mark.parametrize(("name", "kind", "how"), COMBINATIONS)
def test_every_solver_reaches_the_data(name, kind, how, gaussian):
    """From exact predictions, in 100 steps: mean and deviation of the data."""
    path, noise, times = PATHS[name], jax.random.normal(jax.random.key(0), (4000,)), even_times(100)

    def predict(x, t):
        return target(kind, path, *gaussian.denoise(path)(x, t), t)

    denoise = denoiser(predict, kind, path)
    if how in ORDERS:
        found = sample_ode(how, denoise, path, noise, times)
    else:
        step = STEPS.get(how) or flow_sde(0.5)
        found = sample_steps(step, denoise, path, noise, times, jax.random.key(1))
    noise_error = 3 / np.sqrt(4000)
    assert float(found.mean()) == pytest.approx(MEAN, abs=STD * noise_error)
    # Steps of finite length shrink the deviation: Euler's by 3% on the straight path, by 6% where they are uneven.
    assert float(found.std()) == pytest.approx(STD, rel=0.06 + noise_error)


def test_the_flow_sde_keeps_the_marginals_as_steps_get_shorter(gaussian):
    noise, stds = jax.random.normal(jax.random.key(0), (50_000,)), []
    for n in (20, 80, 320):
        found = sample_steps(
            flow_sde(0.5), gaussian.denoise(STRAIGHT), STRAIGHT, noise, even_times(n), jax.random.key(1)
        )
        stds.append(float(found.std()))
    np.testing.assert_allclose(stds, [0.3835, 0.3980, 0.4006], atol=0.004)  # known; three standard errors are 0.004


def test_adaptive_steps_reach_what_many_equal_ones_do(mixture):
    pytest.importorskip("diffrax")
    velocity, noise = straightened(mixture.denoise(STRAIGHT), STRAIGHT), jax.random.normal(jax.random.key(0), (50,))
    found, steps = solvers.adaptive(velocity, noise, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found, solve("rk4", velocity, noise, even_times(2000)), atol=1e-6)
    assert 10 < int(steps) < 500
