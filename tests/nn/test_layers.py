import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.nn.layers import AdaptiveRMSNorm, RMSNorm, sincos

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "pure_nn.npz")


def test_rms_norm_is_openpi_s():
    y, gate = RMSNorm().apply({"params": {"scale": GOLDEN["rmsnorm/scale"]}}, GOLDEN["rmsnorm/x"])
    assert gate == 1
    np.testing.assert_allclose(y, GOLDEN["rmsnorm/out"], rtol=1e-6, atol=1e-6)


def test_rms_norm_has_unit_mean_square_and_keeps_the_type():
    x = 100 * GOLDEN["rmsnorm/x"]
    y, _ = RMSNorm().apply({"params": {"scale": np.zeros(32, np.float32)}}, x)
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1, rtol=1e-5)
    assert RMSNorm().apply({"params": {"scale": np.zeros(32)}}, x.astype(jnp.bfloat16))[0].dtype == jnp.bfloat16


def test_adaptive_rms_norm_is_openpi_s():
    params = {"modulation": {"kernel": GOLDEN["adarms/kernel"], "bias": GOLDEN["adarms/bias"]}}
    y, gate = AdaptiveRMSNorm().apply({"params": params}, GOLDEN["rmsnorm/x"], GOLDEN["adarms/cond"][:, None])
    np.testing.assert_allclose(y, GOLDEN["adarms/out"], rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(gate[:, :1], GOLDEN["adarms/gate"], rtol=1e-6, atol=1e-6)


def test_each_block_of_tokens_has_its_own_condition():
    params = {"modulation": {"kernel": GOLDEN["adarms/kernel"], "bias": GOLDEN["adarms/bias"]}}
    x, condition = GOLDEN["rmsnorm/x"][:, :4], GOLDEN["adarms/cond"]
    norm = functools.partial(AdaptiveRMSNorm().apply, {"params": params})
    both = norm(x, np.stack([condition, 2 * condition], axis=1))
    first, second = norm(x[:, :2], condition[:, None]), norm(x[:, 2:], 2 * condition[:, None])
    for together, a, b in zip(both, first, second, strict=True):
        np.testing.assert_allclose(together, np.concatenate([a, b], axis=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [32, 64, 1024])
def test_time_embedding_is_openpi_s(width):
    # Angles reach 2 pi / 0.004 = 1571, where float32 is 1.2e-4 coarse: openpi's own rounding, not ours alone.
    y = sincos(jnp.asarray(GOLDEN["posemb_sincos/t"]), width)
    np.testing.assert_allclose(y, GOLDEN[f"posemb_sincos/{width}"], rtol=0, atol=5e-4)


def test_time_embedding_starts_with_zero_phase_and_its_slowest_wave_takes_four_units():
    y = sincos(jnp.array([0.0, 1.0]), 8)
    np.testing.assert_array_equal(y[0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(y[1, [3, 7]], [1, 0], atol=1e-6)  # a quarter of the wave
