import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax import policies
from pizero_jax.config import LossConfig

KEY = jax.random.key(0)
ONE_SAMPLE = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="module")
def config(variants):
    return variants["pi05"]


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, ONE_SAMPLE)


def test_a_fresh_expert_is_the_identity_whatever_it_sees_and_when(config, policy, make_batch):
    """All gates are zero: v_t is the output map of the normed input map (arXiv 2504.16054)."""
    params = nn.unbox(policy.init(KEY))
    batch = make_batch(config, 2)
    x_t = batch.actions

    @jax.jit
    def velocity(observation, t):
        return policy.velocity(params, policy.prefix(params, observation), x_t, t)

    y = x_t @ params["action_in"]["kernel"] + params["action_in"]["bias"]
    y = y / jnp.sqrt(jnp.mean(y**2, axis=-1, keepdims=True) + 1e-6)
    expected = y @ params["action_out"]["kernel"] + params["action_out"]["bias"]
    np.testing.assert_allclose(velocity(batch.observation, 0.3), expected, atol=1e-5)
    other = make_batch(config, 2, seed=1).observation
    np.testing.assert_allclose(velocity(other, 0.9), expected, atol=1e-5)


def test_samples_of_one_observation_equal_as_many_alone(config, policy, random_params, make_batch):
    """Each chunk of the suffix has the condition of its own time."""
    params, batch, M = random_params(policy), make_batch(config, 3), 3
    several = policies.make(config, LossConfig(M, openpi_padding=False, flow_weight=1.0))
    values, _, metrics = jax.jit(several.loss)(params, KEY, batch)
    keys = [jax.random.split(key)[0] for key in jax.random.split(KEY, 3)]
    noise = np.stack([jax.random.normal(key, (M, config.chunk, config.action_dim)) for key in keys])  # what it drew
    alone = jax.jit(lambda noise, time: policy.loss(params, KEY, batch, noise=noise, time=time)[0])
    each = [alone(noise[:, m], metrics["time"][:, m]) for m in range(M)]
    np.testing.assert_allclose(values, np.mean(each, axis=0), rtol=1e-4, atol=1e-5)


def test_the_state_reaches_the_actions_through_the_prompt_alone(config, policy, random_params, make_batch):
    params, batch = random_params(policy), make_batch(config, 2)
    act = jax.jit(lambda observation: policy.act(params, KEY, observation))
    seen = batch.observation
    np.testing.assert_array_equal(act(seen), act(seen.replace(state=seen.state + 1)))
    assert np.any(act(seen) != act(seen.replace(prompt=(seen.prompt + 1) % config.language.vocabulary)))


@pytest.mark.parametrize("part", ["steps", "dimensions"])
def test_what_is_padded_changes_nothing(config, policy, random_params, make_batch, part):
    params, batch = random_params(policy), make_batch(config, 2)
    steps, dims = batch.action_mask.copy(), batch.action_dim_mask.copy()
    if part == "steps":
        steps[:, -2:] = False
    else:
        dims[:, -1] = False
    batch = batch.replace(action_mask=steps, action_dim_mask=dims)
    poisoned = np.where(steps[:, :, None] & dims[:, None], batch.actions, np.nan)
    loss = jax.jit(lambda batch: policy.loss(params, KEY, batch)[0])
    np.testing.assert_array_equal(loss(batch), loss(batch.replace(actions=poisoned)))
