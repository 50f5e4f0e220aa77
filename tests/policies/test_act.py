import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from configs import act as published
from pizero_jax import policies
from pizero_jax.config import LossConfig, TrainConfig, build
from pizero_jax.policies.act import divergence

KEY = jax.random.key(0)
LOSS = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="module")
def config(variants):
    return variants["act"]


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, LOSS)


@pytest.fixture(scope="module")
def params(policy, random_params):
    """Larger than fresh ones, so that what is far from the actions shows in them."""
    return jax.tree.map(lambda x: 3 * x, random_params(policy))


@pytest.fixture(scope="module")
def batch(config, make_batch):
    """Three rows; the last one has no wrist camera."""
    return jax.tree.map(jnp.asarray, make_batch(config, 3))


@pytest.fixture(scope="module")
def noise(config):
    return jax.random.normal(jax.random.key(1), (3, config.latent))


@pytest.fixture(scope="module")
def loss(policy, noise):
    """Gradients, and values and weights by name, of (parameters, batch)."""

    def total(params, batch):
        values, weights, _ = policy.loss(params, KEY, batch, noise=noise)
        return sum(x.sum() for x in values.values()), (values, weights)

    return jax.jit(jax.grad(total, has_aux=True))


@pytest.fixture(scope="module")
def act(policy):
    return jax.jit(policy.act)


def with_posterior(params, mean, log_variance):
    """Whatever is encoded, z has this mean and log variance."""
    bias = jnp.concatenate([jnp.broadcast_to(jnp.asarray(x, jnp.float32), 3) for x in (mean, log_variance)])
    out = {"kernel": jnp.zeros_like(params["posterior"]["out"]["kernel"]), "bias": bias}
    return params | {"posterior": params["posterior"] | {"out": out}}


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [([0, 0, 0], 1.0, 0), ([1, 2, 0], 1.0, (1 + 4) / 2), ([0, 0, 0], 0.5, 3 * (np.log(2) + 0.25 / 2 - 0.5))],
)
def test_the_divergence_of_a_known_posterior_is_in_the_loss(loss, params, batch, mean, deviation, expected):
    _, (values, weights) = loss(with_posterior(params, mean, 2 * np.log(deviation)), batch)
    np.testing.assert_allclose(values["kl"], np.full((3, 1), 10 * expected), atol=1e-4)
    np.testing.assert_array_equal(weights["kl"], np.ones((3, 1)))


def test_the_divergence_is_that_of_its_integral():
    mean, deviation = np.array([0.7, -1.2]), np.array([0.6, 1.5])
    z = np.linspace(-15, 15, 200_001)[:, None]

    def log_normal(z, mean, deviation):
        return -0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)

    log_q, log_p = log_normal(z, mean, deviation), log_normal(z, 0, 1)
    integral = np.sum(np.exp(log_q) * (log_q - log_p) * (z[1] - z[0]))
    found = divergence(jnp.asarray(mean)[None], jnp.asarray(2 * np.log(deviation))[None])
    assert float(found[0]) == pytest.approx(integral, rel=1e-4)


def test_the_decoder_hears_of_z_what_the_posterior_says(act, loss, params, batch, noise):
    """The chunk is that of z = mean + deviation x noise: a sure posterior at zero says what acting says."""

    def errors(mean, log_variance):
        return loss(with_posterior(params, mean, log_variance), batch)[1][0]["actions"]

    acted = act(params, KEY, batch.observation)
    np.testing.assert_allclose(errors(0, -60), np.abs(acted - batch.actions).mean(axis=-1), rtol=1e-4, atol=1e-4)
    spread, moved = errors(0.3, 2 * np.log(2)), errors(0.3 + 2 * noise[0], -60)
    np.testing.assert_allclose(spread[0], moved[0], rtol=1e-5, atol=1e-5)
    assert np.abs(spread - errors(0, -60)).max() > 2e-3


def test_acting_draws_nothing(act, params, batch):
    actions = act(params, KEY, batch.observation)
    np.testing.assert_array_equal(actions, act(params, jax.random.key(7), batch.observation))
    other = params | {"posterior": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["posterior"])}
    np.testing.assert_array_equal(actions, act(other, KEY, batch.observation))  # the posterior is for training only


