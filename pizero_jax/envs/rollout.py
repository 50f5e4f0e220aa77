"""One episode in closed loop: look, predict a chunk, execute its beginning, look again."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from pizero_jax.errors import InputError

FRAME_EVERY = 2  # steps between the frames of a recording


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What happened. `frames` are uint8 [s, 2s, 3], the cameras side by side; the first and the last always exist."""

    seed: int
    instruction: str
    success: bool
    steps: int
    looks: int
    frames: list[np.ndarray]
    actions: Float[np.ndarray, "steps a"]  # as they were executed
    borders: tuple[int, ...] = ()  # steps at which one chunk took over from another


def rollout(
    env,
    act: Callable[[dict[str, Any], str], np.ndarray],
    *,
    seed: int,
    split: str,
    max_steps: int,
    execute: int,
    record: bool = False,
) -> Rollout:
    """Runs `act` from one start state until success or `max_steps`.

    Args:
      env: a `Simulator`.
      act: (observation, instruction) -> actions [C, A] in the environment's units.
      execute: how many of the C actions are executed before the next look (receding horizon).
      record: keep every second frame for an animation, at the price of drawing them.

    Raises:
      InputError: `act` returned something else than finite [C, A].
    """
    observation, _ = env.reset(seed=seed, options={"split": split})
    frames, actions, looks, done, success = [picture(observation)], [], 0, False, False
    while not done:
        looks += 1
        for action in _chunk(act(observation, env.instruction), env)[:execute]:
            _, _, truncated, info = env.advance(action)
            actions.append(action)
            success = info["success"]
            done = success or truncated or len(actions) >= max_steps
            if done:
                break
            if record and len(actions) % FRAME_EVERY == 0:
                frames.append(picture(env.observe()))
        observation = env.observe()
    frames.append(picture(observation))
    return Rollout(seed, env.instruction, success, len(actions), looks, frames, np.array(actions))


def jerk(actions: Float[np.ndarray, "steps a"], at: Sequence[int]) -> Float[np.ndarray, "n"]:
    """How abruptly the actions change at these steps: the length of a_k - 2 a_(k-1) + a_(k-2), for those that have it.

    Of actions that are changes of position this is the change of acceleration.
    """
    at = np.array([k for k in at if 2 <= k < len(actions)], int)
    return np.linalg.norm(actions[at] - 2 * actions[at - 1] + actions[at - 2], axis=-1)


def picture(observation: dict[str, Any]) -> np.ndarray:
    """All cameras of an observation side by side, uint8 [s, I*s, 3]."""
    return np.hstack(list(observation["images"].values()))


def _chunk(actions: np.ndarray, env) -> np.ndarray:
    actions = np.asarray(actions)
    (action_dim,) = env.action_space.shape
    if actions.ndim != 2 or not len(actions) or actions.shape[1] != action_dim or not np.isfinite(actions).all():
        raise InputError(f"the policy gave actions of shape {actions.shape}; finite [C, {action_dim}] are needed")
    return actions
