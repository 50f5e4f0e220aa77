import time

import jax
import numpy as np

from pizero_jax import mesh as meshes
from pizero_jax.config import MeshConfig
from pizero_jax.train.loop import Stopwatch, advance


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
