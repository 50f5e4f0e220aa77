"""The published models against openpi's own code; `tests/golden/README.md` says how the numbers came about.

The comments give the differences seen (jax 0.10.2, CPU, float32). They come from float32 alone: openpi's own numbers
differ from a float64 evaluation of the same weights by up to 1.7e-4 in v_t and 3.5e-5 in the loss.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.nn.paligemma import Prefix
from pizero_jax.policies.flow import suffix_layout
from pizero_jax.policies.pi0 import Pi0
from pizero_jax.policies.pi0_fast import Pi0Fast
from pizero_jax.policies.pi05 import Pi05
from pizero_jax.types import Batch
from pizero_jax.weights import openpi

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = {"pi0": Pi0, "pi05": Pi05, "pi0_fast": Pi0Fast}
KEY = jax.random.key(0)


def batch(arrays, where="in") -> Batch:
    prefix = f"{where}/"
    inputs = {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
    return openpi.batch({key: x for key, x in inputs.items() if not key.startswith("decode_")})


def case(name: str) -> SimpleNamespace:
    arrays = dict(np.load(GOLDEN / f"{name}_dummy.npz"))
    weights = openpi.read(arrays)
    policy = policies.make(weights.config, weights.loss)
    network = NETWORKS[weights.config.name](weights.config)
    return SimpleNamespace(arrays=arrays, policy=policy, network=network, **weights._asdict())


def assert_gradients(ours, file: str):
    """Each leaf's largest difference, in units of the leaf's norm or of 1e-4 of the norm of all."""
    theirs = dict(np.load(GOLDEN / file))
    ours = {path: np.asarray(x) for path, x in openpi.to_openpi(ours).items()}
    assert ours.keys() == theirs.keys()
    total = np.sqrt(sum(np.sum(x**2) for x in theirs.values()))
    differences = {k: np.abs(ours[k] - x).max() / max(np.linalg.norm(x), 1e-4 * total) for k, x in theirs.items()}
    worst = max(differences, key=differences.get)
    assert differences[worst] < 1e-4, worst  # pi0 9.6e-6, pi0.5 5.5e-6, pi0-FAST 6.1e-6


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def flow(request):
    flow = case(request.param)
    flow.batch = batch(flow.arrays)
    return flow


def test_the_config_is_inferred_from_the_arrays(flow):
    assert flow.config.attention == dataclasses.replace(
        flow.config.attention, depth=4, heads=8, kv_heads=1, head_dim=16
    )
    assert (flow.config.image_size, flow.config.vision.patch, flow.config.vision.heads) == (56, 14, 4)
    assert (flow.config.language.vocabulary, flow.config.expert.mlp, flow.config.action_dim) == (2048, 128, 32)


def test_tokens_and_outputs_of_both_experts_are_openpi_s(flow):
    arrays = flow.arrays

    @jax.jit
    def outputs(params):
        def inside(network):
            tokens, mask, _ = network.backbone.embed(flow.batch.observation)
            cache = network.read(flow.batch.observation, output=True)
            x_t, t = arrays["in/noisy_actions"][:, None], arrays["in/time"][:, None]
            return tokens, mask, cache.prefix.output, network.suffix(cache, x_t, t)

        return flow.network.apply({"params": params}, method=inside)

    tokens, mask, prefix_out, suffix_out = outputs(flow.params)
    np.testing.assert_array_equal(mask, arrays["out/prefix_mask"])
    valid = arrays["out/prefix_mask"]
    np.testing.assert_allclose(tokens[valid], arrays["out/prefix_tokens"][valid], rtol=0, atol=1e-4)
    np.testing.assert_allclose(prefix_out[valid], arrays["out/prefix_out"][valid], rtol=0, atol=5e-4)
    np.testing.assert_allclose(suffix_out, arrays["out/suffix_out"], rtol=0, atol=5e-4)


def test_the_suffix_sees_and_stands_where_openpi_s_does(flow):
    mask, C = flow.arrays["out/prefix_mask"], flow.batch.actions.shape[1]
    prefix = Prefix(None, jax.numpy.asarray(mask), jax.numpy.asarray(mask.sum(axis=1)), None)
    lead = flow.arrays["out/suffix_tokens"].shape[1] - C
    visible, positions = suffix_layout(prefix, np.ones((len(mask), C), bool), lead, 1)
    np.testing.assert_array_equal(visible, flow.arrays["out/attn_mask"][:, mask.shape[1] :])
    np.testing.assert_array_equal(positions, flow.arrays["out/positions"][:, mask.shape[1] :])


def test_velocity_is_openpi_s(flow):
    velocity = jax.jit(lambda params: flow.policy.velocity(params, flow.policy.prefix(params, seen), x_t, t))
    seen, x_t, t = flow.batch.observation, flow.arrays["in/noisy_actions"], flow.arrays["in/time"]
    np.testing.assert_allclose(velocity(flow.params), flow.arrays["out/v_t"], rtol=0, atol=4e-4)  # 3.7e-5, 1.1e-5


def test_loss_and_gradients_are_openpi_s(flow):
    def mean_loss(params):
        given = dict(noise=flow.arrays["in/noise"], time=flow.arrays["in/time"])
        values, weights, _ = flow.policy.loss(params, KEY, flow.batch, **given)
        return values.sum() / weights.sum(), values

    (_, values), gradients = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(flow.params)
    np.testing.assert_allclose(values, flow.arrays["out/loss"], rtol=0, atol=1e-4)  # 1.0e-5, 3.3e-6
    assert_gradients(gradients, f"{flow.config.name}_dummy_grads.npz")


@pytest.mark.parametrize("num_steps", [10, 4])
def test_samples_are_openpi_s(flow, num_steps):
    act = jax.jit(flow.policy.act, static_argnames="num_steps")
    given = dict(noise=flow.arrays["in/sample_noise"], num_steps=num_steps)
    actions = act(flow.params, KEY, flow.batch.observation, **given)
    theirs = flow.arrays[f"out/sample_actions_{num_steps}"]
    np.testing.assert_allclose(actions, theirs, rtol=0, atol=5e-4)  # pi0 7.8e-5, 1.6e-5; pi0.5 1.6e-5, 3.2e-6


def test_bfloat16_is_as_far_from_float32_as_openpi_s(flow):
    policy = policies.make(dataclasses.replace(flow.config, dtype="bfloat16"), flow.loss)
    seen, x_t, t = flow.batch.observation, flow.arrays["in/noisy_actions"], flow.arrays["in/time"]
    ours = jax.jit(lambda params: policy.velocity(params, policy.prefix(params, seen), x_t, t))(flow.params)
    theirs, exact = flow.arrays["out/bf16/v_t"], flow.arrays["out/v_t"]
    # Roundings differ, their size should not.
    assert np.mean(np.abs(ours - exact)) < 1.5 * np.mean(np.abs(theirs - exact))


@pytest.fixture(scope="module")
def fast():
    fast = case("pi0_fast")
    fast.batch = batch(fast.arrays)
    assert fast.batch.action_token_mask.sum(axis=1).tolist() == [7, 7]
    return fast


def test_fast_logits_are_openpi_s(fast):
    logits = jax.jit(fast.policy.logits)(fast.params, fast.batch)
    before = np.roll(fast.arrays["in/token_loss_mask"], -1, axis=1)[:, :-1]  # the token before each learnt one
    ours = np.asarray(logits)[fast.batch.action_token_mask]
    np.testing.assert_allclose(ours, fast.arrays["out/logits"][before], rtol=0, atol=1e-5)  # 1.1e-6


def test_fast_loss_and_gradients_are_openpi_s(fast):
    def mean_loss(params):
        values, weights, _ = fast.policy.loss(params, KEY, fast.batch)
        return values.sum() / weights.sum(), values.sum(axis=1) / weights.sum(axis=1)

    (_, by_row), gradients = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(fast.params)
    np.testing.assert_allclose(by_row, fast.arrays["out/loss"], rtol=0, atol=1e-5)  # 4.8e-7
    assert_gradients(gradients, "pi0_fast_dummy_grads.npz")


def test_fast_writes_openpi_s_tokens(fast):
    act = jax.jit(fast.policy.act, static_argnames="num_tokens")
    tokens = act(fast.params, KEY, batch(fast.arrays, "in/decode_allvalid").observation, num_tokens=16)
    np.testing.assert_array_equal(tokens, fast.arrays["out/decode_allvalid/tokens"])


def test_fast_with_an_absent_camera_begins_as_openpi_does(fast):
    """Then openpi loses as many real tokens from sight as the camera had; `test_pi0_fast.py` shows that ours do not."""
    act = jax.jit(fast.policy.act, static_argnames="num_tokens")
    tokens = act(fast.params, KEY, batch(fast.arrays, "in/decode_masked").observation, num_tokens=1)
    np.testing.assert_array_equal(tokens[:, 0], fast.arrays["out/decode_masked/tokens"][:, 0])
