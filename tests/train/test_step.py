import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import LossConfig, MeshConfig
from pizero_jax.mesh import make_mesh
from pizero_jax.train import freeze, optimizer
from pizero_jax.train.step import compile_step, fresh_state, init_state, micro_batches, to_mesh, train_step

LOSS = LossConfig(samples_per_observation=2, openpi_padding=False, flow_weight=1.0)
OPTIMIZER = dataclasses.replace(
    configs.build(configs.TrainConfig, base.get_config()).optimizer, peak=1e-3, warmup=5, decay_steps=1000, ema=0.9
)


def start(config, mesh: MeshConfig, loss=LOSS, optimizer_config=OPTIMIZER):
    """Policy, mesh, fresh state and compiled step."""
    policy, tx, mesh = policies.make(config, loss), optimizer.make(optimizer_config), make_mesh(mesh)
    state, placed = init_state(policy, tx, optimizer_config.ema, 0, mesh)
    return mesh, state, compile_step(policy, tx, optimizer_config.ema, 0, mesh, placed)


def train(config, mesh_config, batches):
    """Losses of a step on each batch, and the last state."""
    mesh, state, step = start(config, mesh_config)
    losses = []
    for batch in batches:
        state, metrics = step(state, to_mesh(batch, mesh))
        losses.append(float(metrics["loss"]))
    return losses, state


@pytest.fixture(scope="module")
def small(tiny):
    """Heads, widths and feed-forwards that divide over eight devices; one camera, to compile fast."""
    return dataclasses.replace(tiny, cameras=("base",))


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart(small, make_batch):
    fast = dataclasses.replace(OPTIMIZER, peak=5e-3)
    loss = LossConfig(samples_per_observation=32, openpi_padding=False, flow_weight=1.0)
    mesh, state, step = start(small, MeshConfig(1, 1, 1), loss, fast)
    batch = make_batch(small, 2)
    actions = np.full_like(batch.actions, 0.5)
    batch = to_mesh(batch.replace(actions=actions), mesh)
    losses = []
    for _ in range(300):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    assert np.mean(losses[-10:]) < losses[0] / 10


def test_the_average_follows_its_formula_and_steps_are_counted(small, make_batch):
    mesh, state, step = start(small, MeshConfig(1, 1, 1))
    batch = to_mesh(make_batch(small, 2), mesh)
    for k in range(3):
        before = jax.device_get(state.ema)
        state, _ = step(state, batch)
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before, jax.device_get(state.params))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), jax.device_get(state.ema), expected)
        assert int(state.step) == k + 1


@pytest.mark.parametrize("name", ["pi05_insulated", "pi0_fast"])
def test_weights_cost_no_forward_pass(variants, make_batch, name):
    """Accumulation asks for the weights of the whole batch first: what gives them holds no matrix product."""
    policy = policies.make(variants[name], LOSS)
    params = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    weights = jax.jit(lambda params, batch: policy.loss(params, jax.random.key(0), batch)[1])
    program = weights.lower(params, make_batch(variants[name], 2)).compile().as_text()
    assert "ROOT" in program
    assert not {"dot(", "convolution(", "while(", "custom-call("} & set(program.replace("(", "( ").split())


WORDLESS = ["act", "diffusion_policy", "diffusion_transformer"]


@pytest.mark.parametrize("name", ["pi0", *WORDLESS])
def test_micro_batches_take_turns_with_the_rows(variants, make_batch, name):
    batch = make_batch(variants[name], 6)
    parts = micro_batches(batch, 3)
    for i in range(3):
        jax.tree.map(lambda x, rows, i=i: np.testing.assert_array_equal(x[i], rows[i::3]), parts, batch)


@pytest.mark.parametrize("name", WORDLESS)
def test_a_policy_without_a_prompt_accumulates(variants, make_batch, name):
    """Traced only: prompts are [B, 0]."""
    assert variants[name].prompt_length == 0
    policy, tx = (
        policies.make(variants[name], dataclasses.replace(LOSS, samples_per_observation=1)),
        optimizer.make(OPTIMIZER),
    )
    state = nn.unbox(jax.eval_shape(lambda: fresh_state(policy, tx, 0.9, 0, freeze.NOTHING, "float32")))
    step = partial(train_step, policy, tx, 0.9, 0, accumulation=2)
    new, metrics = jax.eval_shape(step, state, make_batch(variants[name], 4))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert metrics["bad_rows"].shape == (4,)
