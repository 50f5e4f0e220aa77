"""MeanFlow and shortcut models; `tests/flow/test_few_steps.py` has what they learn in closed form.

What does not depend on the network is tested with a small one, which compiles in no time.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax import policies
from pizero_jax.config import TwoTimesConfig
from pizero_jax.flow.few_steps import mean_velocity
from pizero_jax.flow.real_time import Plan, steering
from pizero_jax.policies import flow, mean_flow, shortcut, two_times
from pizero_jax.policies.pi0 import Pi0
from pizero_jax.policies.two_times import TwoTimes
from tests.conftest import ONE_SAMPLE

KEY = jax.random.key(0)
OF_NETWORK = {"mean_flow": mean_flow.of_network, "shortcut": shortcut.of_network}
SEVERAL = dataclasses.replace(ONE_SAMPLE, samples_per_observation=16, time="uniform")


class Small(nn.Module):
    """A perceptron of each step, its time, the span and the state."""

    config: TwoTimesConfig

    def setup(self):
        self.into, self.out = nn.Dense(16), nn.Dense(self.config.action_dim)

    def read(self, observation):
        return observation.state

    def velocities(self, cache, x_t, t, steps=None, span=0.0):
        t = t if t.ndim == 3 else t[:, :, None]
        told = jnp.stack([t, t * 0 + span, t * 0 + cache.sum(axis=1)[:, None, None]], axis=-1)
        told = jnp.broadcast_to(told, (*x_t.shape[:3], 3))
        return self.out(nn.tanh(self.into(jnp.concatenate([x_t, told], axis=-1))))

    def __call__(self, observation, x_t, t):
        return self.velocities(self.read(observation), x_t, t)


@pytest.fixture(scope="module")
def make(variants):
    """A function: the policy of the small network by its name, with other settings."""
    return lambda name, loss=ONE_SAMPLE, **changes: OF_NETWORK[name](
        Small(dataclasses.replace(variants[name], **changes)), loss
    )


@pytest.fixture(scope="module")
def params(make, random_params):
    return jax.tree.map(lambda x: 3 * x, random_params(make("mean_flow")))


@pytest.fixture(scope="module")
def unseen(tiny_batch):
    """The batch without pictures, whose tower is not compiled then."""
    return tiny_batch.replace(observation=tiny_batch.observation.replace(images={}, image_masks={}))


@pytest.fixture(scope="module")
def noise(tiny_batch):
    return np.random.default_rng(1).standard_normal(tiny_batch.actions.shape).astype(np.float32)


def said(network, params, observation, x_t, t, span):
    """What a network says of single points, each with its time [B] and its span [B]."""

    def velocities(network):
        return network.velocities(network.read(observation), x_t[:, None], t[:, None], span=span[:, None, None])[:, 0]

    return network.apply({"params": params}, method=velocities)


def test_over_no_time_the_expert_is_pi0_and_so_is_a_fresh_one_over_any(tiny, variants, random_params, unseen, noise):
    """What its suffix is made of, with pi0's own periods."""
    config = dataclasses.replace(variants["mean_flow"], shortest_period=4e-3)
    params, t = random_params(policies.make(config, ONE_SAMPLE)), np.array([0.9, 0.5, 0.2], np.float32)[:, None, None]

    @partial(jax.jit, static_argnums=0)
    def suffix(network, params, **told):
        at = unseen.observation.state, noise[:, None], t
        return jnp.concatenate(network.apply({"params": params}, *at, **told, method="embed_suffix")[1], axis=1)

    expected = suffix(Pi0(tiny), {name: x for name, x in params.items() if name != "span_in"})
    zeroed = params | {"span_in": jax.tree.map(jnp.zeros_like, params["span_in"])}
    network = TwoTimes(config)
    assert network.bind({}).span_in.kernel_init is nn.initializers.zeros
    for found in (suffix(network, params), suffix(network, params, span=0 * t), suffix(network, zeroed, span=t)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(suffix(network, params, span=t) - expected).max() > 1e-2


@pytest.fixture(scope="module")
def learning(variants, random_params):
    """The real network's loss over a batch, the derivative by time included."""
    config = dataclasses.replace(variants["mean_flow"], error_power=1.0)
    policy = policies.make(config, dataclasses.replace(SEVERAL, samples_per_observation=4))
    return partial(jax.jit(policy.loss), random_params(policy), KEY)


@pytest.mark.parametrize("padded", ["steps", "dimensions"])
def test_what_is_padded_in_a_chunk_changes_nothing(learning, unseen, padded):
    steps, dims = unseen.action_mask.copy(), unseen.action_dim_mask.copy()
    (steps if padded == "steps" else dims)[:2, -2:] = False
    real = steps[:, :, None] & dims[:, None]
    batch = unseen.replace(action_mask=steps, action_dim_mask=dims)
    expected = learning(batch)
    garbage = batch.replace(actions=np.where(real, batch.actions, np.nan).astype(np.float32))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), learning(garbage), expected)
    values, weights, _ = expected
    for name in ("flow", "mean"):
        np.testing.assert_array_equal(np.asarray(values[name])[~steps], 0)
        np.testing.assert_array_equal(np.asarray(weights[name])[~steps], 0)
    np.testing.assert_allclose(sum(weights.values()), steps, rtol=1e-6)
    moved, *_ = learning(batch.replace(actions=batch.actions + np.float32(10) * real))
    assert all((moved[name] > values[name]).any() for name in values), "what is real does count"


