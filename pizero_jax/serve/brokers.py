"""From a policy that predicts chunks to one action at a time.

Each broker is made from a function observation -> {"actions": [C, a], ..}, such as `Client.infer`, and is itself a
function observation -> action [a], read-only. `reset` begins an episode. Needs NumPy only.
"""

import copy
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

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

    def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
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

    def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
        self._chunks = [*self._chunks, np.asarray(self._infer(observation)["actions"])]
        self._chunks = self._chunks[-len(self._chunks[-1]) :]  # older ones end before this step
        ages = range(len(self._chunks) - 1, -1, -1)
        predictions = np.stack([chunk[age] for chunk, age in zip(self._chunks, ages, strict=True)])
        weights = np.exp(-self._decay * np.arange(len(predictions)))
        return weights / weights.sum() @ predictions

    def reset(self) -> None:
        self._chunks: list[np.ndarray] = []


class RealTime:
    """Asks in the background for the chunk that goes on from this one: an action never waits for a policy in time.

    Inference starts when `execute` actions of the chunk are executed, and is told what is left of it and how many more
    will be executed meanwhile: as many as in the slowest of the last ten. It is waited for if the plan runs out before.
    What goes wrong there is raised by the call that comes next; the one after it asks anew. Close it, or use it as a
    context.

    Args:
      infer: of a server that was started with --real_time.
      execute: at least, and at most C; fewer leave more to go on from.
      max_delay: that the policy was trained for, `metadata["max_delay"]`; 0 if for none, and any may be asked.

    Source: real-time chunking, arXiv 2506.07339, algorithm 1.
    """

    def __init__(self, infer: Infer, execute: int, max_delay: int = 0):
        self._infer, self._execute, self._max_delay = infer, execute, max_delay
        self._thread = ThreadPoolExecutor(1, "real-time")
        self._late: deque[int] = deque(maxlen=10)
        self._asked: Future | None = None
        self.reset()

    def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
        if self._asked and (self._asked.done() or self._step == len(self._plan)):
            asked, self._asked = self._asked, None
            self._plan = np.asarray(asked.result()["actions"])
            self._step -= self._began
            self._late.append(self._step)
        if not len(self._plan):
            self._plan, self._step = np.asarray(self._infer(observation)["actions"]), 0
            if not 0 < self._execute <= len(self._plan):
                raise ValueError(f"execute = {self._execute} of chunks of {len(self._plan)} actions")
        if self._asked is None and self._step >= self._execute:
            ahead, self._began = self._plan[self._step :], self._step
            delay = min(max(self._late, default=1), len(ahead), self._max_delay or len(ahead))
            seen = copy.deepcopy(dict(observation))  # the robot may write into its arrays meanwhile
            self._asked = self._thread.submit(self._infer, {**seen, "ahead": ahead, "delay": delay})
        if self._step == len(self._plan):  # asked with nothing left
            return self(observation)
        self._step += 1
        return self._plan[self._step - 1]

    def reset(self) -> None:
        """Begins an episode: what is asked still is waited for and dropped, so that nothing of it is told later."""
        if self._asked:
            wait([self._asked])
        self._plan, self._step, self._began, self._asked = np.empty((0, 0)), 0, 0, None

    def close(self) -> None:
        """Waits for what is asked still."""
        self._thread.shutdown()

    def __enter__(self) -> "RealTime":
        return self

    def __exit__(self, *_) -> None:
        self.close()
