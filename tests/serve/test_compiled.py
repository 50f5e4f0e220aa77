import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax import policies
from pizero_jax.data.transforms import Processor
from pizero_jax.errors import InputError
from pizero_jax.serve.compiled import compile_policy
from pizero_jax.serve.policy import TrainedPolicy
from tests.conftest import ONE_SAMPLE


@pytest.fixture(scope="module")
def network(tiny, seeing, random_params) -> TrainedPolicy:
    """A real network of two layers, in the sizes and with the statistics of the tests' formula."""
    language = dataclasses.replace(tiny.language, vocabulary=259)
    like = seeing.config.policy
    same = {name: getattr(like, name) for name in ("cameras", "image_size", "prompt_length", "state_dim", "chunk")}
    config = dataclasses.replace(tiny, **same, action_dim=like.action_dim, language=language, num_steps=2)
    policy = policies.make(config, ONE_SAMPLE)
    run = dataclasses.replace(seeing.config, policy=config)
    processor = Processor(config, run.data, seeing.statistics)
    return dataclasses.replace(seeing, policy=policy, params=random_params(policy), config=run, processor=processor)


@pytest.fixture(scope="module")
def programs(network):
    return compile_policy(network, (1, 4), (2, 3))


def asked(network, count):
    rng = np.random.default_rng(0)
    observations = [
        {"images": {c: rng.integers(0, 256, (16, 16, 3), np.uint8) for c in ("front", "wrist")},
         "state": rng.standard_normal(3).astype(np.float32)}
        for _ in range(count)
    ]  # fmt: skip
    del observations[-1]["images"]["wrist"]
    rows = [network.processor.observation(o["images"], o["state"], "reach") for o in observations]
    return observations, rows, np.stack([o["state"] for o in observations]), [(7, i) for i in range(count)]


@pytest.mark.parametrize("num_steps", [2, 3])
def test_rows_of_a_filled_up_batch_are_those_of_the_policy_alone(network, programs, num_steps):
    observations, rows, states, seeds = asked(network, 3)
    actions, well_formed, _ = programs.infer(rows, states, seeds, num_steps)
    assert actions.shape == (3, network.config.policy.chunk, 2)
    assert well_formed.all()
    for observation, found, (seed, look) in zip(observations, actions, seeds, strict=True):
        key = jax.random.fold_in(jax.random.key(seed), look)
        alone = network.infer(observation, "reach", key, num_steps=num_steps)
        np.testing.assert_allclose(found, alone, atol=2e-5)  # float32, in batches of other sizes


def test_without_solver_steps_the_first_ones_are_taken(network, programs):
    _, rows, states, seeds = asked(network, 1)
    first, _, _ = programs.infer(rows, states, seeds, None)
    np.testing.assert_array_equal(first, programs.infer(rows, states, seeds, 2)[0])
    assert not np.allclose(first, programs.infer(rows, states, seeds, 3)[0])


def test_weights_of_a_later_checkpoint_take_the_place_of_those_before_without_compiling(network, programs):
    later = dataclasses.replace(network, params=jax.tree.map(lambda x: 0.5 * x, network.params), step=8)
    replaced = programs.replaced(later)
    assert replaced._compiled is programs._compiled
    _, rows, states, seeds = asked(network, 1)
    key = jax.random.fold_in(jax.random.key(7), 0)
    observations, *_ = asked(network, 1)
    found, _, _ = replaced.infer(rows, states, seeds, 2)
    np.testing.assert_allclose(found[0], later.infer(observations[0], "reach", key, num_steps=2), atol=2e-5)


def test_weights_in_half_the_memory_act_about_alike(network, programs):
    halved = compile_policy(network, (1,), (2,), "bfloat16")
    assert {x.dtype for x in jax.tree.leaves(halved.params)} == {jnp.dtype("bfloat16")}
    _, rows, states, seeds = asked(network, 1)
    full, half = (p.infer(rows, states, seeds, 2)[0] for p in (programs, halved))
    error = np.sqrt(np.mean((full - half) ** 2)) / full.std()
    assert 0 < error < 0.05  # bfloat16 has 8 bits


def test_solver_steps_of_a_policy_without_a_solver_are_refused(seeing):
    tokens = dataclasses.replace(seeing, policy=seeing.policy._replace(velocity=None))
    with pytest.raises(InputError, match="num_steps = 3: 'pi0' has no solver"):
        compile_policy(tokens, (1,), (3,))


def test_a_solver_whose_noise_is_a_batch_s_is_refused(network):
    config = dataclasses.replace(network.config.policy, solver="ddpm")
    with pytest.raises(InputError, match="'ddpm' draws noise in every step"):
        compile_policy(dataclasses.replace(network, config=dataclasses.replace(network.config, policy=config)))
