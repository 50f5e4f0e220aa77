"""What holds of every flow without pi0's backbone; paths, predictions and solvers are those of `test_heads.py`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.config import LossConfig
from pizero_jax.policies import diffusion_policy, diffusion_transformer, flow, pi0_small

KEY = jax.random.key(0)
FLOW = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
DDPM = dataclasses.replace(FLOW, path="ddpm_cosine", prediction="eps", time="uniform")
TIME = jnp.array([0.2, 0.5, 0.9])
NETWORKS = {
    "diffusion_policy": diffusion_policy.DiffusionPolicy,
    "diffusion_transformer": diffusion_transformer.DiffusionTransformer,
    "pi0_small": pi0_small.Pi0Small,
}


@pytest.fixture(scope="module", params=NETWORKS)
def config(request, variants):
    return variants[request.param]


@pytest.fixture(scope="module")
def network(config):
    return NETWORKS[config.name](config)


@pytest.fixture(scope="module")
def params(config, random_params):
    return random_params(policies.make(config, DDPM))


@pytest.fixture(scope="module")
def batch(config, make_batch):
    """Three rows; the last one has no wrist camera."""
    return jax.tree.map(jnp.asarray, make_batch(config, 3))


@pytest.fixture(scope="module")
def noise(batch):
    return jax.random.normal(jax.random.key(1), batch.actions.shape)


@pytest.fixture(scope="module")
def read(network, params):
    """Of an observation; compiled apart from what reads it, which is asked more often."""
    return jax.jit(lambda observation: network.apply({"params": params}, observation, method="read"))


@pytest.fixture(scope="module")
def velocity(network, params, batch, noise):
    """Of what was read, at one point."""
    x_t = batch.actions + noise

    def at(seen):
        return network.apply({"params": params}, seen, x_t[:, None], TIME[:, None], method="velocities")

    return jax.jit(at)


def losses(network, seen, loss_config):
    """Of (parameters, batch): values and weights by step, and more."""

    def of(params, batch, **drawn):
        velocities = flow.velocities_of(network, params, seen)
        return flow.velocity_losses(velocities, KEY, batch, loss_config, **drawn)

    return of


def test_what_is_padded_in_a_chunk_changes_nothing(network, read, params, batch, noise):
    steps, dims = np.ones(batch.action_mask.shape, bool), np.ones(batch.action_dim_mask.shape, bool)
    steps[0, -2:] = steps[1, 1:] = dims[2, -1] = False
    padded = batch.replace(action_mask=jnp.asarray(steps), action_dim_mask=jnp.asarray(dims))
    of = losses(network, read(batch.observation), DDPM)

    @functools.partial(jax.grad, has_aux=True)
    def total(params, batch, noise):
        values, weights, _ = of(params, batch, noise=noise, time=TIME)
        return values.sum(), (values, weights)

    loss = jax.jit(total)
    gradients, (values, weights) = loss(params, padded, noise)
    real = steps[:, :, None] & dims[:, None]
    garbage = padded.replace(actions=jnp.where(real, batch.actions, jnp.nan))
    other_noise = jnp.where(steps[:, :, None], noise, 100.0)  # the network does not see padded steps at all
    for other in [(garbage, noise), (padded, other_noise)]:
        jax.tree.map(np.testing.assert_array_equal, loss(params, *other), (gradients, (values, weights)))
    np.testing.assert_array_equal(weights, steps)
    np.testing.assert_array_equal(np.asarray(values)[~steps], 0)
    assert np.any(np.abs(np.asarray(loss(params, batch, noise)[1][0] - values))[steps] > 1e-4), (
        "what is real does count"
    )


def test_several_samples_of_one_observation_give_what_they_would_give_alone(network, read, params, batch, noise):
    M, seen = 3, read(batch.observation)
    several = dataclasses.replace(DDPM, samples_per_observation=M)
    values, _, metrics = jax.jit(losses(network, seen, several))(params, batch)
    keys = [jax.random.split(key)[0] for key in jax.random.split(KEY, 3)]
    noises = np.stack([jax.random.normal(key, (M, *noise.shape[1:])) for key in keys])  # what the loss drew
    one = jax.jit(losses(network, seen, DDPM))
    alone = [one(params, batch, noise=noises[:, m], time=metrics["time"][:, m])[0] for m in range(M)]
    np.testing.assert_allclose(values, np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)


def test_an_absent_camera_is_as_if_it_were_not_there(read, velocity, batch):
    seen = batch.observation
    before = velocity(read(seen))
    dark = {**seen.images, "wrist": seen.images["wrist"].at[2].set(100.0)}
    np.testing.assert_array_equal(velocity(read(seen.replace(images=dark))), before)  # the third row has none
    masks = {**seen.image_masks, "wrist": jnp.zeros(3, bool)}
    left_out = seen.replace(images={"base": seen.images["base"]}, image_masks={"base": seen.image_masks["base"]})
    masked = velocity(read(seen.replace(image_masks=masks)))
    np.testing.assert_allclose(velocity(read(left_out)), masked, atol=1e-5)
    assert np.abs(masked - before)[:2].max() > 1e-3


@pytest.mark.parametrize("part", ["base", "wrist", "state"])
def test_what_is_seen_matters(read, velocity, batch, part):
    seen = batch.observation
    if part == "state":
        changed = seen.replace(state=-seen.state)
    else:
        changed = seen.replace(images={**seen.images, part: -seen.images[part]})
    rows = [0, 1] if part == "wrist" else [0, 1, 2]
    difference = np.abs(velocity(read(changed)) - velocity(read(seen))).max(axis=(1, 2, 3))
    assert np.all(difference[rows] > 3e-5)
