"""The same expert under every path, prediction and solver, by its config alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.config import LossConfig
from pizero_jax.flow import predictions
from pizero_jax.flow.paths import PATHS
from pizero_jax.flow.solvers import TABLEAUS

KEY = jax.random.key(0)
PLAIN = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
HEADS = [("straight", "u"), ("straight", "x0"), ("ddpm_cosine", "eps"), ("vp_linear", "v"), ("trigonometric", "u")]


def head(tiny, path="straight", prediction="u", solver="euler", **other):
    config = dataclasses.replace(tiny, solver=solver, **other)
    return policies.make(config, dataclasses.replace(PLAIN, path=path, prediction=prediction))


@pytest.fixture
def noise(tiny_batch):
    return jax.random.normal(jax.random.key(1), tiny_batch.actions.shape)


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_the_loss_is_the_error_of_what_is_predicted(tiny, tiny_params, tiny_batch, noise, path, prediction):
    """Of an expert that says 0 everywhere: the mean square of its target."""
    silent = tiny_params | {"action_out": jax.tree.map(jnp.zeros_like, tiny_params["action_out"])}
    time = jnp.array([0.2, 0.5, 0.9])
    values, weights, _ = head(tiny, path, prediction).loss(silent, KEY, tiny_batch, noise=noise, time=time)
    t = time[:, None, None]
    target = predictions.target(prediction, PATHS[path], tiny_batch.actions, noise, t)
    np.testing.assert_allclose(values, np.mean(np.square(target), axis=-1), rtol=2e-5)
    assert weights.all()


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_samples_follow_the_velocity_of_the_straight_path(tiny, tiny_params, tiny_batch, noise, path, prediction):
    """Euler's steps in the rescaled path, written out, whatever the head."""
    policy = head(tiny, path, prediction)
    cache = policy.prefix(tiny_params, tiny_batch.observation)
    times = 1 - jnp.arange(4) / 3
    x, taus = noise / PATHS[path].size(times[0]), PATHS[path].tau(times)
    for t, s in zip(taus[:-1], taus[1:], strict=True):
        x = x + (s - t) * policy.velocity(tiny_params, cache, x, t)
    sampled = policy.act(tiny_params, KEY, tiny_batch.observation, noise=noise, num_steps=3)
    np.testing.assert_allclose(sampled, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_ddim_without_noise_is_euler(tiny, tiny_params, tiny_batch, noise, path, prediction):
    samples = [
        head(tiny, path, prediction, solver).act(tiny_params, KEY, tiny_batch.observation, noise=noise, num_steps=4)
        for solver in ("ddim", "euler")
    ]
    scale = np.abs(samples[1]).max()
    np.testing.assert_allclose(samples[0], samples[1], atol=2e-4 * scale)


def test_ddpm_draws_fresh_noise_by_its_key(tiny, tiny_params, tiny_batch, noise):
    policy = head(tiny, "ddpm_cosine", "eps", "ddpm")

    def sample(key):
        return policy.act(tiny_params, key, tiny_batch.observation, noise=noise, num_steps=4)

    np.testing.assert_array_equal(sample(KEY), sample(KEY))
    assert np.abs(sample(KEY) - sample(jax.random.key(1))).max() > 0.01


@pytest.mark.parametrize("solver", TABLEAUS)
def test_a_config_knows_how_often_its_solver_calls_the_expert(tiny, tiny_params, tiny_batch, noise, solver):
    config = dataclasses.replace(tiny, solver=solver, num_steps=3)
    assert config.calls == 3 * len(TABLEAUS[solver].stages)
    sampled = head(tiny, solver=solver).act(tiny_params, KEY, tiny_batch.observation, noise=noise, num_steps=3)
    assert np.isfinite(sampled).all()
