import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pizero_jax import policies
from pizero_jax.config import LossConfig, Pi0FastConfig, Pi05Config

KEY = jax.random.key(0)
LOSS = LossConfig(samples_per_observation=2, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="module")
def config(variants):
    return variants["pi05_insulated"]


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, LOSS)


@pytest.fixture(scope="module")
def params(policy, random_params):
    return random_params(policy)


@pytest.fixture(scope="module")
def batch(config, make_batch):
    return make_batch(config, 3)


def gradient(policy, params, batch, name):
    loss = jax.grad(lambda params: policy.loss(params, KEY, batch)[0][name].sum())
    return flatten_dict(jax.jit(loss)(params), sep="/")


def test_no_gradient_of_the_flow_reaches_the_backbone(policy, params, batch):
    for path, x in gradient(policy, params, batch, "flow").items():
        assert np.any(x) != path.startswith("backbone/"), path  # exactly zero there, and nowhere else


def test_no_gradient_of_the_tokens_reaches_the_expert(policy, params, batch):
    untouched = {path for path, x in gradient(policy, params, batch, "tokens").items() if not np.any(x)}
    assert untouched == {path for path in flatten_dict(params, sep="/") if not path.startswith("backbone/")}


def test_the_flow_is_pi05_s(config, policy, params, batch):
    """Insulation changes gradients, not values."""
    plain = {field.name: getattr(config, field.name) for field in dataclasses.fields(Pi05Config)}
    pi05 = policies.make(Pi05Config(**plain | {"name": "pi05"}), LOSS)
    values, weights, _ = jax.jit(policy.loss)(params, KEY, batch)
    expected, expected_weights, _ = jax.jit(pi05.loss)(params, KEY, batch)
    np.testing.assert_allclose(values["flow"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights["flow"], expected_weights)
    act = [jax.jit(p.act)(params, KEY, batch.observation) for p in (policy, pi05)]
    np.testing.assert_array_equal(*act)


def test_loss_and_gradient_of_the_tokens_are_those_of_the_backbone_alone(config, policy, params, batch):
    """So tokens and actions do not see each other."""
    names = {field.name for field in dataclasses.fields(Pi0FastConfig)} & {f.name for f in dataclasses.fields(config)}
    alone = {name: getattr(config, name) for name in names} | {"name": "pi0_fast", "openpi_positions": False}
    fast, backbone = policies.make(Pi0FastConfig(**alone), LOSS), {"backbone": params["backbone"]}
    ours = jax.jit(policy.loss)(params, KEY, batch)[0]["tokens"]
    np.testing.assert_allclose(ours, jax.jit(fast.loss)(backbone, KEY, batch)[0], rtol=1e-5, atol=1e-6)
    of_tokens = jax.jit(jax.grad(lambda params: fast.loss(params, KEY, batch)[0].sum()))(backbone)
    both = gradient(policy, params, batch, "tokens")
    for path, x in flatten_dict(of_tokens, sep="/").items():
        np.testing.assert_allclose(both[path], x, rtol=1e-3, atol=1e-5, err_msg=path)


def test_the_flow_does_not_see_the_tokens(policy, params, batch):
    loss = jax.jit(lambda ids: policy.loss(params, KEY, batch.replace(action_tokens=ids))[0])
    one, other = loss(batch.action_tokens), loss((batch.action_tokens + 1) % 16)
    np.testing.assert_array_equal(one["flow"], other["flow"])
    assert np.any(one["tokens"] != other["tokens"])


def test_the_weight_of_the_flow_scales_its_loss_alone(config, policy, params, batch):
    heavy = policies.make(config, dataclasses.replace(LOSS, flow_weight=10.0))
    one, ten = (jax.jit(p.loss)(params, KEY, batch)[0] for p in (policy, heavy))
    np.testing.assert_allclose(ten["flow"], 10 * one["flow"], rtol=1e-5)
    np.testing.assert_array_equal(ten["tokens"], one["tokens"])
