import numpy as np
import pytest

from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import picture
from pizero_jax.errors import InputError

pytest.importorskip("gym_aloha", reason="needs the extra `aloha`")
pytestmark = pytest.mark.simulator

START = [0, -0.96, 1.16, 0, -0.3, 0]  # radians, of both arms


@pytest.fixture
def make():
    made = []

    def make(task="transfer_cube", size=64):
        made.append(envs.make(EnvConfig("aloha", (task,), size, max_steps=400, execute=100), task))
        return made[-1]

    yield make
    for env in made:
        env.close()


def pictures(env, seed, split="eval"):
    return picture(env.reset(seed=seed, options={"split": split})[0])


@pytest.mark.parametrize("task", ["transfer_cube", "insertion"])
def test_the_same_seed_gives_the_same_pictures_whatever_came_before(make, task):
    old, new = make(task), make(task)
    old.reset(seed=3)
    for _ in range(5):
        old.advance(np.ones(14))
    np.testing.assert_array_equal(pictures(old, 11), pictures(new, 11))
    assert (pictures(old, 12) != pictures(new, 11)).any()


@pytest.mark.parametrize("task", ["transfer_cube", "insertion"])
def test_no_two_seeds_and_splits_start_the_same(make, task):
    env = make(task)
    starts = set()
    for split in ("train", "eval"):
        for number in range(5):
            env._start(2 * number + ("train", "eval").index(split))
            starts.add(tuple(env.simulation.physics.data.qpos[16:]))
    assert len(starts) == 10


def test_states_are_joints_and_openings_and_nothing_hidden(make):
    env = make()
    states = [env.reset(seed=seed)[0]["state"] for seed in range(2)]
    for state in states:
        np.testing.assert_allclose(state, states[0], atol=1e-6)  # the cube is elsewhere, the state does not tell
    np.testing.assert_allclose(states[0], [*START, 0.1, *START, 0.1], atol=0.01)  # grippers are a tenth open


def test_actions_are_joints_in_radians_and_openings_fifty_times_a_second(make):
    env = make()
    observation, _ = env.reset(seed=0)
    wanted = observation["state"].copy()
    wanted[[0, 9]], wanted[[6, 13]] = (0.5, 0.9), 1.0  # the left waist, the right elbow, both grippers
    for _ in range(50):
        env.advance(wanted)
    assert env.simulation.physics.data.time == pytest.approx(1.0)
    assert env.action_space.contains(wanted)
    wanted[[6, 13]] = 0.975  # fingers stop at 0.057 m, an opening of 1 would be 0.058
    np.testing.assert_allclose(env.observe()["state"], wanted, atol=0.01)


def test_the_last_stage_alone_is_success(make, monkeypatch):
    env = make()
    env.reset(seed=0)
    for reward in range(5):
        monkeypatch.setattr(env.simulation.task, "get_reward", lambda physics, reward=reward: reward)
        assert env.advance(np.array([*START, 0, *START, 0]))[3] == {"success": reward == 4}


def test_the_expert_hands_the_cube_over(make):
    env = make()
    for seed in range(2):
        env.reset(seed=seed, options={"split": "eval"})
        first, random = None, np.random.default_rng(seed)
        for step in range(360):
            reward, _, _, info = env.advance(env.expert_action() + 0.005 * random.normal(size=14))
            first = step if info["success"] and first is None else first
        assert first is not None
        assert reward == 4  # still, with the right hand gone
        hand = env.simulation.physics.named.data.xpos["vx300s_left/gripper_link"]
        cube = env.simulation.physics.data.qpos[16:19]
        assert cube[2] > 0.2
        assert np.linalg.norm(cube - hand) < 0.2


def test_a_task_without_an_expert_says_so(make):
    env = make("insertion")
    env.reset(seed=0)
    with pytest.raises(InputError, match="'insertion' has no scripted expert"):
        env.expert_action()


def test_observations_and_the_experts_actions_fit_the_declared_spaces(make):
    env = make(size=100)
    observation, _ = env.reset(seed=0)
    assert observation["images"]["top"].shape == (75, 100, 3)
    assert env.observation_space.contains(observation)
    assert env.action_space.contains(env.expert_action())


def test_an_unknown_task_is_answered_with_the_nearest(make):
    with pytest.raises(InputError, match="did you mean 'transfer_cube'"):
        make("transfer-cube")
