import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax.config import VisionConfig
from pizero_jax.nn.siglip import STEMS, Siglip

VISION = VisionConfig(stem="patch", patch=8, width=16, depth=2, mlp=24, heads=2)


@pytest.mark.parametrize(
    ("stem", "patch", "side", "tokens"), [("patch", 14, 224, 256), ("patch", 8, 32, 16), ("conv", 16, 64, 16)]
)
def test_every_patch_becomes_one_token_as_wide_as_the_language_model(stem, patch, side, tokens):
    siglip = Siglip(dataclasses.replace(VISION, stem=stem, patch=patch), width=40, dtype="float32")
    out, _ = jax.eval_shape(siglip.init_with_output, jax.random.key(0), jnp.zeros((2, side, side, 3)))
    assert out.shape == (2, tokens, 40)


@pytest.mark.parametrize(("patch", "convolutions"), [(4, 1), (8, 2), (16, 3), (32, 4)])
def test_conv_stem_leaves_one_position_per_patch(patch, convolutions):
    stem = STEMS["conv"](dataclasses.replace(VISION, stem="conv", patch=patch, width=48))
    out, variables = jax.eval_shape(stem.init_with_output, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert out.shape == (1, 64 // patch, 64 // patch, 48)
    assert sum(name.startswith("conv_") for name in variables["params"]) == convolutions


def test_tokens_run_row_by_row_and_a_patch_that_moves_moves_its_token():
    siglip = Siglip(VISION, width=8, dtype="float32")
    patch = np.random.default_rng(0).uniform(-1, 1, (8, 8, 3)).astype(np.float32)
    pictures = np.zeros((2, 16, 24, 3), np.float32)  # 2 x 3 patches
    pictures[0, :8, 8:16] = patch  # token 1
    pictures[1, 8:, 16:] = patch  # token 5

    @jax.jit
    def tokens():
        params = nn.unbox(siglip.init(jax.random.key(0), pictures))["params"]
        params["positions"] = jnp.zeros_like(params["positions"])
        return siglip.apply({"params": params}, pictures)

    first, second = np.asarray(tokens())
    np.testing.assert_allclose(first[1], second[5], atol=1e-5)
    np.testing.assert_allclose(first[[0, 2, 3, 4, 5]], second[:5], atol=1e-5)
    assert np.max(np.abs(first[1] - first[0])) > 0.01
