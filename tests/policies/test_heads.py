"""The same network under every path, prediction and solver, by its config alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.config import AnyPolicyConfig, LossConfig
from pizero_jax.flow import predictions
from pizero_jax.flow.paths import PATHS
from pizero_jax.flow.solvers import TABLEAUS
from pizero_jax.policies import flow
from pizero_jax.policies.pi0 import Pi0

KEY = jax.random.key(0)
PLAIN = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
HEADS = [("straight", "u"), ("straight", "x0"), ("ddpm_cosine", "eps"), ("vp_linear", "v"), ("trigonometric", "u")]


class Small(nn.Module):
    """What `flow.make` asks of a network, in two layers: XLA compiles it in no time."""

    config: AnyPolicyConfig

    @nn.nowrap
    def read(self, observation):
        return observation.state

    @nn.compact
    def velocities(self, cache, x_t, t, steps=None):
        shape = x_t.shape[:-1]
        seen = jnp.broadcast_to(cache[:, None, None], (*shape, cache.shape[-1]))
        times = jnp.broadcast_to(t.reshape(*t.shape[:2], -1), shape)[..., None]
        hidden = jnp.tanh(nn.Dense(16, name="inner")(jnp.concatenate([x_t, seen, times], axis=-1)))
        return nn.Dense(x_t.shape[-1], name="action_out")(hidden)

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


def head(tiny, path="straight", prediction="u", solver="euler", network=Small, **other):
    config = dataclasses.replace(tiny, solver=solver, **other)
    return flow.make(network(config), dataclasses.replace(PLAIN, path=path, prediction=prediction))


@pytest.fixture(scope="module")
def params(tiny, random_params):
    return random_params(head(tiny))


def sample(policy, params, batch, noise, num_steps, key=KEY):
    act = jax.jit(functools.partial(policy.act, num_steps=num_steps))
    return act(params, key, batch.observation, noise=noise)


@pytest.fixture
def noise(tiny_batch):
    return jax.random.normal(jax.random.key(1), tiny_batch.actions.shape)


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_the_loss_is_the_error_of_what_is_predicted(tiny, params, tiny_batch, noise, path, prediction):
    """Of an expert that says 0 everywhere: the mean square of its target."""
    silent = params | {"action_out": jax.tree.map(jnp.zeros_like, params["action_out"])}
    time = jnp.array([0.2, 0.5, 0.9])
    loss = jax.jit(head(tiny, path, prediction).loss)
    values, weights, _ = loss(silent, KEY, tiny_batch, noise=noise, time=time)
    t = time[:, None, None]
    target = predictions.target(prediction, PATHS[path], tiny_batch.actions, noise, t)
    np.testing.assert_allclose(values, np.mean(np.square(target), axis=-1), rtol=2e-5)
    assert weights.all()


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_samples_follow_the_velocity_of_the_straight_path(tiny, params, tiny_batch, noise, path, prediction):
    """Euler's steps in the rescaled path, written out, whatever the head."""
    follows(head(tiny, path, prediction), params, tiny_batch, noise, path)


def test_so_do_those_of_pi0_s_expert(tiny, tiny_params, tiny_batch, noise):
    follows(head(tiny, "vp_linear", "v", network=Pi0), tiny_params, tiny_batch, noise, "vp_linear")


def follows(policy, params, tiny_batch, noise, path):
    times = 1 - jnp.arange(4) / 3

    @jax.jit
    def by_hand(params, noise):
        cache = policy.prefix(params, tiny_batch.observation)
        x, taus = noise / PATHS[path].size(times[0]), PATHS[path].tau(times)
        for t, s in zip(taus[:-1], taus[1:], strict=True):
            x = x + (s - t) * policy.velocity(params, cache, x, t)
        return x

    sampled = sample(policy, params, tiny_batch, noise, 3)
    np.testing.assert_allclose(sampled, by_hand(params, noise), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("path", "prediction"), HEADS)
def test_ddim_without_noise_is_euler(tiny, params, tiny_batch, noise, path, prediction):
    samples = [
        sample(head(tiny, path, prediction, solver), params, tiny_batch, noise, 4) for solver in ("ddim", "euler")
    ]
    scale = np.abs(samples[1]).max()
    np.testing.assert_allclose(samples[0], samples[1], atol=2e-4 * scale)


def test_ddpm_draws_fresh_noise_by_its_key(tiny, params, tiny_batch, noise):
    policy = head(tiny, "ddpm_cosine", "eps", "ddpm")

    samples = [sample(policy, params, tiny_batch, noise, 4, key) for key in (KEY, KEY, jax.random.key(1))]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert np.abs(samples[0] - samples[2]).max() > 0.01


@pytest.mark.parametrize("solver", TABLEAUS)
def test_a_config_knows_how_often_its_solver_calls_the_expert(tiny, params, tiny_batch, noise, solver):
    config = dataclasses.replace(tiny, solver=solver, num_steps=3)
    assert config.calls == 3 * len(TABLEAUS[solver].stages)
    assert np.isfinite(sample(head(tiny, solver=solver), params, tiny_batch, noise, 3)).all()
