"""Windows: every frame of every episode, with the chunk of actions that follows it."""

import dataclasses
from collections.abc import Sequence

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
    windows: "Windows"
    episode: int
    frame: int

    @property
    def images(self) -> dict[str, Picture | list[Picture]]:
        """Pictures by camera of the policy, read here; lists where there is a history."""
        return self.windows.pictures(self.episode, self.frame)

    @property
    def source(self) -> str:
        """File, record and frame, for messages."""
        return f"{self.windows.episodes[self.episode].source}, frame {self.frame}"

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
        table, end = self.episodes.table, int(self._ends[number])
        row = end - int(table.lengths[number]) + frame  # in the table, as are the following
        rows = row + self._needed
        inside = np.minimum(rows, end - 1)
        if self.resampling is None:
            actions = table.actions[inside]
        else:
            actions = self.resampling.chunk(table.actions[row:end], self.chunk)
        return Window(
            state=table.state[row] if self.history == 1 else table.state[row - frame + self._moments(frame)],
            actions=actions,
            action_mask=(rows < end) & table.keep[inside],
            instructions=self.episodes.instructions(number),
            windows=self,
            episode=number,
            frame=frame,
        )

    def pictures(self, episode: int, frame: int) -> dict[str, Picture | list[Picture]]:
        """What each camera showed at a frame and, with a history, before."""
        images = self.episodes[episode].images.items()
        if self.history == 1:
            return {camera: pictures[frame] for camera, pictures in images}
        return {camera: [pictures[at] for at in self._moments(frame).tolist()] for camera, pictures in images}

    def _moments(self, frame: int) -> Int64[np.ndarray, "history"]:
        return np.maximum(frame + self._past, 0)


def labelled(episodes: Episodes) -> Bool[np.ndarray, "E"]:
    """Which episodes have an instruction."""
    table = episodes.table
    said = np.array([bool(text.strip()) for text in table.texts])
    return said[table.instructions[:, 0]]
