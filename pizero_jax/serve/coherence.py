"""Of several chunks drawn at one look, the one that goes on best from the chunk before: bidirectional decoding.

A policy that may do one thing or another draws anew at each look, and may go back and forth. Only the backward half of
the published method is here; its forward contrast needs a second, weaker policy.

Source: bidirectional decoding (BID), arXiv 2408.17355, section 4.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from pizero_jax.serve.policy import Ahead


def disagreement(
    chunks: Float[np.ndarray, "N C a"], plan: Float[np.ndarray, "n a"], decay: float
) -> Float[np.ndarray, "N"]:
    """How far each chunk is from the n actions that are planned: distances, weighted by decay^i, i = 0 the next one."""
    distances = np.linalg.norm(chunks[:, : len(plan)] - plan, axis=-1)
    return distances @ decay ** np.arange(len(plan))


class Coherent:
    """Gives a chunk at each look of an episode, each going on from the one before; the first is the first drawn.

    Args:
      draw: (observation, instruction, ahead) -> chunks [N, C, a]; of one chunk, it is that.
      execute: steps between two looks.
      decay: of the weights; later actions are less certain.
    """

    def __init__(self, draw: Callable, execute: int, decay: float = 0.5):
        self._draw, self._execute, self._decay = draw, execute, decay
        self._plan = np.empty((0, 0))

    def __call__(
        self, observation: Mapping[str, Any], instruction: str, ahead: Ahead | None = None
    ) -> Float[np.ndarray, "C a"]:
        chunks = self._draw(observation, instruction, ahead)
        left = self._plan[self._execute :]
        best = np.argmin(disagreement(chunks, left, self._decay)) if len(left) else 0
        self._plan = chunks[best]
        return self._plan
