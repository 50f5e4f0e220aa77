"""Real-time chunking with the real networks: trained with delays, and led while sampling."""

import dataclasses
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.flow.paths import PATHS
from pizero_jax.flow.predictions import Kind
from pizero_jax.flow.real_time import Plan, steering
from pizero_jax.policies import flow
from tests.conftest import ONE_SAMPLE

KEY = jax.random.key(0)
DELAYED = dataclasses.replace(ONE_SAMPLE, max_delay=3)


@pytest.fixture(params=["pi0", "pi05", "pi0_small"])
def config(request, variants):
    return variants[request.param]


@pytest.fixture
def policy(config):
    return policies.make(config, ONE_SAMPLE)


@pytest.fixture
def params(policy, random_params):
    return random_params(policy)


@pytest.fixture
def rows(tiny_batch):
    """Sixteen of the batch's first row, so that delays differ and nothing else does."""
    return jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[:1], 16, axis=0), tiny_batch)


@pytest.fixture
def drawn(rows):
    return jax.random.normal(jax.random.key(2), rows.actions[:1].shape).repeat(16, axis=0), jnp.full(16, 0.6)


def losses(config, loss_config, params, batch, noise, time):
    return jax.jit(policies.make(config, loss_config).loss)(params, KEY, batch, noise=noise, time=time)[:2]


def test_what_is_shown_is_not_asked_for(config, params, rows, drawn):
    """Rows by their delay: nothing is asked of the first steps, and without delay a row's loss is the plain one."""
    noise, time = drawn
    values, weights = losses(config, DELAYED, params, rows, noise, time)
    plain, _ = losses(config, ONE_SAMPLE, params, rows, noise, time)
    delays = np.sum(np.asarray(weights) == 0, axis=1)
    assert set(delays) == {0, 1, 2, 3}
    np.testing.assert_array_equal(weights, np.arange(config.chunk) >= delays[:, None])
    np.testing.assert_array_equal(values == 0, weights == 0)
    np.testing.assert_allclose(values[delays == 0], plain[delays == 0], rtol=1e-5)
    assert not np.allclose(values[delays == 3][:, 3:], plain[delays == 3][:, 3:], rtol=1e-3)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", get_args(Kind))
def test_paths_that_have_no_velocity_at_data_can_be_shown_some(rows, path, prediction):
    """With the simplest of networks: no number of the loss or its gradient is infinite or none."""
    loss_config = dataclasses.replace(DELAYED, path=path, prediction=prediction)

    @partial(jax.value_and_grad, has_aux=True)
    def loss(scale):
        values, weights, metrics = flow.velocity_losses(lambda x_t, t, _: scale * x_t, KEY, rows, loss_config)
        return values.sum(), (values, weights, metrics)

    (_, (values, weights, metrics)), slope = loss(0.5)
    assert (weights == 0).any()
    assert np.isfinite(slope)
    assert np.isfinite(values).all()
    assert np.isfinite(metrics["loss_at_time"]).all()


def test_what_is_shown_is_data_without_noise(config, params, rows, drawn):
    noise, time = drawn
    values, weights = losses(config, DELAYED, params, rows, noise, time)
    elsewhere = jnp.where(weights[..., None] == 0, noise + 5, noise)
    np.testing.assert_array_equal(losses(config, DELAYED, params, rows, elsewhere, time)[0], values)
    actions = jnp.where(weights[..., None] == 0, rows.actions + 5, rows.actions)
    changed, _ = losses(config, DELAYED, params, rows.replace(actions=actions), noise, time)
    late = np.asarray(weights[:, 0] == 0)
    assert (np.abs(changed - values)[late].max(axis=1) > 1e-3).all()


def test_the_weight_of_a_step_is_the_share_of_the_samples_that_ask_for_it(config, params, rows):
    several = dataclasses.replace(DELAYED, samples_per_observation=3)
    policy = policies.make(config, several)
    _, weights, metrics = jax.jit(policy.loss)(params, KEY, rows)
    assert metrics["time"].shape == (16, 3)
    thirds = np.unique(np.round(3 * np.asarray(weights)).astype(int))
    np.testing.assert_allclose(3 * weights, np.round(3 * weights), atol=1e-6)
    assert {1, 2} & set(thirds)
    assert np.all(np.diff(weights, axis=1) >= -1e-6)
    assert (np.asarray(weights)[:, 3:] == 1).all()


def test_times_of_steps_that_are_all_the_same_are_the_time_of_the_row(policy, params, tiny_batch):
    x_t, t = jnp.asarray(tiny_batch.actions), jnp.array([0.2, 0.5, 0.9])

    @jax.jit
    def velocities(params):
        cache = policy.prefix(params, tiny_batch.observation)
        by_step = jnp.broadcast_to(t[:, None], x_t.shape[:2])
        return [policy.velocity(params, cache, x_t, t) for t in (t, by_step)]

    by_row, by_step = velocities(params)
    np.testing.assert_allclose(by_step, by_row, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [False, True], ids=["guided", "trained"])
def test_no_delay_is_the_plain_sampler_and_a_delay_keeps_what_is_executed(policy, params, tiny_batch, trained):
    planned = jnp.asarray(tiny_batch.actions)
    noise = jax.random.normal(KEY, planned.shape)

    @jax.jit
    def act(params, delay):
        plan = Plan(planned, left=delay, delay=delay)
        return policy.act(
            params, KEY, tiny_batch.observation, noise=noise, num_steps=10, steer=steering(plan, trained, 10.0)
        )

    plain = jax.jit(partial(policy.act, num_steps=10))(params, KEY, tiny_batch.observation, noise=noise)
    np.testing.assert_allclose(act(params, jnp.zeros(3, int)), plain, atol=1e-5)
    late = act(params, jnp.array([0, 2, 2]))
    np.testing.assert_allclose(late[0], plain[0], atol=1e-5)  # a row without a plan does not notice those that have one
    if trained:
        np.testing.assert_array_equal(late[1:, :2], planned[1:, :2])
    assert np.abs(late - planned)[1:, :2].mean() < 0.3 * np.abs(plain - planned)[1:, :2].mean()
    assert np.abs(late - plain)[1:, 2:].max() > 1e-4
