"""What holds of every flow without pi0's backbone; paths, predictions and solvers are those of `test_heads.py`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.config import LossConfig
from pizero_jax.flow import predictions
from pizero_jax.flow.paths import PATHS

KEY = jax.random.key(0)
FLOW = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
DDPM = dataclasses.replace(FLOW, path="ddpm_cosine", prediction="eps", time="uniform")


@pytest.fixture(scope="module", params=["diffusion_policy", "diffusion_transformer", "pi0_small"])
def config(request, variants):
    return variants[request.param]


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


TIME = jnp.array([0.2, 0.5, 0.9])


@pytest.fixture(scope="module")
def loss(config, noise):
    """Loss by step and gradients, of (parameters, batch, noise)."""
    policy = policies.make(config, DDPM)

    def total(params, batch, noise):
        values, weights, _ = policy.loss(params, KEY, batch, noise=noise, time=TIME)
        return values.sum(), (values, weights)

    return jax.jit(jax.grad(total, has_aux=True))


def silenced(part):
    """A U-Net or a last linear map that says 0."""
    zeros = jax.tree.map(jnp.zeros_like, part)
    return part | {"out": zeros["out"]} if "out" in part else zeros


@pytest.mark.parametrize("head", [DDPM, FLOW], ids=["eps of DDPM", "velocity"])
def test_the_loss_is_the_error_of_what_is_predicted(config, params, batch, noise, head):
    """Of a network that says 0 everywhere: the mean square of its target."""
    silent = params | {part: silenced(params[part]) for part in {"unet", "action_out"} & params.keys()}
    loss = jax.jit(policies.make(config, head).loss)
    values, weights, _ = loss(silent, KEY, batch, noise=noise, time=TIME)
    target = predictions.target(head.prediction, PATHS[head.path], batch.actions, noise, TIME[:, None, None])
    np.testing.assert_allclose(values, np.mean(np.square(target), axis=-1), rtol=2e-5)
    assert weights.all()


def test_what_is_padded_in_a_chunk_changes_nothing(loss, params, batch, noise):
    steps, dims = np.ones(batch.action_mask.shape, bool), np.ones(batch.action_dim_mask.shape, bool)
    steps[0, -2:] = steps[1, 1:] = dims[2, -1] = False
    padded = batch.replace(action_mask=steps, action_dim_mask=dims)
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


def test_several_samples_of_one_observation_give_what_they_would_give_alone(config, params, batch, noise):
    M = 3
    several = policies.make(config, dataclasses.replace(DDPM, samples_per_observation=M))
    values, _, metrics = jax.jit(several.loss)(params, KEY, batch)
    keys = [jax.random.split(key)[0] for key in jax.random.split(KEY, 3)]
    noises = np.stack([jax.random.normal(key, (M, *noise.shape[1:])) for key in keys])  # what the loss drew
    one = jax.jit(policies.make(config, DDPM).loss)
    alone = [one(params, KEY, batch, noise=noises[:, m], time=metrics["time"][:, m])[0] for m in range(M)]
    np.testing.assert_allclose(values, np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def act(config, params, noise):
    policy = policies.make(config, DDPM)
    return jax.jit(lambda observation: policy.act(params, KEY, observation, noise=noise, num_steps=3))


def test_an_absent_camera_is_as_if_it_were_not_there(act, batch):
    seen = batch.observation
    before = act(seen)
    dark = {**seen.images, "wrist": seen.images["wrist"].at[2].set(100.0)}
    np.testing.assert_array_equal(act(seen.replace(images=dark)), before)  # the third row has none
    masks = {**seen.image_masks, "wrist": jnp.zeros(3, bool)}
    left_out = seen.replace(images={"base": seen.images["base"]}, image_masks={"base": seen.image_masks["base"]})
    np.testing.assert_allclose(act(left_out), act(seen.replace(image_masks=masks)), atol=1e-5)


@pytest.mark.parametrize("part", ["base", "wrist", "state"])
def test_what_is_seen_matters(act, batch, part):
    seen = batch.observation
    if part == "state":
        changed = seen.replace(state=-seen.state)
    else:
        changed = seen.replace(images={**seen.images, part: -seen.images[part]})
    rows = [0, 1] if part == "wrist" else [0, 1, 2]
    assert np.all(np.abs(act(changed) - act(seen)).max(axis=(1, 2))[rows] > 1e-3)
