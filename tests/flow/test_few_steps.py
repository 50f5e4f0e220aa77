import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow.few_steps import mean_velocity, two_halves
from pizero_jax.flow.solvers import even_times, solve

MEAN, STD = 0.7, 0.4  # of the data
SPANS = [1.0, 0.5, 0.125]


def variance(t):
    return jnp.square(STD * (1 - t)) + jnp.square(t)


def velocity(x_t, t):
    return (x_t - (1 - t) * MEAN) * (t - (1 - t) * STD**2) / variance(t) - MEAN


def exact(x_t, t, span):
    """From where the flow of N(`MEAN`, `STD`^2) goes in closed form; over no time at all, its velocity."""
    s, some = t - span, jnp.where(span > 0, span, 1)
    x_s = (1 - s) * MEAN + jnp.sqrt(variance(s) / variance(t)) * (x_t - (1 - t) * MEAN)
    return jnp.where(span > 0, (x_t - x_s) / some, velocity(x_t, t))


@pytest.fixture
def points():
    """From noise to near data; a span reaches 0 at most."""
    t = jnp.array([1.0, 0.8, 0.5, 0.3])[:, None]
    return jax.random.normal(jax.random.key(0), (4, 100)), t


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_the_exact_mean_velocity_is_what_it_should_be(points, share):
    x_t, t = points
    u, target = jax.jit(lambda x_t: mean_velocity(exact, x_t, velocity(x_t, t), t, share * t))(x_t)
    np.testing.assert_allclose(u, exact(x_t, t, share * t), rtol=1e-12)
    np.testing.assert_allclose(target, u, rtol=0, atol=1e-10)


@pytest.mark.parametrize("wrong", [lambda *at: exact(*at) + 0.1 * at[2], lambda x_t, t, span: velocity(x_t, t)])
def test_another_function_is_not(points, wrong):
    x_t, t = points
    u, target = mean_velocity(wrong, x_t, velocity(x_t, t), t, t)
    assert np.abs(target - u).mean() > 0.05


def test_over_no_time_at_all_it_should_be_the_velocity(points):
    x_t, t = points
    v_t = jax.random.normal(jax.random.key(1), x_t.shape)
    _, target = mean_velocity(lambda x_t, t, span: x_t * t + span, x_t, v_t, t, jnp.zeros_like(t))
    np.testing.assert_array_equal(target, v_t)


@pytest.mark.parametrize("span", SPANS)
def test_two_exact_halves_are_the_exact_whole(points, span):
    x_t, t = points
    span = span * t
    np.testing.assert_allclose(two_halves(exact, x_t, t, span, 0.0), exact(x_t, t, span), rtol=0, atol=1e-12)


def test_the_smallest_halves_are_steps_of_the_velocity(points):
    x_t, t = points
    span = jnp.full_like(t, 0.25)
    by_hand = x_t - 0.125 * velocity(x_t, t)
    by_hand = by_hand - 0.125 * velocity(by_hand, t - 0.125)
    np.testing.assert_allclose(x_t - span * two_halves(exact, x_t, t, span, 0.125), by_hand, atol=1e-12)


def test_no_gradient_flows_through_what_should_be(points):
    x_t, t = points

    def targets(scale):
        def u(*at):
            return scale * exact(*at)

        return (mean_velocity(u, x_t, x_t, t, t)[1] + two_halves(u, x_t, t, t, 0.0)).sum()

    assert jax.grad(targets)(1.0) == 0


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_steps_of_the_exact_mean_velocity_end_in_the_data(points, num_steps):
    """Whatever their number, where the flow's own velocity gives the mean alone in one step."""
    noise, _ = points
    end = solve("euler", lambda x_t, t: exact(x_t, t, jnp.full_like(t, 1 / num_steps)), noise, even_times(num_steps))
    np.testing.assert_allclose(end, MEAN + STD * noise, atol=1e-12)
    np.testing.assert_allclose(solve("euler", velocity, noise, even_times(1)), MEAN, atol=1e-12)
