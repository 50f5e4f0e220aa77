"""A policy in closed loop, in this process or behind a server, as evaluation needs it: the same for the same seeds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from pizero_jax.config import EnvConfig, build
from pizero_jax.serve.policy import TrainedPolicy


@dataclasses.dataclass(frozen=True)
class Acting:
    """`infer(observation, instruction, seed, look)` gives a chunk [C, a]; the noise follows from seed and look.

    Its observations are {"images": {field of the data set: picture}, "state": [P]}, as simulators give them.
    """

    infer: Callable[[Mapping[str, Any], str, int, int], Float[np.ndarray, "C a"]]
    blinded: Callable[[], "Acting"]  # the same policy with every picture zeroed
    env: EnvConfig
    chunk: int
    num_steps: int | None
    hz: float  # actions per second; 0: unknown
    step: int
    blind: bool  # trained without pictures
    versions: Mapping[str, str]


def of_checkpoint(trained: TrainedPolicy, num_steps: int | None) -> Acting:
    """A policy in this process."""
    config = trained.config

    def infer(observation, instruction, seed, look):
        key = jax.random.fold_in(jax.random.key(seed), look)
        seen = {"images": _by_camera(observation, config.data.cameras), "state": observation["state"]}
        return np.asarray(trained.infer(seen, instruction, key, num_steps=num_steps))

    return Acting(
        infer=infer,
        blinded=lambda: of_checkpoint(trained.blinded(), num_steps),
        env=config.env,
        chunk=config.policy.chunk,
        num_steps=num_steps or getattr(config.policy, "num_steps", None),
        hz=config.data.chunk_hz or config.data.hz,
        step=trained.step,
        blind=config.data.blind,
        versions=trained.versions,
    )


def of_server(ask: Callable, metadata: Mapping[str, Any], num_steps: int | None, blind: bool = False) -> Acting:
    """The policy that `ask`, such as `Client.infer`, is answered by; what it is follows from the server's metadata."""

    def infer(observation, instruction, seed, look):
        images = _by_camera(observation, metadata["cameras"])
        if blind:
            images = {camera: np.zeros_like(image) for camera, image in images.items()}
        request = {"images": images, "state": observation["state"], "prompt": instruction, "seed": [seed, look]}
        return ask(request | ({"num_steps": num_steps} if num_steps else {}))["actions"]

    return Acting(
        infer=infer,
        blinded=lambda: of_server(ask, metadata, num_steps, blind=True),
        env=build(EnvConfig, metadata["env"]),
        chunk=metadata["chunk"],
        num_steps=num_steps or next(iter(metadata["num_steps"]), None),
        hz=metadata["hz"],
        step=metadata["step"],
        blind=metadata["blind"],
        versions=metadata["versions"],
    )


class Delayed:
    """Chunks that arrive late: until then the robot goes on with the one before, then it takes over the new one.

    This is the naive hand-over: the new chunk is taken from the step that is due when it arrives. The first chunk of an
    episode is waited for. A simulator stands still while the policy thinks, so that what is late is counted in steps.

    Args:
      infer: (observation, instruction) -> actions [C, a].
      execute: steps between two looks.
      delay: gives the steps that the next chunk is late, at most C - `execute`.
    """

    def __init__(self, infer: Callable, execute: int, delay: Callable[[], int]):
        self._infer, self._execute, self._delay = infer, execute, delay
        self._plan: Float[np.ndarray, "C a"] | None = None

    def __call__(self, observation: Mapping[str, Any], instruction: str) -> Float[np.ndarray, "C a"]:
        plan = np.array(self._infer(observation, instruction))
        if self._plan is not None:
            late = self._delay()
            plan[:late] = self._plan[self._execute : self._execute + late]
        self._plan = plan
        return plan


def _by_camera(observation: Mapping[str, Any], cameras: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {camera: observation["images"][field] for camera, field in cameras.items()}
