import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import analysis, policies
from pizero_jax.config import LossConfig
from pizero_jax.errors import InputError
from pizero_jax.nn.attention import rotate, rotations
from pizero_jax.policies.flow import suffix_layout

KEY = jax.random.key(0)
ONE_SAMPLE = LossConfig(samples_per_observation=1, openpi_padding=False, flow_weight=1.0)
PATCHES, PROMPT = 4, 6  # tokens of a camera of `tiny`, and of its prompt
CAMERAS = 2 * PATCHES


@pytest.fixture(scope="module")
def noise(tiny):
    return jax.random.normal(KEY, (3, tiny.chunk, tiny.action_dim))


@pytest.fixture(scope="module")
def shares(tiny_policy, tiny_params, tiny_batch, noise):
    """[L, B, N, C, S] at t = 0.5 of the three rows: the second's prompt is short, the third has no wrist camera."""
    return jax.device_get(analysis.attention(tiny_policy, tiny_params, tiny_batch.observation, noise, 0.5))


@pytest.fixture(scope="module")
def prefix(tiny_policy, tiny_params, tiny_batch):
    return jax.jit(tiny_policy.prefix)(tiny_params, tiny_batch.observation).prefix


@pytest.fixture(scope="module")
def acted(tiny_policy, tiny_params, tiny_batch):
    """What the policy itself does with a noise in three steps."""
    return jax.jit(lambda noise: tiny_policy.act(tiny_params, KEY, tiny_batch.observation, noise=noise, num_steps=3))


def test_attention_is_a_share_of_every_token_that_may_be_seen(tiny, shares):
    assert shares.shape == (2, 3, 4, tiny.chunk, CAMERAS + PROMPT + 1 + tiny.chunk)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
    assert np.all(shares[:, 0] > 0)


def test_masked_tokens_get_no_attention(shares):
    hidden = np.zeros((3, shares.shape[-1]), bool)
    hidden[1, CAMERAS + PROMPT // 2 : CAMERAS + PROMPT] = True
    hidden[2, PATCHES:CAMERAS] = True
    np.testing.assert_array_equal(shares.min(axis=(0, 2, 3)) == 0, hidden)
    assert np.all(shares.max(axis=(0, 2, 3))[hidden] == 0)


def test_attention_of_the_first_layer_is_the_softmax_of_its_own_queries_and_keys(
    tiny, tiny_params, tiny_batch, prefix, noise, shares
):
    """By hand from the weights: norm, projections, positions, softmax; heads 2k and 2k + 1 share the keys k."""

    @jax.jit
    def by_hand(params, state):
        visible, positions = suffix_layout(prefix, jnp.ones((3, tiny.chunk), bool), lead=1, M=1)
        given = state, noise[:, None], jnp.full((3, 1, 1), 0.5)
        lead, actions, _ = policies.pi0.Pi0(tiny).apply({"params": params}, *given, method="embed_suffix")
        x = jnp.concatenate([lead, actions[:, 0]], axis=1)
        layer = jax.tree.map(lambda leaf: leaf[0], params["expert"]["layers"])
        y = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * (1 + layer["attention_norm"]["scale"])
        by = rotations(positions, 8)
        q = rotate(jnp.einsum("btd,ndh->btnh", y, layer["attention"]["q"]["kernel"]), by)
        k = rotate(jnp.einsum("btd,kdh->btkh", y, layer["attention"]["k"]["kernel"]), by)
        k = jnp.concatenate([prefix.keys_values.keys[0], k], axis=1).repeat(2, axis=2)
        logits = jnp.where(visible[:, None], jnp.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(8), -jnp.inf)
        return jax.nn.softmax(logits)[:, :, 1:]

    np.testing.assert_allclose(shares[0], by_hand(tiny_params, tiny_batch.observation.state), atol=1e-5)


def test_a_flow_without_a_state_token_shows_its_attention_too(variants, random_params, make_batch, noise):
    policy = policies.make(variants["pi05_insulated"], ONE_SAMPLE)
    observation = make_batch(variants["pi05_insulated"], 3).observation
    shares = analysis.attention(policy, random_params(policy), observation, noise, 0.5)
    assert shares.shape[-1] == CAMERAS + PROMPT + noise.shape[1]
    assert "state" not in analysis.sequence(variants["pi05_insulated"], observation, shares.shape[-1])
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)


def test_parts_of_the_sequence_are_where_a_token_s_number_says(tiny, tiny_batch):
    size = CAMERAS + PROMPT + 1 + tiny.chunk
    numbers = np.arange(size)
    found = {name: numbers[part].tolist() for name, part in
             analysis.sequence(tiny, tiny_batch.observation, size).items()}  # fmt: skip
    assert found == {
        "base": [0, 1, 2, 3],
        "wrist": [4, 5, 6, 7],
        "prompt": list(range(8, 14)),
        "state": [14],
        "actions": list(range(15, 20)),
    }
    maps = analysis.over_pictures(tiny, tiny_batch.observation, numbers[None])
    np.testing.assert_array_equal(maps["wrist"], [[[4, 5], [6, 7]]])  # row by row from the upper left
    alone = dataclasses.replace(tiny_batch.observation, images={"wrist": tiny_batch.observation.images["wrist"]})
    assert list(analysis.over_pictures(tiny, alone, np.arange(size - PATCHES))) == ["wrist"]


