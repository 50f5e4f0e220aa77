"""What is Diffusion Policy's own; `test_denoisers.py` has what it shares."""

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


@pytest.fixture(scope="module")
def config(variants):
    return variants["diffusion_policy"]


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


@pytest.mark.parametrize("head", [DDPM, FLOW], ids=["eps of DDPM", "velocity"])
def test_the_loss_is_the_error_of_what_is_predicted(config, params, batch, noise, head):
    """Of a network that says 0 everywhere: the mean square of its target."""
    silent = params | {"unet": params["unet"] | {"out": jax.tree.map(jnp.zeros_like, params["unet"]["out"])}}
    loss = jax.jit(policies.make(config, head).loss)
    values, weights, _ = loss(silent, KEY, batch, noise=noise, time=TIME)
    target = predictions.target(head.prediction, PATHS[head.path], batch.actions, noise, TIME[:, None, None])
    np.testing.assert_allclose(values, np.mean(np.square(target), axis=-1), rtol=2e-5)
    assert weights.all()


def test_without_a_bound_samples_of_ddpm_are_far_outside(config, params, batch, noise):
    """An untrained network's noise at t = 1, where alpha is 0.0005, means actions of thousands."""

    def sampled(clip):
        policy = policies.make(dataclasses.replace(config, clip=clip, solver="ddim"), DDPM)
        return np.abs(jax.jit(policy.act)(params, KEY, batch.observation, noise=noise)).max()

    assert sampled(clip=1.5) <= 1.5 + 1e-4
    assert sampled(clip=0.0) > 10


def test_the_published_policy_has_its_number_of_parameters():
    from configs import diffusion_policy
    from pizero_jax.config import TrainConfig, build

    c = build(TrainConfig, diffusion_policy.get_config())
    shapes = jax.eval_shape(policies.make(c.policy, c.loss).init, KEY)
    size = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert size["cameras_base_0_rgb"] == 11_197_088
    # 251,511,938 with two moments: 66 numbers more of them go into the scales and shifts of 12 blocks.
    blocks = 2 * (512 + 1024 + 2048 + 2048 + 1024 + 512)
    assert size["unet"] == 251_511_938 - 66 * 2 * blocks
