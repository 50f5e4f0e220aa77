import dataclasses
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base
from pizero_jax import config as configs
from pizero_jax import policies
from pizero_jax.config import LossConfig, MeshConfig
from pizero_jax.mesh import make_mesh
from pizero_jax.train import optimizer
from pizero_jax.train.step import compile_step, init_state, to_mesh

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


@pytest.fixture(scope="module")
def one_device(small, make_batch):
    batches = padded_batches(make_batch, small)
    return train(small, MeshConfig(1, 1, 1), batches)


def padded_batches(make_batch, config):
    """Twenty batches of eight rows; devices that hold one row each have different numbers of real steps."""
    batches = [make_batch(config, 8, seed) for seed in range(20)]
    mask = np.arange(config.chunk)[None] <= np.arange(8)[:, None] % config.chunk
    return [batch.replace(action_mask=mask) for batch in batches]


EIGHT = """
import importlib.util, json, pickle, sys
import jax
from pizero_jax.config import MeshConfig

config, batches, path = pickle.load(sys.stdin.buffer)
spec = importlib.util.spec_from_file_location("test_step", path)
test_step = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_step)
assert jax.device_count() == 8
losses, layouts = {}, None
for sizes in ((8, 1, 1), (2, 4, 1), (4, 1, 2)):
    losses[str(sizes)], state = test_step.train(config, MeshConfig(*sizes), batches)
    layouts = test_step.layouts(state) if sizes == (2, 4, 1) else layouts
print(json.dumps({"losses": losses, "layouts": layouts}))
"""


def layouts(state) -> dict[str, list[str]]:
    """Parameter -> how it, its average and its two moments are laid out over the mesh."""
    adam = state.opt_state[1][0]
    trees = [jax.tree.leaves_with_path(tree) for tree in (state.params, state.ema, adam.mu, adam.nu)]
    return {
        jax.tree_util.keystr(leaves[0][0]): [str(x.sharding.spec) for _, x in leaves]
        for leaves in zip(*trees, strict=True)
    }


@pytest.fixture(scope="module")
def eight_devices(small, make_batch):
    flags = f"--xla_force_host_platform_device_count=8 {os.environ.get('XLA_FLAGS', '')}"
    result = subprocess.run(
        [sys.executable, "-c", EIGHT],
        input=pickle.dumps((small, padded_batches(make_batch, small), __file__)),
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["(8, 1, 1)", "(2, 4, 1)", "(4, 1, 2)"], ids=["data", "data x fsdp", "data x tensor"])
def test_eight_devices_train_as_one(one_device, eight_devices, sizes):
    # Sums in another order differ by 1e-7; twenty steps of AdamW, which divides by small moments, let that grow.
    np.testing.assert_allclose(eight_devices["losses"][sizes], one_device[0], rtol=1e-5)


@pytest.mark.slow
def test_averages_and_moments_are_laid_out_like_their_parameters(eight_devices):
    layouts = eight_devices["layouts"]
    assert all(len(set(layout)) == 1 for layout in layouts.values())
    sharded = {path for path, layout in layouts.items() if "fsdp" in layout[0]}
    assert {
        "['backbone']['embedding']",
        "['backbone']['language']['layers']['attention']['q']['kernel']",
        "['expert']['layers']['feed_forward']['up']['kernel']",
    } <= sharded
    assert not any(path.endswith("['scale']") for path in sharded)


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
