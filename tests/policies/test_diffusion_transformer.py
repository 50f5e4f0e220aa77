"""What the transformer does that the U-Net does not; `test_denoisers.py` has what they share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_transformer as published
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.policies.diffusion_transformer import DiffusionTransformer
from tests.conftest import ONE_SAMPLE

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def config(variants):
    return variants["diffusion_transformer"]


@pytest.fixture(scope="module")
def params(config, random_params):
    return random_params(policies.make(config, ONE_SAMPLE))


@pytest.fixture(scope="module")
def batch(config, make_batch):
    return jax.tree.map(jnp.asarray, make_batch(config, 3))


@pytest.fixture(scope="module")
def velocities(config, params, batch):
    """Of (x_t, t), for what was seen in the batch."""
    apply = functools.partial(DiffusionTransformer(config).apply, {"params": params})
    return jax.jit(lambda x_t, t: apply(batch.observation, x_t[:, None], t[:, None]))


def test_a_step_sees_itself_and_the_earlier_ones(config, velocities, batch):
    t = jnp.array([0.2, 0.5, 0.9])
    before = velocities(batch.actions, t)
    for step in range(config.chunk):
        change = np.abs(velocities(batch.actions.at[:, step].add(1.0), t) - before).max(axis=(0, 1, 3))
        assert not change[:step].any()
        assert (change[step:] > 1e-4).all()


def test_the_time_matters_to_every_step(velocities, batch):
    early, late = (velocities(batch.actions, jnp.full(3, t)) for t in (0.1, 0.8))
    assert (np.abs(early - late).max(axis=-1) > 1e-4).all()


def test_what_is_dropped_depends_on_the_key_of_the_row_alone(config, params, batch):
    loss = jax.jit(policies.make(dataclasses.replace(config, dropout=0.3), ONE_SAMPLE).loss)
    keys, order = jax.random.split(KEY, 3), np.array([2, 0, 1])
    drawn = {"noise": jnp.ones_like(batch.actions), "time": jnp.full(3, 0.5)}  # what is left to the keys is dropout
    values, _, _ = loss(params, keys, batch, **drawn)
    moved, _, _ = loss(params, keys[order], jax.tree.map(lambda x: x[order], batch), **drawn)
    np.testing.assert_allclose(values[order], moved, rtol=1e-4, atol=1e-5)
    other, _, _ = loss(params, keys[order], batch, **drawn)
    assert np.abs(other - values).max() > 1e-3


def test_the_published_policy_has_its_number_of_parameters():
    """Those of its layers as released, by hand: 8,976,898 with the second moment's place."""
    c = build(TrainConfig, published.get_config())
    shapes = jax.eval_shape(policies.make(c.policy, c.loss).init, KEY)
    size = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in shapes.items()}
    D, C, A, E = 256, 16, 2, 2 * 32 + 2
    layer = 2 * (4 * D**2 + 4 * D) + 8 * D**2 + 5 * D + 3 * 2 * D  # two attentions, feed-forward, norms
    memory = E * D + D + 8 * D**2 + 5 * D + 3 * D
    assert 8 * layer + 2 * D + memory + A * D + D + C * D + D * A + A == 8_976_898
    assert sum(size.values()) == size["cameras_base_0_rgb"] + 8_976_898 - D == 20_173_730
    assert size["cameras_base_0_rgb"] == 11_197_088
