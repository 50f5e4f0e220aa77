"""From a policy that predicts chunks to one action at a time.

Each broker is made from a function observation -> {"actions": [C, a], ..}, such as `Client.infer`, and is itself a
function observation -> action [a]. `reset` begins an episode.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

Infer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ChunkBroker:
    """Asks for a chunk, gives its first `execute` actions, and asks again: receding horizon.

    Args:
      execute: at most C; all C by default, which is open loop for a whole chunk.
      report: tell the server which actions were executed, for its page.
    """

    def __init__(self, infer: Infer, execute: int | None = None, *, report: bool = False):
        self._infer, self._execute, self._report = infer, execute, report
        self.reset()

    def __call__(self, observation: Mapping[str, Any]) -> Float[np.ndarray, "a"]:
        if self._step >= len(self._chunk):
            asked = dict(observation)
            if self._report and self._step:
                asked["executed"] = self._chunk
            actions = self._infer(asked)["actions"]
            if self._execute is not None and not 0 < self._execute <= len(actions):
                raise ValueError(f"execute = {self._execute} of chunks of {len(actions)} actions")
            self._chunk, self._step = actions[: self._execute], 0
        self._step += 1
        return self._chunk[self._step - 1]

    def reset(self) -> None:
        self._chunk, self._step = np.empty((0, 0)), 0


class TemporalEnsemble:
    """Asks at every step, and averages what all chunks up to C steps ago say of this step.

    Args:
      decay: the weight of a prediction is exp(-decay * i), i = 0 being the oldest; 0 weighs all alike.

    Source: ACT, arXiv 2304.13705, algorithm 2.
    """

    def __init__(self, infer: Infer, decay: float = 0.01):
        self._infer, self._decay = infer, decay
        self.reset()

    def __call__(self, observation: Mapping[str, Any]) -> Float[np.ndarray, "a"]:
        self._chunks = [*self._chunks, np.asarray(self._infer(observation)["actions"])]
        self._chunks = self._chunks[-len(self._chunks[-1]) :]  # older ones end before this step
        ages = range(len(self._chunks) - 1, -1, -1)
        predictions = np.stack([chunk[age] for chunk, age in zip(self._chunks, ages, strict=True)])
        weights = np.exp(-self._decay * np.arange(len(predictions)))
        return weights / weights.sum() @ predictions

    def reset(self) -> None:
        self._chunks: list[np.ndarray] = []
