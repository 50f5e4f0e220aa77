import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.train import average


def test_rounding_at_random_has_the_right_mean_and_the_two_neighbours():
    x = jnp.full(100_000, 1.001, jnp.float32)  # between 1 and 1 + 2^-7
    rounded = np.asarray(average.round_at_random(x, jax.random.key(0)), np.float32)
    assert set(rounded.tolist()) == {1.0, 1 + 2**-7}
    deviation = 2**-7 * np.sqrt(0.128 * 0.872 / len(x))  # 0.128 of them lie above
    assert rounded.mean() == pytest.approx(1.001, abs=4 * deviation)


@pytest.mark.parametrize("value", [0.0, -2.5, 3e38])
def test_what_bfloat16_holds_is_not_rounded(value):
    x = jnp.full(100, value, jnp.bfloat16)
    np.testing.assert_array_equal(average.round_at_random(x.astype(jnp.float32), jax.random.key(0)), x)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-3)])
def test_the_average_approaches_parameters_that_stand_still_as_its_formula_says(dtype, tolerance):
    """To the nearest, bfloat16 would stop at once: a step of 0.001 is a quarter of its last digit at 0.5."""
    params = {"w": jnp.ones(4096)}

    def update(mean, key):
        return average.updated(mean, params, 0.999, key), None

    start = {"w": jnp.full(4096, 0.5, dtype)}
    end, _ = jax.jit(lambda keys: jax.lax.scan(update, start, keys))(jax.random.split(jax.random.key(0), 1000))
    assert end["w"].dtype == dtype
    assert float(end["w"].astype(jnp.float32).mean()) == pytest.approx(1 - 0.5 * 0.999**1000, abs=tolerance)
