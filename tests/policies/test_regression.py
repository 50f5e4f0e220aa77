import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from configs import regression as published
from pizero_jax import policies
from pizero_jax.config import LossConfig, TrainConfig, build

KEY = jax.random.key(0)
LOSS = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="module")
def policy(variants):
    return policies.make(variants["regression"], LOSS)


@pytest.fixture(scope="module")
def params(policy, random_params):
    return random_params(policy)


@pytest.fixture(scope="module")
def batch(variants, make_batch):
    return jax.tree.map(jnp.asarray, make_batch(variants["regression"], 3))


@pytest.fixture(scope="module")
def loss(policy):
    """Gradients, and values and weights, of (parameters, batch)."""

    def total(params, batch):
        values, weights, _ = policy.loss(params, KEY, batch)
        return values.sum(), (values, weights)

    return jax.jit(jax.grad(total, has_aux=True))


def test_the_loss_is_the_absolute_error_of_what_acting_says(policy, loss, params, batch):
    acted = jax.jit(policy.act)(params, KEY, batch.observation)
    _, (values, weights) = loss(params, batch)
    np.testing.assert_allclose(values, np.abs(acted - batch.actions).mean(axis=-1), rtol=1e-5, atol=1e-5)
    assert weights.all()
    assert np.abs(np.diff(acted, axis=1)).max() > 1e-3  # the positions of the steps tell them apart


def test_what_is_padded_in_a_chunk_changes_nothing(loss, params, batch):
    steps, dims = np.ones(batch.action_mask.shape, bool), np.ones(batch.action_dim_mask.shape, bool)
    steps[0, -2:] = steps[1, 1:] = dims[2, -1] = False
    padded = batch.replace(action_mask=steps, action_dim_mask=dims)
    gradients, (values, weights) = loss(params, padded)
    garbage = padded.replace(actions=jnp.where(steps[:, :, None] & dims[:, None], batch.actions, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, loss(params, garbage), (gradients, (values, weights)))
    np.testing.assert_array_equal(weights, steps)
    # Acting knows no padding: what a step says does not depend on how many are real.
    whole = np.asarray(loss(params, batch)[1][0])
    np.testing.assert_allclose(np.where(steps, values, 0)[:2], np.where(steps, whole, 0)[:2], rtol=1e-6)


def test_pictures_words_and_state_matter(policy, params, batch):
    act, seen = jax.jit(policy.act), batch.observation
    before = act(params, KEY, seen)
    for changed in (
        seen.replace(state=-seen.state),
        seen.replace(prompt=(seen.prompt + 1) % 16),
        seen.replace(images={**seen.images, "base": -seen.images["base"]}),
    ):
        assert np.all(np.abs(act(params, KEY, changed) - before).max(axis=(1, 2)) > 1e-3)
    np.testing.assert_array_equal(act(params, jax.random.key(1), seen), before)  # nothing is drawn


def test_weights_of_pi0_fit_all_but_the_empty_actions():
    c = build(TrainConfig, published.get_config())
    pi0 = dataclasses.asdict(c.policy) | {"name": "pi0", "solver": "euler", "num_steps": 10}
    of_pi0 = policies.make(build(TrainConfig, dataclasses.asdict(c) | {"policy": pi0}).policy, c.loss)

    def shapes(policy):
        leaves = flatten_dict(nn.unbox(jax.eval_shape(policy.init, KEY)), sep="/")
        return {path: x.shape for path, x in leaves.items()}

    ours, theirs = shapes(policies.make(c.policy, c.loss)), shapes(of_pi0)
    assert {path for path in ours if ours[path] != theirs.get(path)} == {"actions/positions"}
    # 3,238,048,528 of pi0, less what mixes noisy actions with the time, and the positions of eight steps.
    assert sum(map(np.prod, ours.values())) == 3_238_048_528 - 33_792 - 2_098_176 - 1_049_600 + 8 * 1024
