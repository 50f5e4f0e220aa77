from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.nn.attention import attend, attention_weights, rotate, rotations

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "pure_nn.npz")


def turned(x, positions):
    return rotate(x, rotations(positions, x.shape[-1]))


def test_rotary_positions_are_openpi_s():
    y = turned(jnp.asarray(GOLDEN["rope/x"]), jnp.asarray(GOLDEN["rope/positions"]))
    np.testing.assert_allclose(y, GOLDEN["rope/out"], rtol=0, atol=5e-6)


def test_logits_depend_on_relative_positions_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 6, 2, 16))
    positions = jnp.arange(6)[None]

    def logits(shift):
        return jnp.einsum("BTNH,BSNH->BNTS", turned(q, positions + shift), turned(k, positions + shift))

    np.testing.assert_allclose(logits(0), logits(800), atol=2e-3)  # angles near 800 are 6e-5 coarse, sums of 16 terms
    assert np.max(np.abs(logits(0) - jnp.einsum("BTNH,BSNH->BNTS", q, k))) > 0.1


def test_position_zero_turns_nothing_and_norms_stay():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
    y = turned(x, jnp.array([[0, 5, 900]]))
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6)


def test_one_visible_key_gives_its_value_to_every_query_head_of_its_group():
    q = jax.random.normal(jax.random.key(0), (1, 3, 4, 8))
    k, v = jax.random.normal(jax.random.key(1), (2, 1, 5, 2, 8))
    visible = jnp.arange(5)[None, None] == jnp.array([1, 0, 4])[None, :, None]
    y = attend(q, k, v, visible)
    for query, key in enumerate([1, 0, 4]):
        for head in range(4):
            np.testing.assert_allclose(y[0, query, head], v[0, key, head // 2], rtol=1e-6)


def test_equal_keys_give_the_mean_of_the_visible_values():
    q = jax.random.normal(jax.random.key(0), (1, 1, 2, 8))
    v = jax.random.normal(jax.random.key(1), (1, 5, 2, 8))
    visible = jnp.array([[[True, True, False, True, False]]])
    y = attend(q, jnp.ones_like(v), v, visible)
    np.testing.assert_allclose(y[:, 0], v[:, [0, 1, 3]].mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_the_library_s(kv_heads, dtype):
    q = jax.random.normal(jax.random.key(0), (2, 3, 4, 8), dtype)
    k, v = jax.random.normal(jax.random.key(1), (2, 2, 5, kv_heads, 8), dtype)
    visible = jax.random.bernoulli(jax.random.key(2), 0.5, (2, 3, 5)).at[:, :, 0].set(True)
    for mask in (None, visible, visible[:1], visible[:, :1]):
        found = attend(q, k, v, mask)
        assert found.dtype == dtype
        expected = jax.nn.dot_product_attention(q, k, v, mask=None if mask is None else mask[:, None])
        atol = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(found.astype("float32"), expected.astype("float32"), atol=atol)


def test_attention_weights_are_the_shares_in_which_attend_averages():
    q = jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
    k, v = jax.random.normal(jax.random.key(1), (2, 2, 5, 2, 8))
    visible = jnp.arange(5)[None, None] <= jnp.arange(3)[None, :, None] + jnp.arange(2)[:, None, None]
    shares = attention_weights(q, k, visible)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
    assert np.all(np.asarray(shares)[~np.broadcast_to(visible[:, None], shares.shape)] == 0)
    averaged = jnp.einsum("BNTS,BSNH->BTNH", shares, v.repeat(2, axis=2))
    np.testing.assert_allclose(averaged, attend(q, k, v, visible), atol=1e-5)
