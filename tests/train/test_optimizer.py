import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from configs import base
from pizero_jax import config as configs
from pizero_jax.config import RateRule
from pizero_jax.errors import InputError
from pizero_jax.train import optimizer

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "pure_train.npz")
OPENPI = configs.build(configs.TrainConfig, base.get_config()).optimizer


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cosine_default", {}),
        ("cosine_pi05_libero", dict(peak=5e-5, end=5e-5, warmup=10_000, decay_steps=1_000_000)),
    ],
)
def test_learning_rate_is_openpi_s(name, change):
    rate = optimizer.learning_rate(dataclasses.replace(OPENPI, **change))
    ours = [rate(step) for step in GOLDEN["lr/steps"]]
    np.testing.assert_allclose(ours, GOLDEN[f"lr/{name}"], rtol=2e-6)  # float32


def test_a_run_shorter_than_its_warm_up_has_a_rate():
    rate = optimizer.learning_rate(dataclasses.replace(OPENPI, warmup=10, decay_steps=5))
    assert rate(10) == pytest.approx(OPENPI.peak)


def test_six_steps_are_openpi_s():
    tx = optimizer.make(dataclasses.replace(OPENPI, peak=1e-2, end=1e-3, warmup=2, decay_steps=8))
    params = {name: GOLDEN[f"adamw/p0/{name}"] for name in "ab"}
    average, state = params, tx.init(params)
    assert optimizer.decayed(params) == {"a": True, "b": True}  # openpi decays all leaves, and by next to nothing
    for i in range(6):
        updates, state = tx.update({name: GOLDEN[f"adamw/g{i}/{name}"] for name in "ab"}, state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - OPENPI.ema)
        for name in "ab":
            # Steps are up to 0.01 and known to float32's 1e-7 of parameters near 1.
            np.testing.assert_allclose(params[name], GOLDEN[f"adamw/p{i + 1}/{name}"], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(average[name], GOLDEN[f"adamw/ema{i + 1}/{name}"], rtol=1e-6, atol=1e-7)


def test_clipping_bounds_the_gradient_of_all_leaves_together():
    clipped = optimizer.make(dataclasses.replace(OPENPI, warmup=0)).init({"w": np.ones(4)})
    tx = optimizer.make(dataclasses.replace(OPENPI, warmup=0))
    _, small = tx.update({"w": np.full(4, 0.5)}, clipped, {"w": np.ones(4)})
    _, large = tx.update({"w": np.full(4, 50.0)}, clipped, {"w": np.ones(4)})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), small, large)  # both have norm 1


def test_weight_decay_leaves_biases_scales_and_positions_alone(tiny_params):
    tx = optimizer.make(dataclasses.replace(OPENPI, weight_decay=0.5, warmup=0, peak=0.1))
    nothing = jax.tree.map(np.zeros_like, tiny_params)
    updates, _ = jax.jit(tx.update)(nothing, tx.init(tiny_params), tiny_params)
    moved = {path for path, x in flatten_dict(updates, sep="/").items() if np.any(x)}
    still = flatten_dict(updates, sep="/").keys() - moved
    assert {path.split("/")[-1] for path in still} == {"bias", "scale", "positions"}
    assert {path.split("/")[-1] for path in moved} == {"embedding", "kernel"}


def test_a_rate_of_its_own_scales_the_steps_of_what_fits_first_and_of_nothing_else(tiny_params):
    rules = (RateRule(r"backbone/vision/.*", 0.1), RateRule(r"backbone/.*", 0.5))
    settings = dataclasses.replace(OPENPI, warmup=0, peak=0.1, weight_decay=0.3)
    gradients = jax.tree.map(lambda x: x + 1, tiny_params)

    def updates(config):
        tx = optimizer.make(config)
        return jax.jit(tx.update)(gradients, tx.init(tiny_params), tiny_params)[0]

    plain, scaled = updates(settings), updates(dataclasses.replace(settings, rates=rules))
    for path, x in flatten_dict(scaled, sep="/").items():
        scale = 0.1 if path.startswith("backbone/vision/") else 0.5 if path.startswith("backbone/") else 1
        np.testing.assert_allclose(x, scale * flatten_dict(plain, sep="/")[path], rtol=1e-6)


def test_a_rate_that_fits_nothing_is_an_input_error(tiny_params):
    config = dataclasses.replace(OPENPI, rates=(RateRule("backbone/visoin/.*", 0.1),))
    with pytest.raises(
        InputError, match=r"config.optimizer.rates\[0\].params = 'backbone/visoin/.*' fits no parameter"
    ):
        optimizer.scales(tiny_params, config)
