import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.serve.compiled import Solver, compile_policy
from pizero_jax.serve.policy import Ahead
from pizero_jax.serve.quantize import with_weights
from pizero_jax.serve.request import Names, Reader

TWO, HEUN = Solver(2, "euler"), Solver(3, "heun")


@pytest.fixture(scope="module")
def programs(network):
    return compile_policy(network, (1, 4), (TWO, HEUN))


def asked(network, count):
    rng = np.random.default_rng(0)
    observations = [
        {"images": {c: rng.integers(0, 256, (16, 16, 3), np.uint8) for c in ("front", "wrist")},
         "state": rng.standard_normal(3).astype(np.float32)}
        for _ in range(count)
    ]  # fmt: skip
    rows = [network.processor.observation(o["images"], o["state"], "reach") for o in observations[:-1]]
    last = observations[-1]
    rows.append(network.processor.observation({"front": last["images"]["front"]}, last["state"], "reach"))
    last["images"]["wrist"] = None  # a camera that the robot does not have
    return observations, rows, np.stack([o["state"] for o in observations]), [(7, i) for i in range(count)]


@pytest.mark.parametrize("solver", [TWO, HEUN], ids=str)
def test_rows_of_a_filled_up_batch_are_those_of_the_policy_alone(network, programs, solver):
    observations, rows, states, seeds = asked(network, 3)
    actions, well_formed, _ = programs.infer(rows, states, seeds, solver)
    assert actions.shape == (3, network.config.policy.chunk, 2)
    assert well_formed.all()
    for observation, found, (seed, look) in zip(observations, actions, seeds, strict=True):
        key = jax.random.fold_in(jax.random.key(seed), look)
        alone = network.infer(observation, "reach", key, num_steps=solver.num_steps, solver=solver.method)
        np.testing.assert_allclose(found, alone, atol=2e-5)  # float32, in batches of other sizes


def test_without_solver_steps_the_first_ones_are_taken(network, programs):
    _, rows, states, seeds = asked(network, 1)
    first, _, _ = programs.infer(rows, states, seeds, None)
    np.testing.assert_array_equal(first, programs.infer(rows, states, seeds, TWO)[0])
    assert not np.allclose(first, programs.infer(rows, states, seeds, HEUN)[0])


def test_weights_of_a_later_checkpoint_take_the_place_of_those_before_without_compiling(network, programs):
    later = dataclasses.replace(network, params=jax.tree.map(lambda x: 0.5 * x, network.params), step=8)
    replaced = programs.replaced(later)
    assert replaced._compiled is programs._compiled
    _, rows, states, seeds = asked(network, 1)
    key = jax.random.fold_in(jax.random.key(7), 0)
    observations, *_ = asked(network, 1)
    found, _, _ = replaced.infer(rows, states, seeds, TWO)
    np.testing.assert_allclose(found[0], later.infer(observations[0], "reach", key, num_steps=2), atol=2e-5)


def test_weights_in_half_the_memory_act_about_alike(network, programs):
    halved = compile_policy(with_weights(network, "bfloat16"), (1,), (TWO,))
    assert {x.dtype for x in jax.tree.leaves(halved.trained.params)} == {jnp.dtype("bfloat16")}
    _, rows, states, seeds = asked(network, 1)
    full, half = (p.infer(rows, states, seeds, TWO)[0] for p in (programs, halved))
    error = np.sqrt(np.mean((full - half) ** 2)) / full.std()
    assert 0 < error < 0.05  # bfloat16 has 8 bits


def test_solver_steps_of_a_policy_without_a_solver_are_refused(seeing):
    tokens = dataclasses.replace(seeing, policy=seeing.policy._replace(velocity=None))
    with pytest.raises(InputError, match="num_steps = 3: 'pi0' has no solver"):
        compile_policy(tokens, (1,), (Solver(3, "euler"),))


def test_a_solver_whose_noise_is_a_batch_s_is_refused(network):
    config = dataclasses.replace(network.config.policy, solver="ddpm")
    with pytest.raises(InputError, match="'ddpm' draws noise in every step"):
        compile_policy(dataclasses.replace(network, config=dataclasses.replace(network.config, policy=config)))


@pytest.fixture(scope="module")
def real_time(network):
    return compile_policy(network, (2,), (TWO,), real_time=True)


