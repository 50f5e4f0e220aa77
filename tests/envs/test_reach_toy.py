import numpy as np
import pytest

from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import rollout
from pizero_jax.errors import InputError


def make(task="reach-red"):
    return envs.make(EnvConfig(name="reach_toy", tasks=(task,), image_size=32, max_steps=60, execute=4), task)


def expert(env):
    return lambda observation, instruction: env.expert_action()[None]


def straight_to(colour, env):
    def act(observation, instruction):
        way = env.targets[colour] - observation["state"]
        return way[None] / max(1e-6, np.linalg.norm(way))

    return act


@pytest.mark.parametrize("task", ["reach-red", "reach-blue"])
def test_the_expert_always_succeeds(task):
    env = make(task)
    for seed in range(20):
        result = rollout(env, expert(env), seed=seed, split="eval", max_steps=60, execute=1)
        assert result.success
        assert result.steps < 60


def test_only_the_instruction_tells_the_target():
    red, blue = make("reach-red"), make("reach-blue")
    first, second = red.reset(seed=3)[0], blue.reset(seed=3)[0]
    for camera in first["images"]:
        np.testing.assert_array_equal(first["images"][camera], second["images"][camera])
    assert (red.instruction, blue.instruction) == ("reach the red target", "reach the blue target")
    assert rollout(red, straight_to("red", red), seed=3, split="train", max_steps=60, execute=1).success
    # The first ten steps: the wrong target lies elsewhere, and the hand stops there.
    assert not rollout(blue, straight_to("red", blue), seed=3, split="train", max_steps=60, execute=1).success


def test_pictures_show_hand_and_targets_where_they_are():
    env = make()
    observation, _ = env.reset(seed=1)
    picture = observation["images"]["image"].astype(int)
    for colour, channel in (("red", 0), ("blue", 2)):
        x, y = env.targets[colour]
        pixel = picture[round((1 - y) * 31), round(x * 31)]
        assert pixel.argmax() == channel
        assert pixel.max() - pixel.min() > 100
    x, y = env.hand
    assert picture[round((1 - y) * 31), round(x * 31)].max() < 100
    assert observation["images"]["wrist_image"][16, 16].max() < 100  # the hand is its centre


def test_splits_share_no_start_state_and_seeds_repeat():
    env = make()
    states = {split: [env.reset(seed=s, options={"split": split})[0]["state"] for s in range(50)]
              for split in ("train", "eval")}  # fmt: skip
    distinct = {tuple(state) for group in states.values() for state in group}
    assert len(distinct) == 100
    again = env.reset(seed=7, options={"split": "eval"})[0]["state"]
    np.testing.assert_array_equal(again, states["eval"][7])


def test_actions_are_clipped_and_episodes_truncated():
    env = make()
    env.reset(seed=0)
    before = env.hand.copy()
    env.advance(np.array([0.0, -50.0]))
    assert abs(env.hand[1] - before[1]) <= 0.05 + 1e-6
    truncated = [env.step(np.zeros(2))[3] for _ in range(59)]
    assert truncated == [False] * 58 + [True]


@pytest.mark.parametrize("action", [np.zeros(3), np.array([np.nan, 0.0])])
def test_an_action_that_is_no_action_is_refused(action):
    env = make()
    env.reset(seed=0)
    with pytest.raises(InputError, match="2 finite numbers"):
        env.advance(action)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'reach-red'"):
        make("reach-rod")
    with pytest.raises(InputError, match="did you mean 'reach_toy'"):
        envs.make(EnvConfig("reach_toi", ("reach-red",), 32, 60, 4), "reach-red")
    with pytest.raises(InputError, match="split 'test'; allowed: train, eval"):
        make().reset(seed=0, options={"split": "test"})


def test_observations_fit_the_declared_spaces():
    env = make()
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.action_space.contains(env.expert_action())
