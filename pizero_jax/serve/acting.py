"""A policy in closed loop, in this process or behind a server, as evaluation needs it: the same for the same seeds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pizero_jax.config import EnvConfig, build
from pizero_jax.errors import InputError
from pizero_jax.serve.policy import Ahead, TrainedPolicy
from pizero_jax.serve.quantize import held_as


@dataclasses.dataclass(frozen=True)
class Acting:
    """`infer(observation, instruction, seed, look, ahead)` gives a chunk [C, a]; the noise follows from seed and look.

    Its observations are {"images": {field of the data set: picture}, "state": [P]}, as simulators give them.
    """

    infer: Callable[[Mapping[str, Any], str, int, int, Ahead | None], Float[np.ndarray, "C a"]]
    blinded: Callable[[], "Acting"]  # the same policy with every picture zeroed
    env: EnvConfig
    chunk: int
    num_steps: int | None
    solver: str | None
    weights: str  # what they are held as
    hz: float  # actions per second; 0: unknown
    step: int
    blind: bool  # trained without pictures
    max_delay: int | None  # that it was trained for; None: no policy of a flow, which alone can go on from a plan
    versions: Mapping[str, str]


def of_checkpoint(trained: TrainedPolicy, num_steps: int | None, solver: str | None = None) -> Acting:
    """A policy in this process."""
    config = trained.config

    def infer(observation, instruction, seed, look, ahead=None):
        key = jax.random.fold_in(jax.random.key(seed), look)
        seen = {"images": _by_camera(observation, config.data.cameras), "state": observation["state"]}
        return np.asarray(trained.infer(seen, instruction, key, num_steps=num_steps, solver=solver, ahead=ahead))

    return Acting(
        infer=infer,
        blinded=lambda: of_checkpoint(trained.blinded(), num_steps, solver),
        env=config.env,
        chunk=config.policy.chunk,
        num_steps=num_steps or getattr(config.policy, "num_steps", None),
        solver=solver or getattr(config.policy, "solver", None),
        weights=held_as(trained),
        hz=config.data.chunk_hz or config.data.hz,
        step=trained.step,
        blind=config.data.blind,
        max_delay=config.loss.max_delay if trained.policy.velocity else None,
        versions=trained.versions,
    )


def of_server(
    ask: Callable,
    metadata: Mapping[str, Any],
    num_steps: int | None,
    solver: str | None = None,
    blind: bool = False,
) -> Acting:
    """The policy that `ask`, such as `Client.infer`, is answered by; what it is follows from the server's metadata.

    Raises:
      InputError: the server is none of this package; from `infer`, if it has taken another checkpoint meanwhile.
    """
    if missing := {"env", "step", "weights", "cameras", "chunk"} - metadata.keys():
        raise InputError(f"--server: its metadata has no {min(missing)!r}: it is no launch.serve of this version")
    num_steps = num_steps or next(iter(metadata["num_steps"]), None)
    solver = solver or next(iter(metadata["solver"]), None)

    def infer(observation, instruction, seed, look, ahead=None):
        images = _by_camera(observation, metadata["cameras"])
        if blind:
            images = {camera: np.zeros_like(image) for camera, image in images.items()}
        request = {"images": images, "state": observation["state"], "prompt": instruction, "seed": [seed, look]}
        request |= {"num_steps": num_steps} if num_steps else {}
        request |= {"solver": solver} if solver else {}
        request |= {"ahead": ahead.actions, "delay": ahead.delay} if ahead else {}
        answer = ask(request)
        if answer["checkpoint"] != metadata["step"]:
            raise InputError(
                f"the server answers by step {answer['checkpoint']} and began with step {metadata['step']}: start it "
                f"with --step={metadata['step']}, so that it takes no newer checkpoint"
            )
        return answer["actions"]

    return Acting(
        infer=infer,
        blinded=lambda: of_server(ask, metadata, num_steps, solver, blind=True),
        env=build(EnvConfig, metadata["env"]),
        chunk=metadata["chunk"],
        num_steps=num_steps,
        solver=solver,
        weights=metadata["weights"],
        hz=metadata["hz"],
        step=metadata["step"],
        blind=metadata["blind"],
        max_delay=metadata["max_delay"],
        versions=metadata["versions"],
    )


class HandOver:
    """Chunks that arrive late: until then the robot goes on with the one before, then it takes over the new one.

    The new chunk is taken from the step that is due when it arrives. The first chunk of an episode is waited for. A
    simulator stands still while the policy thinks, so that what is late is counted in steps.

    Args:
      infer: (observation, instruction, ahead) -> actions [C, a].
      execute: steps between two looks.
      delay: gives the steps that the next chunk is late, at most `longest`.
      longest: delay; at most C - `execute`.
      real_time: the policy is told what will be executed, for the longest delay (real-time chunking); without, the
        hand-over is naive.
    """

    def __init__(self, infer: Callable, execute: int, delay: Callable[[], int], longest: int, real_time: bool):
        self._infer, self._execute, self._delay, self._longest = infer, execute, delay, longest
        self._real_time, self._plan = real_time, None
        self.borders: list[int] = []  # steps of the episode at which a new chunk took over

    def __call__(self, observation: Mapping[str, Any], instruction: str) -> Float[np.ndarray, "C a"]:
        if self._plan is None:
            self._plan, self._looked = np.array(self._infer(observation, instruction, None)), 0
            return self._plan
        left = self._plan[self._execute :]
        ahead = Ahead(left, self._longest) if self._real_time else None
        plan, late = np.array(self._infer(observation, instruction, ahead)), self._delay()
        plan[:late] = left[:late]
        self._plan, self._looked = plan, self._looked + self._execute
        self.borders.append(self._looked + late)
        return plan


def _by_camera(observation: Mapping[str, Any], cameras: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {camera: observation["images"][field] for camera, field in cameras.items()}
