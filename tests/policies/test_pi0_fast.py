import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.config import LossConfig
from pizero_jax.nn.paligemma import BLOCK
from pizero_jax.policies.pi0_fast import END, PAD
from pizero_jax.types import Batch

KEY = jax.random.key(0)
LOSS = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)


@pytest.fixture(scope="module")
def config(variants):
    return variants["pi0_fast"]


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, LOSS)


@pytest.fixture(scope="module")
def params(policy, random_params):
    return random_params(policy)


@pytest.fixture(scope="module")
def batch(config, make_batch):
    """Three rows: one with a shorter prompt, one without its last camera."""
    return make_batch(config, 3)


def one_by_one(config, policy, params, observation):
    """The likeliest tokens, each from a teacher-forced pass over all before it; rows end at the end of text."""
    B, T = observation.state.shape[0], config.token_length
    ids, done = np.zeros((B, T), int), np.zeros(B, bool)
    logits = jax.jit(lambda ids: policy.logits(params, Batch(observation, None, None, None, ids, None)))
    for i in range(T):
        ids[:, i] = np.where(done, PAD, np.argmax(logits(jnp.asarray(ids))[:, i], axis=-1))
        done |= ids[:, i] == END
    return ids


def test_cached_writing_equals_teacher_forcing(config, policy, params, batch):
    written = jax.jit(policy.act)(params, KEY, batch.observation)
    np.testing.assert_array_equal(written, one_by_one(config, policy, params, batch.observation))
    assert len(np.unique(written)) > 2


def test_openpi_s_positions_skip_one_when_acting(config, params, batch):
    """So that teacher forcing gives other tokens: openpi's fault, kept for its weights."""
    policy = policies.make(dataclasses.replace(config, openpi_positions=True), LOSS)
    whole = batch.observation.replace(image_masks={name: np.ones(3, bool) for name in config.cameras})
    written = jax.jit(policy.act)(params, KEY, whole)
    assert np.any(written != one_by_one(config, policy, params, whole))


def test_an_absent_camera_is_as_no_camera_at_all(config, policy, params, batch):
    seen, last = batch.observation, config.cameras[-1]
    absent = seen.replace(image_masks=seen.image_masks | {last: np.zeros(3, bool)})
    without = seen.replace(
        images={name: x for name, x in seen.images.items() if name != last},
        image_masks={name: x for name, x in seen.image_masks.items() if name != last},
    )
    logits = jax.jit(lambda observation: policy.logits(params, batch.replace(observation=observation)))
    np.testing.assert_allclose(logits(absent), logits(without), atol=1e-4)
    act = jax.jit(policy.act)
    np.testing.assert_array_equal(act(params, KEY, absent), act(params, KEY, without))


def test_with_openpi_s_positions_an_absent_camera_keeps_its_place(config, policy, params, batch):
    openpi = policies.make(dataclasses.replace(config, openpi_positions=True), LOSS)
    ours, theirs = (jax.jit(p.logits)(params, batch) for p in (policy, openpi))
    rows = batch.observation.image_masks[config.cameras[-1]]
    np.testing.assert_allclose(ours[rows], theirs[rows], atol=1e-4)
    assert np.max(np.abs(ours[~rows] - theirs[~rows])) > 1e-2


def test_each_row_stops_at_its_own_end(config, policy, params, batch):
    """The embedding of END is made likely for one row only: it stops, the other rows go on."""
    free = np.asarray(jax.jit(policy.act)(params, KEY, batch.observation))
    row, place = 1, 2
    swapped = jax.tree.map(lambda x: x, params)
    token = free[row, place]
    assert token not in (PAD, END)
    order = np.arange(config.language.vocabulary)
    order[[END, token]] = token, END  # what was `token` is now the end of text
    swapped["backbone"]["embedding"] = params["backbone"]["embedding"][order]
    prompt = np.argsort(order)[batch.observation.prompt]
    written = np.asarray(jax.jit(policy.act)(swapped, KEY, batch.observation.replace(prompt=prompt)))
    for ours, before in zip(written, np.argsort(order)[free], strict=True):
        ends = np.flatnonzero(before == END)
        stop = ends[0] + 1 if len(ends) else len(before)
        np.testing.assert_array_equal(ours[:stop], before[:stop])
        assert np.all(ours[stop:] == PAD)
    assert np.any(written[row] == END)


def test_the_loss_is_the_cross_entropy_of_the_logits(config, policy, params, batch):
    values, weights, _ = jax.jit(policy.loss)(params, KEY, batch)
    log_p = jax.nn.log_softmax(jax.jit(policy.logits)(params, batch))
    expected = -np.take_along_axis(np.asarray(log_p), batch.action_tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(values, expected * batch.action_token_mask, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(weights, batch.action_token_mask)


def test_padded_tokens_change_nothing(policy, params, batch):
    loss = jax.jit(lambda ids: policy.loss(params, KEY, batch.replace(action_tokens=ids))[0])
    other = np.where(batch.action_token_mask, batch.action_tokens, 3)
    assert np.any(other != batch.action_tokens)
    np.testing.assert_array_equal(loss(batch.action_tokens), loss(other))


def test_no_array_of_all_logits_exists_in_training(config, variants, make_batch):
    """The largest float array of forward and backward pass has BLOCK tokens of logits, not all (memory)."""
    V, T = 1000, 64
    config = dataclasses.replace(
        config, token_length=T, language=dataclasses.replace(config.language, vocabulary=V), cameras=("base",)
    )
    policy = policies.make(config, LOSS)
    batch = make_batch(config, 2)
    step = jax.grad(lambda params: policy.loss(params, KEY, batch)[0].sum())
    sizes = set(array_sizes(jax.make_jaxpr(step)(jax.eval_shape(policy.init, KEY)).jaxpr))
    assert 2 * BLOCK * V in sizes
    assert 2 * T * V not in sizes


def array_sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars if hasattr(x.aval, "size"))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from array_sizes(inner)


def test_temperature_draws(policy, params, batch):
    act = jax.jit(policy.act, static_argnames="temperature")
    drawn = [act(params, jax.random.key(i), batch.observation, temperature=5.0) for i in range(2)]
    assert np.any(drawn[0] != drawn[1])
    cold = act(params, KEY, batch.observation, temperature=1e-4)
    np.testing.assert_array_equal(cold, act(params, KEY, batch.observation))
