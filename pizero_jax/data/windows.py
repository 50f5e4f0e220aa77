"""Windows: every frame of every episode, with the chunk of actions that follows it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from pizero_jax.data.episodes import Episodes, Picture, Table
from pizero_jax.data.resample import Resampling


@dataclasses.dataclass(frozen=True)
class Window:
    """A frame as it was recorded, and the C actions from it on."""

    state: Float32[np.ndarray, "*history P"]
    actions: Float32[np.ndarray, "C A"]  # past the end of the episode its last action repeats
    action_mask: Bool[np.ndarray, "C"]  # False past the end, and for steps that nothing should be learnt from
    instructions: tuple[str, ...]  # ways to say what is done at the frame
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
        return self.windows.source(self.episode, self.frame)

    @property
    def moment(self) -> Float32[np.ndarray, "P"]:
        """The state at the frame itself."""
        return self.state if self.state.ndim == 1 else self.state[-1]

    @property
    def instruction(self) -> str:
        return self.instructions[0]


class Numbers(NamedTuple):
    """All of n windows but their pictures and words."""

    episodes: Int64[np.ndarray, "n"]
    frames: Int64[np.ndarray, "n"]
    state: Float32[np.ndarray, "n *history P"]
    actions: Float32[np.ndarray, "n C A"]
    action_mask: Bool[np.ndarray, "n C"]

    @property
    def moments(self) -> Float32[np.ndarray, "n P"]:
        """The states at the frames themselves."""
        return self.state if self.state.ndim == 2 else self.state[:, -1]


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
        keep = table.keep if unlabelled else table.keep & labelled(table)
        if resampling is not None:
            keep = keep & resampling.fits(table.lengths)  # the chunk of another has no action to learn from
        self._rows = None if keep.all() else np.flatnonzero(keep)
        self._ends = np.cumsum(table.lengths)
        kept = self._ends if self._rows is None else np.searchsorted(self._rows, self._ends)
        self.counts = np.diff(kept, prepend=0)  # int64 [E]: windows of each episode
        self._size = int(self.counts.sum())
        # The recorded steps after the frame that a chunk reads, and of these the last that each action needs.
        ends = np.arange(1, chunk + 1) if resampling is None else resampling.ends(chunk)
        self._reach, self._needed = np.arange(ends[-1] + (resampling is not None)), ends - 1
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
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        (episode,), (frame,), (state,), (actions,), (action_mask,) = self.numbers(np.array([index]))
        return Window(
            state=state,
            actions=actions,
            action_mask=action_mask,
            instructions=self.episodes.wordings(episode, frame),
            windows=self,
            episode=int(episode),
            frame=int(frame),
        )

    def numbers(self, indices: Int64[np.ndarray, "n"]) -> Numbers:
        """Of these windows, together: as fast as NumPy."""
        rows = indices if self._rows is None else self._rows[indices]
        table, episodes = self.episodes.table, np.searchsorted(self._ends, rows, side="right")
        ends = self._ends[episodes]
        frames = rows - ends + table.lengths[episodes]
        read = np.minimum(rows[:, None] + self._reach, ends[:, None] - 1)
        needed = read[:, self._needed]
        actions = table.actions[read]
        moments = rows if self.history == 1 else (rows - frames)[:, None] + self._moments(frames[:, None])
        return Numbers(
            episodes=episodes,
            frames=frames,
            state=table.state[moments],
            actions=actions if self.resampling is None else self.resampling.chunk(actions, self.chunk),
            action_mask=(rows[:, None] + self._needed < ends[:, None]) & table.keep[needed],
        )

    def pictures(self, episode: int, frame: int) -> dict[str, Picture | list[Picture]]:
        """What each camera showed at a frame and, with a history, before."""
        images = self.episodes.pictures(episode).items()
        if self.history == 1:
            return {camera: pictures[frame] for camera, pictures in images}
        return {camera: [pictures[at] for at in self._moments(frame).tolist()] for camera, pictures in images}

    def source(self, episode: int, frame: int) -> str:
        """File, record and frame, for messages."""
        return f"{self.episodes[episode].source}, frame {frame}"

    def _moments(self, frames: int | Int64[np.ndarray, "n 1"]) -> Int64[np.ndarray, "*n history"]:
        return np.maximum(frames + self._past, 0)


def labelled(table: Table) -> Bool[np.ndarray, "N"]:
    """Which steps have an instruction."""
    said = np.array([bool(text.strip()) for text in table.texts])
    whole = np.repeat(said[table.instructions[:, 0]], table.lengths)
    return np.where(table.told >= 0, said[table.told], whole) if len(table.told) else whole
