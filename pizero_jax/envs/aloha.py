"""ALOHA's two simulated tasks of two ViperX arms (Zhao et al., arXiv 2304.13705): gym-aloha's, 50 steps a second.

The published demonstrations of `transfer_cube` follow waypoints of both hands, in a simulation of their own in which
hands can be pulled about; here inverse kinematics turns waypoints into joints, so that one simulation is enough. For
`insertion`, where peg and socket have to meet to millimetres, there is no expert, but published demonstrations.
"""

import atexit

import mujoco
import numpy as np
from dm_control.mujoco import Physics
from dm_control.rl.control import Environment
from gym_aloha import constants
from gym_aloha.tasks import sim
from gym_aloha.utils import sample_box_pose, sample_insertion_pose
from scipy.spatial.transform import Rotation

from pizero_jax.envs import nearest
from pizero_jax.envs.simulator import Simulator
from pizero_jax.errors import InputError

INSTRUCTIONS = {  # as in lerobot/aloha_sim_*
    "transfer_cube": "Pick up the cube with the right arm and transfer it to the left arm.",
    "insertion": "Insert the peg into the socket.",
}
SUCCESS = 4  # of the reward, which counts the stages of a task
FINGERTIPS = 0.142  # metres from a wrist along its hand
_ARMS = {"left": slice(0, 6), "right": slice(8, 14)}  # of MuJoCo's joints; two fingers follow each
_HANDS = {  # how the hands are held: ahead, the left on its side; and 60 degrees down, so that neither is in the way
    "left": Rotation.from_euler("ZYX", (0, 0, 90), degrees=True),
    "right": Rotation.from_euler("ZYX", (180, 60, 0), degrees=True),
}
_MEETING = np.array([0.0, 0.5, 0.3])  # where the cube changes hands, metres


class _Unseen:
    """A task that draws nothing as it steps; gym-aloha's draws three pictures of 480 x 640."""

    def get_observation(self, physics):
        return {}


class _TransferCube(_Unseen, sim.TransferCubeTask):
    pass


class _Insertion(_Unseen, sim.InsertionTask):
    pass


_TASKS = {"transfer_cube": _TransferCube, "insertion": _Insertion}


class AlohaEnv(Simulator):
    """State [14]: six joints in radians and the gripper's opening (0 closed, 1 open), left arm first. Action [14]:
    where they should go.

    Success, as the benchmark defines it: the reward is 4 at any step (`max_steps` there is 400). One camera, "top",
    published at 480 x 640: pictures are three quarters as high as wide.
    """

    def __init__(self, task: str, *, image_size: int, max_steps: int):
        if task not in INSTRUCTIONS:
            raise InputError(f"config.env.tasks has {task!r}; {nearest(task, INSTRUCTIONS)}")
        physics = Physics.from_xml_path(str(constants.ASSETS_DIR / f"bimanual_viperx_{task}.xml"))
        self.model = physics.model.ptr
        gripper = (0.0, 1.0)
        bounds = [(*self.model.actuator_ctrlrange[arm], gripper) for arm in _ARMS.values()]
        low, high = np.concatenate(bounds).T
        super().__init__(
            image_size=image_size,
            max_steps=max_steps,
            state_dim=14,
            action_dim=14,
            cameras=("top",),
            aspect=3 / 4,
            low=low,
            high=high,
        )
        self.task = task
        self.instruction = INSTRUCTIONS[task]
        self.simulation = Environment(physics, _TASKS[task](), control_timestep=constants.DT)
        height, width, _ = self.observation_space["images"]["top"].shape
        self.model.vis.global_.offheight, self.model.vis.global_.offwidth = height, width
        self._renderer = mujoco.Renderer(self.model, height, width)
        # Kept alive until closed: a renderer that is garbage-collected can take the drawing context from a newer one.
        atexit.register(self.close)

    def observe(self):
        self._renderer.update_scene(self.simulation.physics.data.ptr, camera="top")
        state = self.simulation.task.get_qpos(self.simulation.physics)
        return {"images": {"top": self._renderer.render()}, "state": state.astype(np.float32)}

    def expert_action(self) -> np.ndarray:
        if self.task != "transfer_cube":
            return super().expert_action()
        if self._plan is None:
            x, y, *_ = self.simulation.physics.data.qpos[16:]
            self._plan = _transfer(self.model, np.array([x, y, 0.02]))  # it has been dropped onto the table
        return self._plan[min(self.steps, len(self._plan) - 1)].astype(np.float32)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._renderer.close()

    def _start(self, seed: int) -> None:
        # The benchmark hands start states over in this global.
        if self.task == "transfer_cube":
            sim.BOX_POSE[0] = sample_box_pose(seed)
        else:
            sim.BOX_POSE[0] = np.concatenate(sample_insertion_pose(seed))
        self.simulation.reset()
        self._plan = None

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        reward = self.simulation.step(action.astype(float)).reward
        return float(reward), reward == SUCCESS


def _transfer(model: mujoco.MjModel, cube: np.ndarray) -> np.ndarray:
    """Actions [n, 14]: the right hand lifts the cube, both meet, the left takes it. From the start of an episode."""
    right = [  # step by which the fingertips are there, place in metres, opening of the gripper
        (70, cube + (0, 0, 0.1), 1),
        (110, cube, 1),
        (135, cube, 0),
        (200, _MEETING, 0),
        (270, _MEETING, 0),
        (290, _MEETING, 1),
        (330, _MEETING + (0.12, 0, 0.02), 1),
    ]
    left = [
        (100, _MEETING - (0.12, 0, 0), 1),
        (205, _MEETING - (0.12, 0, 0), 1),
        (240, _MEETING, 1),
        (265, _MEETING, 0),
        (290, _MEETING, 0),
        (330, _MEETING + (-0.1, 0, 0.02), 0),
    ]
    return np.hstack([_follow(model, "left", left), _follow(model, "right", right)])


def _follow(model: mujoco.MjModel, side: str, way: list) -> np.ndarray:
    """Actions [n, 7] of one arm, straight in its joints from one waypoint to the next."""
    joints = np.array(constants.START_ARM_POSE[:6])
    steps, rows = [0], [[*joints, 0]]
    for step, place, opening in way:
        joints = _reach(model, side, joints, place)
        steps.append(step)
        rows.append([*joints, opening])
    return np.stack([np.interp(np.arange(331), steps, column) for column in zip(*rows, strict=True)], axis=1)


def _reach(model: mujoco.MjModel, side: str, joints: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The six joints that bring an arm's fingertips to a place: damped least squares from where they are."""
    data, arm, body = mujoco.MjData(model), _ARMS[side], model.body(f"vx300s_{side}/gripper_link").id
    low, high = model.jnt_range[arm].T
    for _ in range(200):
        data.qpos[arm] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        hand = data.xmat[body].reshape(3, 3)
        tips = data.xpos[body] + FINGERTIPS * hand[:, 0]
        turn = (_HANDS[side] * Rotation.from_matrix(hand).inv()).as_rotvec()
        error = np.concatenate([place - tips, turn])
        if np.abs(error).max() < 1e-4:
            break
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], tips, body)
        J = jacobian[:, arm]
        step = J.T @ np.linalg.solve(J @ J.T + 1e-3 * np.eye(6), error)
        joints = np.clip(joints + step * min(1.0, 0.2 / np.abs(step).max()), low, high)
    return joints
