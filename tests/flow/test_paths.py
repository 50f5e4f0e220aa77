import jax
import jax.numpy as jnp
import numpy as np

from pizero_jax.flow.paths import interpolate

ACTIONS, NOISE = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))


def test_the_path_begins_at_data_and_ends_at_noise():
    np.testing.assert_array_equal(interpolate(ACTIONS, NOISE, jnp.zeros((3, 1, 1)))[0], ACTIONS)
    np.testing.assert_array_equal(interpolate(ACTIONS, NOISE, jnp.ones((3, 1, 1)))[0], NOISE)


def test_velocity_is_the_derivative_of_the_point():
    t = jnp.full((3, 1, 1), 0.3)
    _, derivative = jax.jvp(lambda t: interpolate(ACTIONS, NOISE, t)[0], (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(interpolate(ACTIONS, NOISE, t)[1], derivative, rtol=1e-6, atol=1e-6)
