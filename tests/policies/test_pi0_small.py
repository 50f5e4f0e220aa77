"""What is pi0-small's own; `test_denoisers.py` and `test_real_time.py` have what it shares."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pi0_small as published
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from tests.conftest import ONE_SAMPLE

KEY = jax.random.key(0)
TIMES = jnp.full((3, 5), 0.5)


@pytest.fixture(scope="module")
def config(variants):
    return variants["pi0_small"]


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, ONE_SAMPLE)


@pytest.fixture(scope="module")
def params(policy, random_params):
    return random_params(policy)


@pytest.fixture(scope="module")
def observation(config, make_batch):
    """Of three rows; the second has a shorter prompt."""
    return jax.tree.map(jnp.asarray, make_batch(config, 3)).observation


@pytest.fixture(scope="module")
def velocity(policy, config):
    """Of (parameters, observation, time)."""
    x_t = jax.random.normal(KEY, (3, config.chunk, config.action_dim))

    @jax.jit
    def at(params, observation, t):
        return policy.velocity(params, policy.prefix(params, observation), x_t, t)

    return lambda params, observation, t=TIMES: at(params, observation, t)


def test_it_reads_the_words_that_are_there(velocity, params, observation):
    before = velocity(params, observation)
    hidden = observation.replace(prompt=jnp.where(observation.prompt_mask, observation.prompt, 15))
    np.testing.assert_array_equal(velocity(params, hidden), before)
    reversed_words = observation.replace(prompt=observation.prompt.at[:, :3].set(observation.prompt[:, 2::-1]))
    assert (np.abs(velocity(params, reversed_words) - before).max(axis=(1, 2)) > 1e-4).all()


def test_cameras_have_networks_of_their_own(velocity, params, observation):
    """The same pictures by other names are another observation."""
    images = observation.images
    swapped = observation.replace(images={"base": images["wrist"], "wrist": images["base"]})
    assert np.abs(velocity(params, swapped) - velocity(params, observation))[:2].max() > 1e-3
    same = dict(params, cameras_wrist=params["cameras_base"])
    np.testing.assert_allclose(velocity(same, swapped)[:2], velocity(same, observation)[:2], atol=1e-4)


def test_each_step_of_a_chunk_may_have_a_time_of_its_own(velocity, params, observation):
    """What the last step's says, all steps see."""
    change = velocity(params, observation, TIMES.at[:, -1].set(0.0)) - velocity(params, observation)
    assert (np.abs(change).max(axis=-1) > 1e-5).all()


def test_the_published_policy_has_about_its_number_of_parameters():
    c = build(TrainConfig, published.get_config())
    count = sum(x.size for x in jax.tree.leaves(jax.eval_shape(policies.make(c.policy, c.loss).init, KEY)))
    assert count == 477_762_032 == pytest.approx(470e6, rel=0.02)
    one = dataclasses.replace(c.policy, cameras=c.policy.cameras[:1])
    shapes = jax.eval_shape(policies.make(one, c.loss).init, KEY)
    fewer = count - sum(x.size for x in jax.tree.leaves(shapes))
    assert fewer == 2 * 22_582_000  # two ViTs of the size of ViT-S/32