def test_what_is_padded_in_a_chunk_changes_nothing(loss, params, batch):
    steps, dims = np.ones(batch.action_mask.shape, bool), np.ones(batch.action_dim_mask.shape, bool)
    steps[0, -2:] = steps[1, 1:] = dims[2, -1] = False
    padded = batch.replace(action_mask=steps, action_dim_mask=dims)
    gradients, (values, weights) = loss(params, padded)
    real = steps[:, :, None] & dims[:, None]
    garbage = padded.replace(actions=jnp.where(real, batch.actions, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, loss(params, garbage), (gradients, (values, weights)))
    np.testing.assert_array_equal(weights["actions"], steps)
    np.testing.assert_array_equal(np.asarray(values["actions"])[~steps], 0)
    shorter = padded.replace(actions=padded.actions.at[1, 0].add(1.0))
    assert np.abs(loss(params, shorter)[1][0]["kl"] - values["kl"])[1] > 1e-4, "what is real does count"


def test_a_chunk_that_is_cut_short_has_the_posterior_of_its_real_steps(loss, params, batch):
    """Not of a chunk that goes on with zeros: a padded step is no key of the posterior's attention."""
    steps = np.ones(batch.action_mask.shape, bool)
    steps[:, 3:] = False
    cut = loss(params, batch.replace(action_mask=steps))[1][0]["kl"]
    zeros = loss(params, batch.replace(actions=batch.actions.at[:, 3:].set(0)))[1][0]["kl"]
    assert np.abs(cut - zeros).min() > 1e-4


def test_rows_without_real_steps_weigh_nothing(loss, params, batch):
    steps = batch.action_mask.at[1].set(False)
    _, (values, weights) = loss(params, batch.replace(action_mask=steps))
    for name in ("actions", "kl"):
        np.testing.assert_array_equal(values[name][1], 0)
        np.testing.assert_array_equal(weights[name][1], 0)


def test_an_absent_camera_is_as_if_it_were_not_there(act, params, batch):
    seen = batch.observation
    before = act(params, KEY, seen)
    dark = {**seen.images, "wrist": seen.images["wrist"].at[2].set(100.0)}
    np.testing.assert_array_equal(act(params, KEY, seen.replace(images=dark)), before)  # the third row has none
    masks = {**seen.image_masks, "wrist": jnp.zeros(3, bool)}
    left_out = seen.replace(images={"base": seen.images["base"]}, image_masks={"base": seen.image_masks["base"]})
    masked = act(params, KEY, seen.replace(image_masks=masks))
    np.testing.assert_allclose(act(params, KEY, left_out), masked, atol=1e-5)
    assert np.abs(masked - before)[:2].max() > 1e-3


def test_what_is_dropped_depends_on_the_key_of_the_row_alone(config, params, batch, noise):
    loss = jax.jit(policies.make(dataclasses.replace(config, dropout=0.3), LOSS).loss)
    keys = jax.random.split(KEY, 3)
    values, _, _ = loss(params, keys, batch, noise=noise)
    order = np.array([2, 0, 1])
    moved, _, _ = loss(params, keys[order], jax.tree.map(lambda x: x[order], batch), noise=noise[order])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[order], b, rtol=1e-4, atol=1e-5), values, moved)
    other, _, _ = loss(params, keys[order], batch, noise=noise)
    assert np.abs(other["actions"] - values["actions"]).max() > 1e-3


@pytest.mark.parametrize(("width", "parameters"), [(14, 51_613_582), (6, 51_597_190)])
def test_the_published_policy_has_lerobot_s_number_of_parameters(width, parameters):
    """Those of lerobot's ACT for ALOHA and for SO-100, whose ResNet has norms without parameters."""
    config = build(TrainConfig, published.get_config()).policy
    config = dataclasses.replace(config, state_dim=width, action_dim=width)
    leaves = flatten_dict(nn.unbox(jax.eval_shape(policies.make(config, LOSS).init, KEY)), sep="/")
    norms = sum(x.size for path, x in leaves.items() if path.startswith("resnet/") and "norm" in path)
    assert sum(x.size for x in jax.tree.leaves(leaves)) - norms == parameters
