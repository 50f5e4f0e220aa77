import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.flow.real_time import Plan, begun, guided, held, overlap_weights
from pizero_jax.flow.solvers import even_times, solve

C, DELAY = 6, 2


class GaussianPolicy:
    """Chunks [C, 1] from N(m, S), S_ij = rho^|i - j|, and the exact velocity towards them."""

    def __init__(self, rho):
        i = np.arange(C)
        self.mean, self.covariance = np.sin(i), float(rho) ** np.abs(i[:, None] - i)

    def velocity(self, x_t, t):
        t = jnp.broadcast_to(jnp.atleast_2d(t), x_t.shape[:2])  # [B, C]
        a = (1 - t)[:, :, None]
        of_x_t = a * self.covariance * a.swapaxes(1, 2) + jnp.square(t)[:, :, None] * jnp.eye(C)
        z = jnp.linalg.solve(of_x_t, x_t - a * self.mean[:, None])
        return t[..., None] * z - self.mean[:, None] - self.covariance @ (a * z)

    def conditional_mean(self, y):
        S, d = self.covariance, DELAY
        return self.mean[d:] + S[d:, :d] @ np.linalg.solve(S[:d, :d], y[:d] - self.mean[:d])


@pytest.fixture
def noise():
    half = jax.random.normal(jax.random.key(0), (1000, C, 1))
    return jnp.concatenate([half, -half])  # its mean is zero


@pytest.fixture
def planned():
    return jnp.array([1.5, 2.0, 0, 0, 0, 0])[None, :, None]


def test_the_weights_have_the_published_form():
    """H = 10, d = 2, 6 left of the chunk before: the values of the paper's equation, to four digits."""
    weights = overlap_weights(Plan(jnp.zeros((3, 10, 1)), left=jnp.array([6, 0, 10]), delay=jnp.array([2, 0, 10])))
    np.testing.assert_allclose(weights[0], [1, 1, 0.5706, 0.2871, 0.1145, 0.0258, 0, 0, 0, 0], atol=5e-5)
    np.testing.assert_array_equal(weights[1], 0)
    np.testing.assert_array_equal(weights[2], 1)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_guidance_of_weight_zero_is_the_plain_sampler(rho, noise, planned):
    policy, times = GaussianPolicy(rho), even_times(5)
    led = solve("euler", guided(policy.velocity, planned, jnp.zeros((1, C)), 5.0), noise, times)
    np.testing.assert_array_equal(led, solve("euler", policy.velocity, noise, times))


def test_what_is_independent_of_the_plan_stays_as_it_was(noise, planned):
    policy, times, weights = GaussianPolicy(0.0), even_times(10), jnp.arange(C)[None] < DELAY
    led = solve("euler", guided(policy.velocity, planned, weights, 10.0), noise, times)
    plain = solve("euler", policy.velocity, noise, times)
    np.testing.assert_array_equal(led[:, DELAY:], plain[:, DELAY:])
    np.testing.assert_allclose(led[:, :DELAY], jnp.broadcast_to(planned, led.shape)[:, :DELAY], atol=2e-3)


def test_a_correlated_policy_follows_what_is_executed(noise, planned):
    """What is executed is met ever closer; the rest comes near its mean given that, less than 40% of the way off.

    It does not get there with more steps: the guidance takes the data for independent, as the paper's does.
    """
    policy, weights = GaussianPolicy(0.9), jnp.arange(C)[None] < DELAY
    goal = policy.conditional_mean(planned[0, :, 0])
    plain = solve("euler", policy.velocity, noise, even_times(20)).mean(axis=0)[DELAY:, 0]
    missed = []
    for n in (5, 20):
        led = solve("euler", guided(policy.velocity, planned, weights, float(n)), noise, even_times(n))
        missed.append(np.abs(led - planned)[:, :DELAY].mean())
        rest = led.mean(axis=0)[DELAY:, 0]
        assert np.abs(rest - goal).max() < 0.4 * np.abs(plain - goal).max()
    assert missed[1] < 0.1 * missed[0]


def test_a_policy_that_is_shown_what_is_executed_samples_the_rest_given_it(noise, planned):
    """Exactly: mean and variance of the conditional Gaussian, as far as 50 of Euler's steps go."""
    policy, executed = GaussianPolicy(0.9), jnp.broadcast_to(jnp.arange(C) < DELAY, noise.shape[:2])
    plan = jnp.broadcast_to(planned, noise.shape)
    sampled = solve("euler", held(policy.velocity, plan, executed), begun(noise, plan, executed), even_times(50))
    np.testing.assert_array_equal(sampled[:, :DELAY], plan[:, :DELAY])
    rest = sampled[:, DELAY:, 0]
    np.testing.assert_allclose(rest.mean(axis=0), policy.conditional_mean(planned[0, :, 0]), atol=1e-6)
    S, d = policy.covariance, DELAY
    left = np.diag(S[d:, d:] - S[d:, :d] @ np.linalg.solve(S[:d, :d], S[:d, d:]))
    np.testing.assert_allclose(rest.var(axis=0), left, rtol=0.12)


def test_nothing_executed_is_the_plain_sampler(noise, planned):
    policy, nothing = GaussianPolicy(0.9), jnp.zeros((len(noise), C), bool)
    field, start = held(policy.velocity, planned, nothing), begun(noise, planned, nothing)
    np.testing.assert_array_equal(
        solve("euler", field, start, even_times(5)), solve("euler", policy.velocity, noise, even_times(5))
    )
