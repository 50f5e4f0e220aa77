import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from pizero_jax import mesh as meshes
from pizero_jax.config import MeshConfig, TrainConfig, build
from pizero_jax.train import optimizer
from pizero_jax.train.loop import Stopwatch, advance, fit
from pizero_jax.types import Policy


def waited(seconds_per_batch: float) -> float:
    """The measured waiting of four quick steps on batches that take this long to come."""

    def batches():
        while True:
            time.sleep(seconds_per_batch)
            yield np.ones(8, np.float32)

    step = jax.jit(lambda state, batch: (state + 1, {"loss": batch.sum()}))
    mesh, clock = meshes.make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1)), Stopwatch(batch_size=8)
    steps = [done for done, *_ in advance(step, np.float32(0), batches(), mesh, clock, 3, 7)]
    assert steps == [4, 5, 6, 7]
    return clock.waited


def test_a_device_that_is_done_before_its_batch_comes_has_waited():
    assert waited(0.2) >= 3 * 0.2  # the first batch is fetched before any step


def test_no_batch_is_fetched_after_the_last_step():
    fetched = iter([np.ones(8, np.float32)] * 2)
    step = jax.jit(lambda state, batch: (state, {"loss": batch.sum()}))
    mesh = meshes.make_mesh(MeshConfig(data=-1, fsdp=1, tensor=1))
    assert len(list(advance(step, np.float32(0), fetched, mesh, Stopwatch(8), 0, 2))) == 2


def test_the_logged_rate_is_that_of_the_last_update(tmp_path, tiny, make_batch):
    """Skipped steps, here 2 to 4, are no updates; nor were those before a run was resumed, here at 4."""
    c = base.get_config()
    c.batch_size, c.log.every, c.checkpoint.every, c.wandb.mode = 2, 1, 4, "disabled"
    c.optimizer.update(warmup=0, decay_steps=10, peak=1.0, end=0.0)

    def batches(start):
        for step in range(start, 9):
            batch = make_batch(tiny, 2, step)
            yield batch.replace(actions=batch.actions * np.nan) if 1 <= step < 4 else batch

    def init(key):
        return {"w": nn.LogicallyPartitioned(jnp.zeros(tiny.action_dim), (None,))}

    def loss(params, key, batch):
        return jnp.square(batch.actions - params["w"]).mean(axis=-1), jnp.ones(batch.actions.shape[:2]), {}

    for c.steps in (4, 6):
        config = build(TrainConfig, c)
        fit(config, Policy(init, loss, act=None), meshes.make_mesh(config.mesh), batches, {}, tmp_path, {"config": {}})
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record.get("skipped", 0) for record in records] == [0, 1, 1, 1, 0, 0]
    rate = optimizer.learning_rate(config.optimizer)
    expected = [float(rate(k)) for k in (0, 0, 0, 0, 1, 2)]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected)
