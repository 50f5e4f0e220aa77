import numpy as np
import pytest

from pizero_jax import envs
from pizero_jax.config import EnvConfig
from pizero_jax.envs.rollout import picture, rollout
from pizero_jax.errors import InputError

pytest.importorskip("gym_pusht", reason="needs the extra `pusht`")
pytestmark = pytest.mark.simulator

GOAL, TURN = np.array([256.0, 256.0]), np.pi / 4


def make(task="push-t", size=96):
    return envs.make(EnvConfig("pusht", (task,), size, max_steps=300, execute=8), task)


def look(env, seed, split="eval"):
    observation, _ = env.reset(seed=seed, options={"split": split})
    return picture(observation), observation["state"]


def test_the_same_seed_starts_the_same_to_the_last_bit_whatever_came_before():
    old, new = make(), make()
    old.reset(seed=3)
    for _ in range(20):
        old.advance(old.simulation.block.position)
    for before, after in zip(look(old, 11), look(new, 11), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (look(old, 12)[0] != look(new, 11)[0]).any()


def test_no_two_seeds_and_splits_start_the_same():
    env = make(size=16)
    starts = set()
    for split in ("train", "eval"):
        for seed in range(20):
            env.reset(seed=seed, options={"split": split})
            starts.add((*env.simulation.agent.position, *env.simulation.block.position))
    assert len(starts) == 40


@pytest.mark.parametrize(("shift", "success"), [(0.0, True), (2.5, True), (2.75, False), (10.0, False)])
def test_success_is_more_than_95_percent_of_the_outline(shift, success):
    """Shifted by d along its stem a T of 120 x 30 and 30 x 90 px covers 1 - 120 d / 6300 of where it was."""
    env = make(size=16)
    env.reset(seed=0)
    block = env.simulation.block
    block.angle = TURN
    block.position = tuple(GOAL + shift * np.array([-np.sin(TURN), np.cos(TURN)]))
    env.simulation.agent.position = (40.0, 40.0)
    reward, terminated, _, info = env.advance(np.array([40.0, 40.0]))
    assert (info["success"], terminated) == (success, False)
    np.testing.assert_allclose(reward, min(1.0, (1 - 120 * shift / 6300) / 0.95), rtol=1e-6)


def test_actions_and_states_are_pixels_of_512_and_pictures_show_them():
    env = make()
    env.reset(seed=2)
    for _ in range(20):
        observation, *_ = env.step(np.array([440.0, 100.0]))
    np.testing.assert_allclose(observation["state"], [440, 100], atol=1)
    blue = np.abs(observation["images"]["image"].astype(int) - (65, 105, 225)).max(-1) < 30
    rows, columns = np.nonzero(blue)
    np.testing.assert_allclose([columns.mean(), rows.mean()], np.array([440, 100]) * 96 / 512, atol=1)


def test_an_action_beyond_the_room_is_one_at_its_wall():
    ends = []
    for far in (512.0, 10_000.0):
        env = make(size=16)
        env.reset(seed=2)
        for _ in range(3):
            env.advance(np.array([far, 300.0]))
        ends.append(tuple(env.simulation.agent.position))
    assert ends[0] == ends[1]


def test_a_step_lasts_a_tenth_of_a_second(monkeypatch):
    env, lapses = make(size=16), []
    env.reset(seed=0)
    monkeypatch.setattr(env.simulation.space, "step", lapses.append)
    env.advance(np.array([100.0, 100.0]))
    assert sum(lapses) == pytest.approx(0.1)


def test_observations_and_the_experts_actions_fit_the_declared_spaces():
    env = make(size=48)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.action_space.contains(env.expert_action())


def test_the_expert_covers_the_outline():
    env = make(size=16)

    def act(observation, instruction):
        return env.expert_action()[None]

    assert rollout(env, act, seed=2, split="eval", max_steps=300, execute=1).success


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'push-t'"):
        make("pusht")