def test_all_flow_is_the_plain_loss(make, params, tiny_batch, variants):
    """Of the same network as a flow alone, for the same key."""
    policy, plain = make("mean_flow", SEVERAL, flow_share=1.0), flow.make(Small(variants["mean_flow"]), SEVERAL)
    values, weights, metrics = jax.jit(policy.loss)(params, KEY, tiny_batch)
    expected = jax.jit(plain.loss)(params, KEY, tiny_batch)
    np.testing.assert_allclose(values["flow"], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(weights["flow"], expected[1])
    assert not weights["mean"].any()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), metrics, expected[2])


def test_times_that_are_given_ask_for_the_flow_alone(make, params, tiny_batch):
    policy, time = make("mean_flow", flow_share=0.0), np.array([0.2, 0.5, 0.9], np.float32)
    _, weights, metrics = jax.jit(lambda time: policy.loss(params, KEY, tiny_batch, time=time))(time)
    assert weights["flow"].all()
    assert not weights["mean"].any()
    np.testing.assert_array_equal(metrics["time"][:, 0], time)


@pytest.mark.parametrize(("name", "other", "share"), [("mean_flow", "mean", 0.25), ("shortcut", "halves", 0.75)])
def test_the_flow_share_of_the_samples_is_flow(make, params, tiny_batch, name, other, share):
    policy = make(name, dataclasses.replace(SEVERAL, samples_per_observation=640), flow_share=share)
    values, weights, _ = jax.jit(policy.loss)(params, KEY, tiny_batch)
    np.testing.assert_allclose(weights["flow"] + weights[other], 1, rtol=1e-6)
    assert weights["flow"].mean() == pytest.approx(share, abs=0.03)  # of 1,920 samples: a standard error of 0.01
    assert (values[other] > 0).all()


def test_the_mean_velocity_is_asked_for_what_the_identity_says(variants, random_params, tiny_batch):
    """Its derivative by finite differences, each of two samples of a row by itself."""
    M, span, h = 2, 0.3, 1e-2
    network = Small(dataclasses.replace(variants["mean_flow"], flow_share=0.0))
    loss_config = dataclasses.replace(SEVERAL, samples_per_observation=M)
    policy = two_times.make(network, loss_config, "mean", lambda key, t: (t, jnp.full_like(t, span)), mean_velocity)
    params = jax.tree.map(lambda x: 3 * x, random_params(policy))
    values, _, metrics = jax.jit(policy.loss)(params, KEY, tiny_batch)
    keys = [jax.random.split(key)[0] for key in jax.random.split(KEY, 3)]
    noise = jnp.stack([jax.random.normal(key, (M, *tiny_batch.actions.shape[1:])) for key in keys])  # what it drew

    @jax.jit
    def errors(params, noise, t):
        actions, at = tiny_batch.actions, t[:, None, None]
        x_t, v_t = at * noise + (1 - at) * actions, noise - actions
        u = partial(said, network, params, tiny_batch.observation)
        slope = (u(x_t + h * v_t, t + h, span + h + 0 * t) - u(x_t - h * v_t, t - h, span - h + 0 * t)) / (2 * h)
        return jnp.square(u(x_t, t, span + 0 * t) - (v_t - span * slope)).mean(axis=-1)

    by_hand = np.mean([errors(params, noise[:, m], metrics["time"][:, m]) for m in range(M)], axis=0)
    np.testing.assert_allclose(values["mean"], by_hand, rtol=5e-3)  # differences err by h^2


