"""Windows: every frame of every episode, with the chunk of actions that follows it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64

from pizero_jax.data.episodes import Episodes, Picture
from pizero_jax.data.resample import Resampling


@dataclasses.dataclass(frozen=True)
class Window:
    """A frame as it was recorded, and the C actions from it on."""

    state: Float32[np.ndarray, "*history P"]
    actions: Float32[np.ndarray, "C A"]  # past the end of the episode its last action repeats
    action_mask: Bool[np.ndarray, "C"]  # False past the end, and for steps that nothing should be learnt from
    instructions: tuple[str, ...]
    source: str  # file, record and frame, for messages
    read: Callable[[], Mapping[str, Picture | list[Picture]]]  # pictures by camera; lists where there is a history

    @property
    def images(self) -> Mapping[str, Picture | list[Picture]]:
        return self.read()

    @property
    def moment(self) -> Float32[np.ndarray, "P"]:
        """The state at the frame itself."""
        return self.state if self.state.ndim == 1 else self.state[-1]

    @property
    def instruction(self) -> str:
        return self.instructions[0]


class Windows(Sequence[Window]):
    """As many windows as there are frames to learn from, in the order of the episodes.

    Args:
      episodes: of one split.
      chunk: C, actions per window.
      resampling: if the chunk has another rate than the data set.
      history: moments of an observation, the frame the last of them, one action apart; before the first frame of an
        episode there is that frame.
      unlabelled: whether frames without an instruction begin a window.
    """

    def __init__(
        self,
        episodes: Episodes,
        chunk: int,
        *,
        resampling: Resampling | None = None,
        history: int = 1,
        unlabelled: bool = True,
    ):
        self.episodes, self.chunk, self.resampling, self.history = episodes, chunk, resampling, history
        table = episodes.table
        keep = table.keep if unlabelled else table.keep & np.repeat(labelled(episodes), table.lengths)
        if resampling is not None:
            keep = keep & resampling.fits(table.lengths)  # the chunk of another has no action to learn from
        self._rows = None if keep.all() else np.flatnonzero(keep)
        self._ends = np.cumsum(table.lengths)
        kept = self._ends if self._rows is None else np.searchsorted(self._rows, self._ends)
        self.counts = np.diff(kept, prepend=0)  # int64 [E]: windows of each episode
        self._size = int(self.counts.sum())
        # The last recorded step that each action needs, after the frame.
        self._needed = np.arange(chunk) if resampling is None else resampling.ends(chunk) - 1
        stride = 1 if resampling is None else resampling.ratio
        self._past = np.rint(np.arange(1 - history, 1) * stride).astype(np.int64)

    def __len__(self) -> int:
        return self._size

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the episode of a window, and its frame there."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        row = index if self._rows is None else int(self._rows[index])
        number = int(np.searchsorted(self._ends, row, side="right"))
        return number, row - int(self._ends[number]) + int(self.episodes.lengths[number])

    def __getitem__(self, index: int) -> Window:
        number, frame = self.locate(index)
        episode = self.episodes[number]
        steps = frame + self._needed
        inside = np.minimum(steps, len(episode) - 1)
        past = np.maximum(frame + self._past, 0)
        if self.resampling is None:
            actions = episode.actions[inside]
        else:
            actions = self.resampling.chunk(episode.actions[frame:], self.chunk)
        return Window(
            read=lambda: {camera: self._seen(pictures, past) for camera, pictures in episode.images.items()},
            state=episode.state[frame] if self.history == 1 else episode.state[past],
            actions=actions,
            action_mask=(steps < len(episode)) & episode.keep[inside],
            instructions=episode.instructions,
            source=f"{episode.source}, frame {frame}",
        )

    def _seen(self, pictures: Sequence[Picture], past: Int64[np.ndarray, "history"]) -> Picture | list[Picture]:
        seen = [pictures[frame] for frame in past.tolist()]
        return seen[0] if self.history == 1 else seen


def labelled(episodes: Episodes) -> Bool[np.ndarray, "E"]:
    """Which episodes have an instruction."""
    table = episodes.table
    said = np.array([bool(text.strip()) for text in table.texts])
    return said[table.instructions[:, 0]]
