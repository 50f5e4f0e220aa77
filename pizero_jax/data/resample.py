"""Actions at another rate than they were recorded at."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Int64

from pizero_jax.data.episodes import Table

_TINY = 1e-9  # of a step: 3 * (1 / 3) is a whole one


@dataclasses.dataclass(frozen=True)
class Resampling:
    """Action j of a chunk stands for the recorded steps from j * ratio to (j + 1) * ratio after its frame.

    Dimensions that are changes over a step add up over these, with shares of steps at either end; all others are the
    commands that held at the beginning. Added Euler angles are the rotations to first order: keep intervals short.

    Args:
      ratio: recorded steps for each action of a chunk.
      changes: True for dimensions that are changes over one recorded step.
    """

    ratio: float
    changes: Bool[np.ndarray, "A"]

    def steps(self, count: int) -> Int64[np.ndarray, "count+1"]:
        """The recorded step, after the frame, in which each of `count` actions begins, and one past the last."""
        return np.floor(np.arange(count + 1) * self.ratio + _TINY).astype(np.int64)

    def ends(self, count: int) -> Int64[np.ndarray, "count"]:
        """How many recorded steps, from the frame on, each of `count` actions needs."""
        return np.ceil(np.arange(1, count + 1) * self.ratio - _TINY).astype(np.int64)

    def chunk(self, actions: Float32[np.ndarray, "*batch n A"], C: int) -> Float32[np.ndarray, "*batch C A"]:
        """C actions from the recorded ones that follow a frame, which is the first; past their end the last repeats."""
        needed = int(self.ends(C)[-1])
        actions = actions[..., np.minimum(np.arange(needed + 1), actions.shape[-2] - 1), :]
        found = actions[..., self.steps(C)[:-1], :]
        if self.changes.any():
            changes = actions[..., self.changes].astype(np.float64)
            path = np.concatenate([np.zeros_like(changes[..., :1, :]), np.cumsum(changes, axis=-2)], axis=-2)
            whole = self.steps(C)
            part = (np.arange(C + 1) * self.ratio - whole)[:, None].clip(0)
            found[..., self.changes] = np.diff(path[..., whole, :] + part * changes[..., whole, :], axis=-2)
        return found

    def fits(self, lengths: Int64[np.ndarray, "E"]) -> Bool[np.ndarray, "N"]:
        """Of the frames of all episodes, those after which there are enough steps for one action."""
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum())
        return left >= self.ends(1)[0]

    def first(self, table: Table) -> Table:
        """The table with what the first action of a chunk at each frame is; where it does not fit nothing is kept."""
        needed = int(self.ends(1)[0])
        ends = np.repeat(np.cumsum(table.lengths), table.lengths)
        rows = np.arange(len(ends))
        actions = np.array(table.actions)
        shares = np.diff(np.minimum(np.arange(needed + 1), self.ratio))  # of each recorded step in the action
        actions[:, self.changes] = sum(
            share * table.actions[np.minimum(rows + step, ends - 1)][:, self.changes]
            for step, share in enumerate(shares)
        )
        return dataclasses.replace(table, actions=actions, keep=table.keep & self.fits(table.lengths))