def test_a_path_goes_from_the_noise_to_what_the_policy_does(tiny_policy, tiny_params, tiny_batch, noise, acted):
    path = analysis.denoising_path(tiny_policy, tiny_params, tiny_batch.observation, noise, 3)
    assert path.shape == (4, *noise.shape)
    np.testing.assert_array_equal(path[0], noise)
    np.testing.assert_allclose(path[-1], acted(noise), atol=1e-5)


def test_samples_are_what_the_policy_does_with_each_noise(tiny_policy, tiny_params, tiny_batch, noise, acted):
    found = analysis.samples(tiny_policy, tiny_params, tiny_batch.observation, jnp.stack([noise, -noise]), 3)
    for sample, start in zip(found, (noise, -noise), strict=True):
        np.testing.assert_allclose(sample, acted(start), atol=1e-5)


def test_loss_at_times_is_the_policy_s_loss_at_these_times_over_real_rows(tiny_policy, tiny_params, tiny_batch, noise):
    mask = np.array(tiny_batch.action_mask)
    mask[0], mask[1, 2:] = False, False
    batch = tiny_batch.replace(action_mask=mask)
    found = analysis.loss_at_times(tiny_policy, tiny_params, KEY, batch, jnp.array([0.2, 0.9]))
    values_at = jax.jit(lambda t: tiny_policy.loss(tiny_params, KEY, batch, noise=noise, time=jnp.full(3, t))[0])
    for loss, t in zip(found, (0.2, 0.9), strict=True):
        values = values_at(t)
        assert float(loss) == pytest.approx(float(values[1, :2].mean() + values[2].mean()) / 2, rel=1e-5)


def test_a_policy_over_tokens_has_no_flow_to_look_at(variants, make_batch, noise):
    policy = policies.make(variants["pi0_fast"], ONE_SAMPLE)
    batch = make_batch(variants["pi0_fast"], 3)
    for look in (
        lambda: analysis.attention(policy, {}, batch.observation, noise, 0.5),
        lambda: analysis.denoising_path(policy, {}, batch.observation, noise, 2),
        lambda: analysis.samples(policy, {}, batch.observation, noise[None], 2),
        lambda: analysis.loss_at_times(policy, {}, KEY, batch, jnp.ones(1)),
    ):
        with pytest.raises(InputError, match="has no flow"):
            look()


WEIGHTS = {
    "backbone": {
        "embedding": jnp.array([3.0, -4.0]),
        "vision": {"layers": {"up": {"kernel": jnp.array([[1.0], [1.0]])}}},
    },
    "action_in": {"kernel": jnp.array([[0.0, 2.0]]), "bias": jnp.array([1.0])},
}


def test_parameters_are_summed_up_by_module():
    rows = {row.pop("module"): row for row in analysis.parameters(WEIGHTS)}
    assert list(rows) == ["action_in", "backbone/embedding", "backbone/vision/layers", "all"]
    assert rows["action_in"] == dict(parameters=3, mean=1.0, std=pytest.approx((2 / 3) ** 0.5), largest=2.0)
    assert rows["backbone/embedding"] == dict(parameters=2, mean=-0.5, std=pytest.approx(3.5), largest=4.0)
    assert rows["all"]["parameters"] == 7
    assert "backbone/vision/layers/up" in analysis.by_module(WEIGHTS, depth=3)


def test_drift_is_the_distance_and_its_share_of_the_length():
    moved = jax.tree.map(lambda x: x, WEIGHTS)
    moved["backbone"]["embedding"] = moved["backbone"]["embedding"] + jnp.array([0.3, 0.4])
    rows = {row.pop("module"): row for row in analysis.drift(moved, WEIGHTS)}
    assert rows["backbone/embedding"] == dict(distance=pytest.approx(0.5), relative=pytest.approx(0.1))
    assert rows["action_in"] == dict(distance=0, relative=0)
    assert rows["all"]["distance"] == pytest.approx(0.5)


def test_a_checkpoint_does_not_drift_from_itself(tiny_params):
    assert {row["distance"] for row in analysis.drift(tiny_params, tiny_params)} == {0.0}


def test_drift_from_zero_has_no_share():
    [row, _] = analysis.drift({"a": {"b": jnp.ones(4)}}, {"a": {"b": jnp.zeros(4)}})
    assert row == {"module": "a", "distance": 2.0, "relative": None}


def test_checkpoints_of_different_policies_are_refused_by_name():
    other = WEIGHTS | {"action_in": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(1)}}
    with pytest.raises(InputError, match=r"'action_in/kernel' is \(1, 2\) in one checkpoint and \(2, 2\) in the other"):
        analysis.drift(WEIGHTS, other)


def test_what_the_sequence_sees(tiny, prefix):
    """Pictures and prompt see each other, the state also itself, the actions all; nobody sees what is masked."""
    seen, _ = suffix_layout(prefix, jnp.ones((3, tiny.chunk), bool), lead=1, M=1)
    mask = analysis.visible(prefix.mask, seen)[1]
    S = CAMERAS + PROMPT
    real = np.r_[np.ones(CAMERAS + PROMPT // 2), np.zeros(PROMPT // 2)].astype(bool)
    for token, suffix in ((0, 0), (S - 1, 0), (S, 1), (S + 1, 1 + tiny.chunk), (S + tiny.chunk, 1 + tiny.chunk)):
        np.testing.assert_array_equal(mask[token], np.r_[real, np.arange(1 + tiny.chunk) < suffix])
