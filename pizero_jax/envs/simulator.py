"""What every environment offers beyond gymnasium's interface: splits, physics without pictures, words and an expert."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pizero_jax.errors import InputError

SPLITS = ("train", "eval")
CAMERAS = ("image", "wrist_image")


class Simulator(gymnasium.Env):
    """One task. `step` is `advance` (physics) followed by `observe` (pictures, most of the cost).

    Observations are `{"images": {camera: uint8 [h, w, 3]}, "state": float32 [P]}`, with pictures `image_size` wide;
    actions are float32 [A] between `low` and `high`. An episode never terminates: success is `info["success"]` at any
    step, and `max_steps` truncates.
    """

    task: str
    instruction: str

    def __init__(
        self,
        *,
        image_size: int,
        max_steps: int,
        state_dim: int,
        action_dim: int,
        cameras: Sequence[str] = CAMERAS,
        aspect: float = 1.0,  # height of a picture over its width
        low: float | np.ndarray = -1.0,
        high: float | np.ndarray = 1.0,
    ):
        picture = spaces.Box(0, 255, (round(aspect * image_size), image_size, 3), np.uint8)
        state = spaces.Box(-np.inf, np.inf, (state_dim,), np.float32)
        self.observation_space = spaces.Dict(
            {"images": spaces.Dict({name: picture for name in cameras}), "state": state}
        )
        bounds = (np.broadcast_to(np.float32(bound), (action_dim,)) for bound in (low, high))
        self.action_space = spaces.Box(*bounds, dtype=np.float32)
        self.image_size = image_size
        self.max_steps = max_steps
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """First observation of the start state number `seed` of a split, and `{"seed", "split"}`.

        Without a seed a random one is drawn. `options["split"]` is "train" (default) or "eval": even and odd seeds of
        the simulator, so that no start state is in both.
        """
        super().reset(seed=seed)
        split = (options or {}).get("split", "train")
        if split not in SPLITS:
            raise InputError(f"split {split!r}; allowed: {', '.join(SPLITS)}")
        if seed is None:
            seed = int(self.np_random.integers(2**30))
        self.steps = 0
        self._start(2 * seed + SPLITS.index(split))
        return self.observe(), {"seed": seed, "split": split}

    def step(self, action: np.ndarray):
        reward, terminated, truncated, info = self.advance(action)
        return self.observe(), reward, terminated, truncated, info

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict[str, Any]]:
        """Reward, terminated, truncated and info after one action [A], clipped to its bounds; draws nothing."""
        action = np.asarray(action, np.float32)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise InputError(f"action {action} should be {self.action_space.shape[0]} finite numbers")
        reward, success = self._advance(np.clip(action, self.action_space.low, self.action_space.high))
        self.steps += 1
        return reward, False, self.steps >= self.max_steps, {"success": success}

    def observe(self) -> dict[str, Any]:
        """Pictures and state of this moment."""
        raise NotImplementedError

    def expert_action(self) -> np.ndarray:
        """Action [A] of the scripted expert, which may look at the hidden state; within the bounds of actions.

        Raises:
          InputError: the task has none.
        """
        raise InputError(f"{self.task!r} has no scripted expert: train on recorded demonstrations instead")

    def _start(self, seed: int) -> None:
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        raise NotImplementedError
