"""PushT (Chi et al., arXiv 2303.04137): a disc pushes a T onto its outline; gym-pusht's simulation, 10 steps a second.

The published demonstrations are human (`lerobot/pusht`). The expert here plans: it tries random pushes in a second
simulation and takes the one that brings the T nearer in the fewest steps, push after push.
"""

import os

import numpy as np

from pizero_jax.envs import nearest
from pizero_jax.envs.simulator import Simulator
from pizero_jax.errors import InputError

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # stdout is for results

from gym_pusht.envs.pusht import PushTEnv as Simulation

INSTRUCTIONS = {"push-t": "Push the T-shaped block onto the T-shaped target."}  # as in lerobot/pusht
SIDE = 512.0  # px, of the room that positions count in, whatever the picture's size
PUSHES = 32  # tried for each that is made
ORBIT = 110.0  # px from the T's centre of mass, where the disc cannot touch it
TRAVEL, PUSH = 30.0, 20.0  # px per step, on the way to a push and in it
CHANGE = 8  # steps that going on to another push is counted as
_TIPS = ((-60.0, 0.0), (60.0, 0.0), (0.0, 120.0))  # of the T, px in its own frame


class PushTEnv(Simulator):
    """State [2]: the disc's x, y in px, each in [0, 512], y down. Action [2]: where it should go, in the same units.

    Reward: the share of the outline that the T covers over 0.95, at most 1. Success, as the benchmark defines it:
    more than 0.95 is covered at any step (`max_steps` there is 300). One camera, "image", published at 96 px.
    """

    def __init__(self, task: str, *, image_size: int, max_steps: int):
        if task not in INSTRUCTIONS:
            raise InputError(f"config.env.tasks has {task!r}; {nearest(task, INSTRUCTIONS)}")
        super().__init__(
            image_size=image_size, max_steps=max_steps, state_dim=2, action_dim=2, cameras=("image",), low=0, high=SIDE
        )
        self.task = task
        self.instruction = INSTRUCTIONS[task]
        self.simulation = Simulation(obs_type="state", observation_width=image_size, observation_height=image_size)
        self._imagined = _Imagined(obs_type="state")
        self._imagined.reset()

    def observe(self):
        self.simulation.obs_type = "pixels_agent_pos"
        seen = self.simulation.get_obs()
        self.simulation.obs_type = "state"  # a step draws nothing
        return {"images": {"image": seen["pixels"]}, "state": seen["agent_pos"].astype(np.float32)}

    def expert_action(self) -> np.ndarray:
        if self.steps >= self._planned_at + len(self._plan):
            self._planned_at, self._plan = self.steps, self._best_push()
        return self._plan[self.steps - self._planned_at].astype(np.float32)

    def _start(self, seed: int) -> None:
        self.simulation.reset(seed=seed)
        self._random = np.random.default_rng(seed)
        self._planned_at, self._plan = 0, np.empty((0, 2))

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self.simulation.step(action.astype(float))
        return float(reward), bool(info["is_success"])

    def _best_push(self) -> np.ndarray:
        """Targets [n, 2] of the push with the largest gain per step, up to the step that leaves the T nearest."""
        imagined, best, plan = self._imagined, -np.inf, None
        imagined.become(self.simulation)
        before = imagined.distance()
        for _ in range(PUSHES):
            imagined.become(self.simulation)
            targets = _random_push(self._random, np.array(imagined.agent.position), _centre(imagined.block))
            distances = [imagined.distance_after(target) for target in targets]
            steps = 1 + int(np.argmin(distances))
            gain = (before - distances[steps - 1]) / (steps + CHANGE)
            if gain > best:
                best, plan = gain, targets[:steps]
        return plan


class _Imagined(Simulation):
    """The same physics, from any moment on."""

    def become(self, other: Simulation) -> None:
        for mine, theirs in ((self.agent, other.agent), (self.block, other.block)):
            mine.angle = theirs.angle  # before the position: a body turns about its centre of mass
            mine.position = theirs.position
            mine.velocity, mine.angular_velocity = theirs.velocity, theirs.angular_velocity

    def distance(self) -> float:
        """Root mean square, px, of the T's tips from where they should be."""
        goal = self.get_goal_pose_body(self.goal_pose)
        gaps = [self.block.local_to_world(tip) - goal.local_to_world(tip) for tip in _TIPS]
        return float(np.sqrt(np.mean([gap.dot(gap) for gap in gaps])))

    def distance_after(self, target: np.ndarray) -> float:
        self.step(target)
        return self.distance()

    def _get_coverage(self) -> float:
        return 0.0  # half the time of a step, and not needed here


def _centre(block) -> np.ndarray:
    return np.array(block.local_to_world(block.center_of_gravity))


def _random_push(random: np.random.Generator, agent: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Targets [n, 2]: around the T to some place beside it, then straight on, past its centre or through it."""
    direction = _unit(random.uniform(-np.pi, np.pi))
    start = centre - ORBIT * direction + random.uniform(-60, 60) * np.array([-direction[1], direction[0]])
    end = start + random.uniform(20, 220) * direction
    first, last = (np.arctan2(*(place - centre)[::-1]) for place in (agent, start))
    turn = (last - first + np.pi) % (2 * np.pi) - np.pi
    orbit = [centre + ORBIT * _unit(first + share * turn) for share in np.linspace(0, 1, 2 + int(abs(turn) / 0.3))]
    corners = np.clip([agent, *orbit, start, end], 20, SIDE - 20)  # the disc's radius from the walls
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(lengths)])
    travelled = np.append(np.arange(TRAVEL, at[-2], TRAVEL), at[-2])
    pushed = np.append(np.arange(at[-2] + PUSH, at[-1], PUSH), [at[-1], at[-1]])  # the second time it arrives
    return np.stack([np.interp(np.concatenate([travelled, pushed]), at, axis) for axis in corners.T], axis=1)


def _unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])