def test_a_chunk_goes_on_from_what_is_ahead_and_one_without_a_plan_is_as_it_was(network, real_time):
    """Compiled and not; a request without a plan beside others costs no digit."""
    observations, rows, states, seeds = asked(network, 2)
    ahead = [Ahead(np.full((4, 2), 0.5), 2), Ahead(np.zeros((0, 2)), 0)]
    led, _, _ = real_time.infer(rows, states, seeds, TWO, ahead)
    plain, _, _ = real_time.infer(rows, states, seeds, TWO)
    key = jax.random.fold_in(jax.random.key(7), 0)
    np.testing.assert_allclose(led[0], network.infer(observations[0], "reach", key, ahead=ahead[0]), atol=2e-5)
    np.testing.assert_allclose(led[1], plain[1], atol=2e-5)
    assert np.abs(led[0] - 0.5)[:2].max() < 0.5 * np.abs(plain[0] - 0.5)[:2].max()


@pytest.mark.parametrize(
    ("actions", "delay", "message"),
    [
        (np.zeros((3, 5)), 1, r"shape \(3, 5\); finite \[n, 2\]"),
        (np.zeros((99, 2)), 1, "n at most"),
        (np.full((3, 2), np.nan), 1, "finite"),
        (np.zeros((1, 2)), 2, "a delay of 2 actions, and a plan of 1"),
        (np.zeros((1, 2)), -1, "a delay of -1"),
    ],
)
def test_a_wrong_plan_is_refused(network, actions, delay, message):
    with pytest.raises(InputError, match=message):
        network.plan([Ahead(actions, delay)], np.zeros((1, 3)))


def test_a_delay_that_it_was_not_trained_for_is_refused(network):
    loss = dataclasses.replace(network.config.loss, max_delay=1)
    trained = dataclasses.replace(network, config=dataclasses.replace(network.config, loss=loss))
    with pytest.raises(InputError, match="this policy was trained for 1 at most"):
        trained.plan([Ahead(np.zeros((3, 2)), 2)], np.zeros((1, 3)))


def test_tokens_have_no_real_time(seeing):
    tokens = dataclasses.replace(seeing, policy=seeing.policy._replace(velocity=None))
    with pytest.raises(InputError, match="--real_time: 'pi0' has no flow"):
        compile_policy(tokens, real_time=True)


def test_a_request_says_what_is_ahead(network):
    reader = Reader(network, (TWO,), Names(), real_time=True)
    pictures = {camera: np.zeros((16, 16, 3), np.uint8) for camera in ("front", "wrist")}
    seen = pictures | {"state": np.zeros(3), "prompt": "reach"}
    ahead = np.arange(6.0).reshape(3, 2)
    found = reader.read(seen | {"ahead": ahead, "delay": 2}).ahead
    np.testing.assert_array_equal(found.actions, ahead)
    assert found.delay == 2
    assert reader.read(seen).ahead is None
    for wrong in ({"ahead": ahead}, {"delay": 1}, {"ahead": ahead, "delay": 1.5}, {"ahead": ahead, "delay": True}):
        with pytest.raises(InputError, match="come together"):
            reader.read(seen | wrong)


def test_cameras_that_no_row_has_are_not_encoded_where_there_is_a_program_for_that(network, programs):
    front = compile_policy(network, (1, 4), (TWO,), cameras=[["front"]])
    assert front.cameras == (("front",), ("front", "wrist"))
    observations, rows, states, seeds = asked(network, 3)  # the last has no wrist
    some = {camera for camera, is_there in rows[-1].image_masks.items() if is_there}
    assert some == {"front"}
    for part in (slice(0, 3), slice(2, 3)):
        given = rows[part], states[part], seeds[part], TWO
        np.testing.assert_allclose(front.infer(*given)[0], programs.infer(*given)[0], atol=2e-5)

    def flops(cameras):
        return front._compiled[1, TWO, cameras, False].cost_analysis()["flops"]

    assert flops(("front",)) < 0.9 * flops(("front", "wrist"))
    pictures = rows[-1].images | {"wrist": np.full_like(rows[-1].images["front"], 200)}  # masked: nobody looks
    masked = rows[-1].replace(images=pictures)
    np.testing.assert_array_equal(front.infer([masked], *given[1:])[0], front.infer(*given)[0])


def test_a_camera_that_the_checkpoint_does_not_know_is_refused(network):
    with pytest.raises(InputError, match="--cameras: 'side' is none of the checkpoint's, which are front, wrist"):
        compile_policy(network, cameras=[["front", "side"]])