def test_spans_of_a_shortcut_are_powers_of_two_from_their_multiples():
    t, span = jax.jit(lambda key: shortcut.spans(key, jnp.zeros(2000), 3))(KEY)
    assert set(np.unique(span)) == {0.25, 0.5, 1.0}
    for size in (0.25, 0.5, 1.0):
        np.testing.assert_allclose(np.unique(t[span == size]), np.arange(size, 1 + size / 2, size))


@pytest.mark.parametrize(("num_steps", "told"), [(1, 1.0), (4, 0.25), (8, 0.0), (16, 0.0)])
def test_a_shortcut_is_told_in_acting_what_it_learnt(make, params, tiny_batch, variants, noise, num_steps, told):
    """Its smallest step, 1/8 here, learns from data alone, as the flow: over no time at all."""
    policy, network = make("shortcut", halvings=3), Small(variants["shortcut"])

    @jax.jit
    def by_hand(params, x):
        for t in np.arange(num_steps, 0, -1, np.float32) / num_steps:
            at = jnp.full(3, t), jnp.full(3, told)
            x = x - said(network, params, tiny_batch.observation, x, *at) / num_steps
        return x

    act = jax.jit(partial(policy.act, num_steps=num_steps))
    np.testing.assert_allclose(act(params, KEY, tiny_batch.observation, noise=noise), by_hand(params, noise), rtol=1e-4)


def test_acting_goes_over_spans_of_its_own_steps(make, params, tiny_batch, noise, variants):
    policy, network = make("mean_flow"), Small(variants["mean_flow"])

    @jax.jit
    def by_hand(params, x):
        for t in (1.0, 0.5):
            span = jnp.full(3, 0.5)
            x = x - 0.5 * said(network, params, tiny_batch.observation, x, jnp.full(3, t), span)
        return x

    act = jax.jit(partial(policy.act, num_steps=2))
    np.testing.assert_allclose(act(params, KEY, tiny_batch.observation, noise=noise), by_hand(params, noise), rtol=1e-5)
    draws = [act(params, key, tiny_batch.observation) for key in jax.random.split(KEY)]
    assert np.abs(draws[0] - draws[1]).max() > 1e-3


def test_a_chunk_is_led_to_go_on_from_a_plan(make, params, tiny_batch, noise):
    """In a single step, without a delay it is the plain one."""
    policy, planned, num_steps = make("mean_flow"), jnp.asarray(tiny_batch.actions), 1

    @jax.jit
    def act(params, delay):
        steer = steering(Plan(planned, left=delay, delay=delay), False, float(num_steps))
        return policy.act(params, KEY, tiny_batch.observation, noise=noise, num_steps=num_steps, steer=steer)

    plain = jax.jit(partial(policy.act, num_steps=num_steps))(params, KEY, tiny_batch.observation, noise=noise)
    led = act(params, jnp.array([0, 2, 2]))
    np.testing.assert_allclose(led[0], plain[0], atol=1e-5)
    assert np.abs(led - plain)[1:, :2].max() > 1e-3


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_power_of_the_error_changes_gradients_and_no_values(power):
    errors, means = jnp.array([[[1.0, 3.0, 5.0], [0.1, 0.3, 7.0]]]), jnp.array([[2.0, 0.2]])
    values, pull = jax.vjp(lambda errors: two_times.tempered(errors, means, power), errors)
    np.testing.assert_allclose(values, errors, rtol=1e-6)
    (gradient,) = pull(jnp.ones_like(errors))
    weights = (means[..., None] + 1e-3) ** -power
    np.testing.assert_allclose(gradient, np.broadcast_to(weights, errors.shape), rtol=1e-5)
