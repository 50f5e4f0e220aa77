"""A toy, not a benchmark: a point in the unit square reaches the disc whose colour the instruction names."""

import cv2
import numpy as np

from pizero_jax.envs import nearest
from pizero_jax.envs.simulator import Simulator
from pizero_jax.errors import InputError

COLOURS = {"red": (220, 40, 40), "blue": (40, 70, 220)}
TASKS = {f"reach-{colour}": colour for colour in COLOURS}
SPEED = 0.05  # of the square's side, per step at action 1
RADIUS = 0.06  # of the discs; the target is reached within it
_BACKGROUND, _HAND = (235, 235, 225), (20, 20, 20)
_CANVAS = 4  # drawn this much larger and shrunk: smooth edges that move by less than a pixel


class ReachToyEnv(Simulator):
    """A toy in which language matters: both discs are always there, only the instruction tells which one counts.

    State [2]: the hand's x, y in [0, 1]. Action [2]: its velocity in [-1, 1]. Reward: 1 within the target, else 0.
    `wrist_image` is the square of a third of the side around the hand.
    """

    def __init__(self, task: str, *, image_size: int, max_steps: int):
        if task not in TASKS:
            raise InputError(f"config.env.tasks has {task!r}; {nearest(task, TASKS)}")
        super().__init__(image_size=image_size, max_steps=max_steps, state_dim=2, action_dim=2)
        self.task = task
        self.instruction = f"reach the {TASKS[task]} target"

    def observe(self):
        canvas = self._draw()
        size = (self.image_size, self.image_size)
        return {
            "images": {
                "image": cv2.resize(canvas, size, interpolation=cv2.INTER_AREA),
                "wrist_image": cv2.resize(self._around_hand(canvas), size, interpolation=cv2.INTER_AREA),
            },
            "state": self.hand.astype(np.float32),
        }

    def expert_action(self) -> np.ndarray:
        way = (self.targets[TASKS[self.task]] - self.hand) / SPEED
        return (way / max(1.0, np.linalg.norm(way))).astype(np.float32)

    def _start(self, seed: int) -> None:
        """Hand and discs at least four radii apart, so that no episode starts solved."""
        random = np.random.default_rng(seed)
        while True:
            hand, *centres = random.uniform(RADIUS, 1 - RADIUS, (1 + len(COLOURS), 2))
            gaps = [np.linalg.norm(a - b) for a, b in ((hand, centres[0]), (hand, centres[1]), centres)]
            if min(gaps) > 4 * RADIUS:
                break
        self.hand, self.targets = hand, dict(zip(COLOURS, centres, strict=True))

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        self.hand = np.clip(self.hand + SPEED * action, 0.0, 1.0)
        success = bool(np.linalg.norm(self.hand - self.targets[TASKS[self.task]]) < RADIUS)
        return float(success), success

    def _draw(self) -> np.ndarray:
        side = _CANVAS * self.image_size
        canvas = np.full((side, side, 3), _BACKGROUND, np.uint8)
        for colour, centre in self.targets.items():
            cv2.circle(canvas, _pixel(centre, side), round(RADIUS * side), COLOURS[colour], -1)
        cv2.circle(canvas, _pixel(self.hand, side), round(0.5 * RADIUS * side), _HAND, -1)
        return canvas

    def _around_hand(self, canvas: np.ndarray) -> np.ndarray:
        margin = canvas.shape[0] // 6
        padded = cv2.copyMakeBorder(canvas, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        x, y = _pixel(self.hand, canvas.shape[0])
        return padded[y : y + 2 * margin, x : x + 2 * margin]


def _pixel(point: np.ndarray, side: int) -> tuple[int, int]:
    """Column and row; y points up in the square and down in the picture."""
    x, y = np.round(np.array([point[0], 1 - point[1]]) * (side - 1)).astype(int)
    return int(x), int(y)
