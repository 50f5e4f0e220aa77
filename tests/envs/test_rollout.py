import numpy as np
import pytest

from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import picture, rollout
from pizero_jax.errors import InputError


@pytest.fixture
def env():
    return envs.make(EnvConfig("reach_toy", ("reach-red",), 16, 60, 4), "reach-red")


def test_the_policy_looks_again_after_execute_steps(env):
    looks = []

    def still(observation, instruction):
        looks.append((observation["state"], instruction))
        return np.zeros((16, 2))

    result = rollout(env, still, seed=0, split="eval", max_steps=10, execute=4)
    assert (result.steps, result.looks, result.success) == (10, 3, False)
    assert len(looks) == 3
    assert looks[0][1] == result.instruction == "reach the red target"


def test_execution_stops_at_success_in_the_middle_of_a_chunk(env):
    def long_chunk(observation, instruction):
        return np.repeat(env.expert_action()[None], 50, 0)

    result = rollout(env, long_chunk, seed=0, split="eval", max_steps=60, execute=50)
    assert result.success
    assert result.looks == 1
    assert np.linalg.norm(env.hand - env.targets["red"]) < 0.06  # it did not run on past the target


def test_each_look_sees_the_state_after_the_executed_actions(env):
    seen = []

    def act(observation, instruction):
        seen.append(observation["state"].copy())
        return np.full((4, 2), [0.2, 0.0])

    rollout(env, act, seed=2, split="train", max_steps=6, execute=3)
    np.testing.assert_allclose(seen[1] - seen[0], [3 * 0.2 * 0.05, 0.0], atol=1e-6)


def test_frames_are_the_first_and_the_last_picture_and_more_when_recording(env):
    def still(observation, instruction):
        return np.zeros((5, 2))

    short = rollout(env, still, seed=0, split="eval", max_steps=9, execute=5)
    film = rollout(env, still, seed=0, split="eval", max_steps=9, execute=5, record=True)
    assert len(short.frames) == 2
    assert len(film.frames) == 6  # before, after steps 2, 4, 6 and 8, at the end
    assert short.frames[0].shape == (16, 32, 3)
    np.testing.assert_array_equal(film.frames[0], picture(env.reset(seed=0, options={"split": "eval"})[0]))


@pytest.mark.parametrize("actions", [np.zeros(2), np.zeros((4, 3)), np.zeros((0, 2)), np.full((4, 2), np.inf)])
def test_a_chunk_of_the_wrong_kind_is_refused(env, actions):
    with pytest.raises(InputError, match=r"finite \[C, 2\]"):
        rollout(env, lambda observation, instruction: actions, seed=0, split="eval", max_steps=9, execute=5)
