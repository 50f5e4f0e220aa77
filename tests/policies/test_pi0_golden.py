"""pi0 against openpi's own code; `tests/golden/README.md` says how the numbers came about."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen as nn

from pizero_jax import policies
from pizero_jax.config import AttentionConfig, ExpertConfig, LanguageConfig, LossConfig, VisionConfig
from pizero_jax.types import Batch, Observation
from pizero_jax.weights import openpi

GOLDEN = Path(__file__).parents[1] / "golden"
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
B, C, A = 2, 10, 32

# Tolerances are about ten times the differences seen (in the comments). These come from float32 alone: openpi's numbers
# differ from a float64 evaluation of the same weights by 1.7e-4 in v_t and 3.5e-5 in the loss.


@pytest.fixture(scope="module")
def golden():
    arrays = dict(np.load(GOLDEN / "pi0_dummy.npz"))
    names = ("state", "tokenized_prompt", "tokenized_prompt_mask", "actions", "noise", "time", "noisy_actions")
    inputs = SimpleNamespace(**{name: arrays[f"in/{name}"] for name in (*names, "sample_noise")})
    observation = Observation(
        images={name: arrays[f"in/image/{name}"] for name in CAMERAS},
        image_masks={name: arrays[f"in/image_mask/{name}"] for name in CAMERAS},
        state=inputs.state,
        prompt=inputs.tokenized_prompt,
        prompt_mask=inputs.tokenized_prompt_mask,
    )
    batch = Batch(observation, inputs.actions, np.ones((B, C), bool), np.ones((B, A), bool))
    weights = {key.removeprefix("param/"): x for key, x in arrays.items() if key.startswith("param/")}
    return SimpleNamespace(arrays=arrays, inputs=inputs, batch=batch, params=openpi.pi0_params(weights))


@pytest.fixture(scope="module")
def config(tiny):
    return dataclasses.replace(
        tiny,
        cameras=CAMERAS,
        image_size=56,
        prompt_length=20,
        state_dim=32,
        action_dim=A,
        chunk=C,
        vision=VisionConfig(stem="patch", patch=14, width=48, depth=2, mlp=112, heads=4),
        attention=AttentionConfig(depth=4, heads=8, kv_heads=1, head_dim=16),
        language=LanguageConfig(width=64, mlp=128, vocabulary=2048),
        expert=ExpertConfig(width=64, mlp=128),
    )


@pytest.fixture(scope="module")
def policy(config):
    return policies.make(config, LossConfig(samples_per_observation=1, openpi_padding=True))


@pytest.fixture(scope="module")
def loss_and_gradients(policy, golden):
    def mean_loss(params):
        values, weights, _ = policy.loss(
            params, jax.random.key(0), golden.batch, noise=golden.inputs.noise, time=golden.inputs.time
        )
        return values.sum() / weights.sum(), values

    (_, values), gradients = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(golden.params)
    return values, gradients


def velocity(policy, golden):
    @jax.jit
    def both_passes(params):
        cache = policy.prefix(params, golden.batch.observation)
        return policy.velocity(params, cache, golden.inputs.noisy_actions, golden.inputs.time)

    return both_passes(golden.params)


def test_every_parameter_has_its_counterpart_in_openpi(policy, golden):
    ours = nn.unbox(jax.eval_shape(policy.init, jax.random.key(0)))
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, golden.params)


def test_velocity_is_openpi_s(policy, golden):
    np.testing.assert_allclose(velocity(policy, golden), golden.arrays["out/v_t"], rtol=0, atol=4e-4)  # 3.6e-5


def test_loss_is_openpi_s(loss_and_gradients, golden):
    np.testing.assert_allclose(loss_and_gradients[0], golden.arrays["out/loss"], rtol=0, atol=1e-4)  # 1.2e-5


@pytest.mark.parametrize("num_steps", [10, 4])
def test_samples_are_openpi_s(policy, golden, num_steps):
    act = jax.jit(policy.act, static_argnames="num_steps")
    actions = act(
        golden.params,
        jax.random.key(0),
        golden.batch.observation,
        noise=golden.inputs.sample_noise,
        num_steps=num_steps,
    )
    np.testing.assert_allclose(actions, golden.arrays[f"out/sample_actions_{num_steps}"], rtol=0, atol=5e-4)  # 7.8e-5


def test_gradients_are_openpi_s(loss_and_gradients, golden):
    arrays = dict(np.load(GOLDEN / "pi0_dummy_grads.npz"))
    theirs = openpi.pi0_params({key.removeprefix("grad/"): x for key, x in arrays.items()})
    total = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(theirs)))

    def difference(a, b):  # of the norms; leaves that hardly count are measured by the gradient as a whole
        return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-4 * total)

    differences = jax.tree.map(difference, jax.device_get(loss_and_gradients[1]), theirs)
    worst, path = max((x, jax.tree_util.keystr(path)) for path, x in jax.tree.leaves_with_path(differences))
    assert worst < 3e-4, path  # 2.5e-5


def test_bfloat16_is_as_far_from_float32_as_openpi_s(config, golden):
    arrays = golden.arrays
    policy = policies.make(dataclasses.replace(config, dtype="bfloat16"), LossConfig(1, True))
    ours = np.abs(velocity(policy, golden) - arrays["out/v_t"])
    theirs = np.abs(arrays["out/bf16/v_t"] - arrays["out/v_t"])
    assert np.mean(ours) < 1.5 * np.mean(theirs)  # roundings differ, their size should not
