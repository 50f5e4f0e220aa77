"""A policy of L square matrices, whose bytes are known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.sharding import AbstractMesh

from configs import base
from pizero_jax import config as configs
from pizero_jax.mesh import AXES
from pizero_jax.train.estimate import step_bytes
from pizero_jax.train.plan import abstract_run
from pizero_jax.types import Policy

L, D = 4, 512  # 2^20 elements: large enough that they must lie in parts
FLOAT = 4


def make(config, loss):
    def init(key):
        weight = jnp.zeros((L, D, D))
        return {"layers": {"weight": nn.LogicallyPartitioned(weight, ("layers", "embed", "mlp"))}}

    def layer(x, weight):
        return jnp.sin(x @ weight), None

    def losses(params, key, batch, *, noise=None, time=None):
        x = jnp.repeat(batch.actions[:, 0, :1], D, axis=1)
        body = layer if config.remat == "none" else jax.checkpoint(layer)
        x, _ = jax.lax.scan(body, x, params["layers"]["weight"])
        return x[:, :1], jnp.ones((len(x), 1)), {}

    return Policy(init, losses, lambda params, key, observation: observation.state)


@pytest.fixture
def config(tiny):
    whole = configs.build(configs.TrainConfig, base.get_config())
    return dataclasses.replace(whole, policy=dataclasses.replace(tiny, remat="full"), batch_size=32)


def estimated(config, *sizes):
    return step_bytes(make, abstract_run(make, config, AbstractMesh(sizes, AXES)))


def test_bytes_on_a_device_are_those_counted_by_hand(config):
    rows, weights = 32 // 8, L * D * D * FLOAT // 4
    pictures, prompt, chunk = 2 * (16 * 16 * 3 + 1), 6 * (4 + 1), 5 * (4 * FLOAT + 1) + 4
    assert estimated(config, 2, 4, 1) == {
        "parameters that learn": weights,
        "frozen": 0,
        "optimiser": 2 * weights + 2 * 4,  # moments, and the counts of Adam and of the learning rate
        "average": weights,
        "batch": rows * (pictures + 3 * FLOAT + prompt + chunk),
        "gradients": weights,
        "kept for the backward pass": rows * L * D * FLOAT,  # the input of each layer
        "one layer's work": rows * D * FLOAT,  # the cosine of the product
        "one layer's weights, gathered": D * D * FLOAT,
    }


def test_without_remat_everything_is_kept_and_no_layer_works_again(config):
    config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, remat="none"))
    found = estimated(config, 8, 1, 1)
    assert found["kept for the backward pass"] == 4 * 2 * L * D * FLOAT
    assert found["one layer's work"] == 0
    assert found["one layer's weights, gathered"] == 0  # they are whole


def test_knobs_change_what_they_should(config):
    before = estimated(config, 1, 8, 1)
    halves = estimated(dataclasses.replace(config, accumulation=2), 1, 8, 1)
    assert halves["kept for the backward pass"] * 2 == before["kept for the backward pass"]
    assert halves["gradients"] == 2 * before["gradients"]  # of a micro-batch, and their sum
    half = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, ema_dtype="bfloat16"))
    assert estimated(half, 1, 8, 1)["average"] * 2 == before["average"]
    assert estimated(dataclasses.replace(config, batch_size=64), 1, 8, 1)["batch"] == 2 * before["batch"]
