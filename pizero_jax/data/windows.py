"""Windows: every frame of every episode, with the chunk of actions that follows it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from pizero_jax.data.rlds import Episodes


@dataclasses.dataclass(frozen=True)
class Window:
    """A frame as it was recorded, and the C actions from it on."""

    images: dict[str, bytes]  # encoded, by camera of the policy
    state: Float32[np.ndarray, "P"]
    actions: Float32[np.ndarray, "C A"]  # past the end of the episode its last action repeats
    action_mask: Bool[np.ndarray, "C"]  # False past the end, and for steps that nothing should be learnt from
    instruction: str


class Windows(Sequence[Window]):
    """As many windows as there are frames to learn from, in the order of the episodes.

    Args:
      episodes: of one split.
      chunk: C, actions per window.
    """

    def __init__(self, episodes: Episodes, chunk: int):
        self.episodes = episodes
        self.chunk = chunk
        self._frames = [np.flatnonzero(episode.keep).astype(np.int32) for episode in episodes]
        self._ends = np.cumsum([len(frames) for frames in self._frames])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        episode, frames = self.episodes[number], self._frames[number]
        frame = int(frames[index - int(self._ends[number]) + len(frames)])
        steps = np.arange(frame, frame + self.chunk)
        inside = np.minimum(steps, len(episode) - 1)
        return Window(
            images={camera: pictures[frame] for camera, pictures in episode.images.items()},
            state=episode.state[frame],
            actions=episode.actions[inside],
            action_mask=(steps < len(episode)) & episode.keep[inside],
            instruction=episode.instruction,
        )
