import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pizero_jax.data.episodes import Episode
from pizero_jax.data.transforms import stack
from pizero_jax.serve import open_loop, quantize
from pizero_jax.serve.export import export
from pizero_jax.serve.quantize import with_weights
from tests.serve.test_export import given, outside


@pytest.fixture(scope="module")
def eighth(network):
    return with_weights(network, "int8")


def test_a_number_moves_by_half_a_step_at_most_and_the_largest_of_a_channel_by_nothing():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4)) * jnp.array([1e-3, 1, 10, 0])
    values, scale = quantize.int8(x, (-3, -2))
    assert (values.dtype, scale.shape) == (jnp.int8, (2, 1, 1, 4))
    restored = values * scale
    assert (jnp.abs(restored - x) <= 0.5001 * scale).all()
    largest = jnp.abs(x).max(axis=(1, 2))
    np.testing.assert_allclose(jnp.abs(restored).max(axis=(1, 2)), largest, rtol=1e-6)


def test_each_output_channel_has_a_scale_of_its_own_and_what_is_small_stays(network, eighth):
    before, after = flatten_dict(network.params, sep="/"), flatten_dict(eighth.params, sep="/")
    q, out = "expert/layers/attention/q/kernel", "expert/layers/attention/out/kernel"
    (L, N, _, H), (_, _, _, E) = before[q].shape, before[out].shape
    assert after[f"{q}_scale"].shape == (L, N, 1, H)
    assert after[f"{out}_scale"].shape == (L, 1, 1, E)
    assert after["backbone/embedding_scale"].shape == (len(before["backbone/embedding"]), 1)
    kept = {name for name in before if after[name].dtype == before[name].dtype}
    assert kept
    assert all(name.split("/")[-1] in ("scale", "bias", "positions") or "vision/stem" in name for name in kept)
    assert {after[name].dtype for name in before.keys() - kept} == {jnp.dtype("int8")}


def test_acting_on_int8_is_acting_on_the_weights_that_it_stands_for(network, eighth):
    restored = flatten_dict(eighth.params, sep="/")
    for name in [name for name in restored if name.endswith("_scale")]:
        restored[name.removesuffix("_scale")] = restored[name.removesuffix("_scale")] * restored.pop(name)
    leaves = flatten_dict(network.params, sep="/")
    like = jax.tree.unflatten(jax.tree.structure(network.params), [restored[name] for name in sorted(leaves)])
    rows = [network.processor.observation({"front": np.zeros((16, 16, 3), np.uint8)}, np.zeros(3), "reach")]
    stacked = stack(rows)
    act = jax.jit(network.policy.act)
    found = [act(params, jax.random.key(0), stacked) for params in (eighth.params, like)]
    np.testing.assert_allclose(*found, atol=1e-5)  # float32, sums in another order


def test_the_change_that_is_told_is_that_of_the_exported_folders(network, eighth, tmp_path):
    """In another process, without this package, for observations of a recorded episode."""
    inputs = given(3)
    images = {name: list(inputs[name]) for name in ("front", "wrist")}
    images["wrist"][1] = np.zeros_like(images["wrist"][1])
    actions = np.zeros((3, 2), np.float32)
    episode = Episode(images, inputs["state"], actions, ("reach_the target",), 0, np.ones(3, bool))
    told = quantize.change(network, eighth, [episode])
    assert told["observations"] == 3
    looks, key = np.arange(3), jax.random.key(0)
    chunks = [open_loop.predict(policy, episode, looks, key).astype(np.float64) for policy in (network, eighth)]
    ratio = np.sqrt(np.mean(np.square(chunks[1] - chunks[0]), axis=(0, 1))) / chunks[0].std(axis=(0, 1))
    np.testing.assert_allclose(told["by_dimension"], ratio, rtol=1e-6)
    assert told["relative"] == pytest.approx(np.sqrt(np.mean(ratio**2)), rel=1e-6)
    assert 0 < told["relative"] < 0.1

    found = []
    for name, policy in (("whole", network), ("int8", eighth)):
        export(policy, tmp_path / name, ["cpu"], 2, told if name == "int8" else None)
        found.append(outside(tmp_path / name, tmp_path).astype(np.float64))
    assert json.loads((tmp_path / "int8" / "policy.json").read_text())["quantization"] == told
    outer = quantize.relative(*found)
    assert 0.2 < np.sqrt(np.mean(outer**2)) / told["relative"] < 5  # of other noise
    sizes = [(tmp_path / name / "params.npz").stat().st_size for name in ("whole", "int8")]
    assert sizes[1] < 0.6 * sizes[0]  # a tiny network is half norms, biases and headers


def test_a_dimension_that_does_not_move_is_left_out():
    before = np.stack([np.ones((4, 2)), np.arange(8.0).reshape(4, 2)], axis=-1)
    np.testing.assert_allclose(quantize.relative(before, before + 1), [np.nan, 1 / np.arange(8).std()])
