"""The networks that pi0 does not have learn a few chunks by heart, and act as they have learnt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pizero_jax import policies
from pizero_jax.config import LossConfig

STEPS = 150
LOSS = LossConfig(samples_per_observation=4, openpi_padding=False, flow_weight=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act", "diffusion_policy", "diffusion_transformer", "pi0_small"])
def test_it_learns_three_chunks_by_heart(variants, make_batch, name):
    config = dataclasses.replace(variants[name], cameras=("base",))
    if name == "diffusion_policy":
        config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, widths=(32,)))
    policy, tx = policies.make(config, LOSS), optax.adam(5e-3)
    batch = jax.tree.map(jnp.asarray, make_batch(config, 3))

    def objective(params, key):
        values, weights, _ = policy.loss(params, key, batch)
        return sum(x.sum() / w.sum() for x, w in zip(*map(jax.tree.leaves, (values, weights)), strict=True))

    @jax.jit
    def learn(params):
        def step(carry, key):
            params, state = carry
            loss, gradients = jax.value_and_grad(objective)(params, key)
            updates, state = tx.update(gradients, state)
            return (optax.apply_updates(params, updates), state), loss

        keys = jax.random.split(jax.random.key(1), STEPS)
        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
        return params, losses

    params, losses = learn(nn.unbox(jax.jit(policy.init)(jax.random.key(0))))
    acted = jax.jit(policy.act)(params, jax.random.key(2), batch.observation)
    error = np.abs(acted - batch.actions).mean() / np.abs(batch.actions).mean()
    assert np.isfinite(losses).all()
    assert error < 0.35, (error, losses[::50])
