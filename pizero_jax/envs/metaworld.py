"""MetaWorld's fifty tasks of a Sawyer arm (Yu et al., arXiv 1910.10897), seen by two close cameras."""

import atexit
import warnings

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP

from pizero_jax.envs import nearest
from pizero_jax.envs.simulator import Simulator
from pizero_jax.errors import InputError

INSTRUCTIONS = {
    "assembly-v3": "pick up the wrench and put its ring on the peg",
    "basketball-v3": "put the basketball into the hoop",
    "bin-picking-v3": "move the block from one bin to the other",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from the top",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from the top",
    "button-press-v3": "press the button from the front",
    "button-press-wall-v3": "reach around the wall and press the button from the front",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "take the wrench off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "turn the faucet off",
    "faucet-open-v3": "turn the faucet on",
    "hammer-v3": "hammer the nail into the wall",
    "hand-insert-v3": "put the gripper into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole in the side",
    "peg-unplug-side-v3": "pull the peg out of the side",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "pick-place-v3": "pick up the puck and carry it to the goal",
    "pick-place-wall-v3": "pick up the puck and carry it over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate out of the cabinet sideways",
    "plate-slide-back-v3": "slide the plate out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet sideways",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "pull the block back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "kick the ball into the goal",
    "stick-pull-v3": "grasp the stick and pull the box with it",
    "stick-push-v3": "grasp the stick and push the box with it",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}


class MetaWorldEnv(Simulator):
    """One task. State [4]: the hand's x, y, z in metres and the gripper's opening in [0, 1].

    Action [4]: the hand's move along x, y, z (1 is 1 cm) and the gripper's effort (1 closes). The object's and the
    goal's positions are never observed; only the scripted expert knows them.
    """

    def __init__(self, task: str, *, image_size: int, max_steps: int):
        if task not in INSTRUCTIONS:
            raise InputError(f"config.env.tasks has {task!r}; {nearest(task, INSTRUCTIONS)}")
        super().__init__(image_size=image_size, max_steps=max_steps, state_dim=4, action_dim=4)
        self.task = task
        self.instruction = INSTRUCTIONS[task]
        self.simulation = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-goal-observable"](seed=0)
        self.simulation._freeze_rand_vec = False  # a new start state at every reset, ...
        self.simulation.seeded_rand_vec = True  # ... drawn from the environment's own generator
        self.simulation.max_path_length = 10**9  # `max_steps` truncates here; the benchmark would raise at 500
        self._expert = ENV_POLICY_MAP[task]()
        self._renderer = _renderer(self.simulation.model, image_size)
        # Kept alive until closed: a renderer that is garbage-collected can take the drawing context from a newer one.
        atexit.register(self.close)

    def observe(self):
        hand = self.simulation.get_endeff_pos()
        return {
            "images": {"image": self._draw(_scene_camera()), "wrist_image": self._draw(_hand_camera(hand))},
            "state": self._privileged[:4].astype(np.float32),
        }

    def expert_action(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": the reason to clip
            action = self._expert.get_action(self._privileged)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._renderer.close()
        self.simulation.close()

    def _start(self, seed: int) -> None:
        self.simulation.seed(seed)
        self._privileged, _ = self.simulation.reset()
        # The benchmark moves the goal's marker after its last forward pass: undone, it is drawn at the previous goal.
        mujoco.mj_forward(self.simulation.model, self.simulation.data)

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        self._privileged, reward, _, _, info = self.simulation.step(action)
        return float(reward), bool(info["success"])

    def _draw(self, camera: mujoco.MjvCamera) -> np.ndarray:
        self._renderer.update_scene(self.simulation.data, camera=camera)
        return self._renderer.render()


def _renderer(model: mujoco.MjModel, size: int) -> mujoco.Renderer:
    """Without multisampling, shadows and reflections a picture costs a tenth on a CPU."""
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    renderer = mujoco.Renderer(model, size, size)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    return renderer


def _scene_camera() -> mujoco.MjvCamera:
    """From the right over the table: every start state of hand, object and goal is in view."""
    return _camera((0.02, 0.68, 0.18), distance=0.88, azimuth=135.0, elevation=-30.0)


def _hand_camera(hand: np.ndarray) -> mujoco.MjvCamera:
    """From the left, moving with the hand but not turning: the arm never comes between."""
    return _camera(hand + (0.0, 0.2, -0.06), distance=0.8, azimuth=20.0, elevation=-30.0)


def _camera(lookat, *, distance: float, azimuth: float, elevation: float) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = lookat
    camera.distance, camera.azimuth, camera.elevation = distance, azimuth, elevation
    return camera
