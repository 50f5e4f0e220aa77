import dataclasses
import itertools

import numpy as np
import pytest

from pizero_jax.config import EnvConfig
from pizero_jax.envs.reach_toy import ReachToyEnv
from pizero_jax.envs.rollout import rollout
from pizero_jax.errors import InputError
from pizero_jax.serve import acting
from pizero_jax.serve.acting import HandOver
from pizero_jax.serve.client import Client, Refused
from tests.serve.conftest import CHUNK, SIZE


@pytest.fixture
def room(seeing):
    """The policy of the tests, for the toy, to whose states it adds a third number."""
    data = dataclasses.replace(seeing.config.data, cameras={"front": "image", "wrist": "wrist_image"})
    env = EnvConfig(name="reach_toy", tasks=("reach-red",), image_size=SIZE, max_steps=12, execute=4)
    return dataclasses.replace(seeing, config=dataclasses.replace(seeing.config, data=data, env=env))


def episode(policy: acting.Acting, seed: int):
    """Actions and looks of one episode in the toy."""
    env, looks, chunks = ReachToyEnv("reach-red", image_size=SIZE, max_steps=12), itertools.count(), []

    def act(observation, instruction):
        observation = observation | {"state": np.append(observation["state"], 0)}
        actions = policy.infer(observation, instruction[:16], seed, next(looks))
        chunks.append(actions)
        return np.tanh(actions - 200)

    rollout(env, act, seed=seed, split="eval", max_steps=12, execute=4)
    return np.stack(chunks)


def test_a_policy_behind_a_server_acts_as_in_process_for_the_same_seeds(served, room):
    from pizero_jax.serve.compiled import Solver, compile_policy

    here = acting.of_checkpoint(room, 2)
    with served(policy=compile_policy(room, (1,), (Solver(2, "euler"),))) as server, Client(server.address) as client:
        there = acting.of_server(client.infer, client.metadata, 2)
        for field in ("env", "chunk", "num_steps", "solver", "weights", "hz", "step", "blind", "versions"):
            assert getattr(there, field) == getattr(here, field), field
        for seed in (0, 1_000_003):
            # The compiled programs may order sums differently.
            np.testing.assert_allclose(episode(there, seed), episode(here, seed), rtol=1e-5)
            np.testing.assert_allclose(episode(there.blinded(), seed), episode(here.blinded(), seed), rtol=1e-5)
        assert not np.allclose(episode(there, 0)[0], episode(there.blinded(), 0)[0])
        assert not np.allclose(episode(there, 0)[0], episode(there, 1)[0])


@pytest.mark.parametrize("asked", [{"num_steps": 5}, {"num_steps": None, "solver": "heun"}])
def test_how_the_flow_is_solved_behind_a_server_is_what_is_reported(served, room, asked):
    from pizero_jax.serve.compiled import Solver, compile_policy

    here, pairs = acting.of_checkpoint(room, **asked), ((2, "euler"), (5, "heun"))
    policy = compile_policy(room, (1,), [Solver(*pair) for pair in pairs])
    with served(policy=policy) as server, Client(server.address) as client:
        there = acting.of_server(client.infer, client.metadata, **asked)
        assert (there.num_steps, there.solver) == (here.num_steps, here.solver)
        assert (there.num_steps, there.solver) not in pairs
        with pytest.raises(Refused, match="none of those that the server was started with: 2 euler, 5 heun"):
            episode(there, 0)


def test_what_a_server_answers_by_another_checkpoint_is_no_evaluation_of_the_first(served, room):
    from pizero_jax.serve.compiled import compile_policy

    policy = compile_policy(room, (1,))
    with served(policy=policy) as server, Client(server.address) as client:
        there = acting.of_server(client.infer, client.metadata, None)
        episode(there, 0)
        server.replace(policy.replaced(dataclasses.replace(room, step=room.step + 1)))
        with pytest.raises(InputError, match=f"answers by step {room.step + 1} and began with step {room.step}"):
            episode(there, 0)


def test_a_server_of_something_else_is_named():
    with pytest.raises(InputError, match="its metadata has no 'cameras': it is no launch.serve"):
        acting.of_server(print, {"env": {}}, None)


def numbered():
    """Chunks of one action that count: 10, 11, .. then 20, 21, .. and so on."""
    return (np.full((CHUNK, 1), 10.0 * n) + np.arange(CHUNK)[:, None] for n in itertools.count(1))


def test_until_a_chunk_arrives_the_robot_goes_on_with_the_one_before():
    chunks, delays = numbered(), iter([2, 0, 1])
    act = HandOver(lambda observation, instruction, ahead: next(chunks), 3, lambda: next(delays), 2, real_time=False)
    executed = [act({}, "")[:3, 0].tolist() for _ in range(4)]
    assert executed == [[10, 11, 12], [13, 14, 22], [30, 31, 32], [33, 41, 42]]
    assert act.borders == [5, 6, 10]


@pytest.mark.parametrize("real_time", [False, True])
def test_in_real_time_the_policy_is_told_what_is_left_of_the_plan_and_the_longest_delay(real_time):
    chunks, told = numbered(), []

    def infer(observation, instruction, ahead):
        told.append(ahead and (ahead.actions[:, 0].tolist(), ahead.delay))
        return next(chunks)

    act = HandOver(infer, 2, lambda: 1, 3, real_time)
    for _ in range(3):
        act({}, "")
    plans = [([12, 13, 14, 15], 3), ([22, 23, 24, 25], 3)]
    assert told == ([None, *plans] if real_time else [None, None, None])
