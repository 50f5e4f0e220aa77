"""Episodes of a split of a data set: their numbers at hand in one table, their pictures read when they are used.

Every format has a reader (`rlds`, `lerobot`) that makes `Episodes`; nothing behind it knows the format.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np
from absl import logging
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt8

_LINES = 20  # of the log, about damaged episodes

Picture = bytes | UInt8[np.ndarray, "h w 3"]
"""A JPEG or PNG file, or grey levels."""

Pictures = Mapping[str, Sequence[Picture]]
"""By camera of the policy, one picture for each step of an episode; a video decodes a frame when it is taken."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One demonstration of T steps."""

    images: Pictures
    state: Float32[np.ndarray, "T P"]
    actions: Float32[np.ndarray, "T A"]
    instructions: tuple[
        str, ...
    ]  # ways to say what is done, at least one, perhaps empty; with `told`, all that is said
    index: int  # its place in the split
    keep: Bool[np.ndarray, "T"]  # False for steps that nothing should be learnt from
    source: str = ""  # file and record, for messages
    told: Int[np.ndarray, "T"] | None = None  # which of the instructions each step has, where they change

    @property
    def instruction(self) -> str:
        """The first."""
        return self.instructions[0]

    def wordings(self, step: int) -> tuple[str, ...]:
        """Ways to say what is done at a step."""
        return self.instructions if self.told is None else (self.instructions[self.told[step]],)

    def __len__(self) -> int:
        return len(self.actions)


@dataclasses.dataclass(frozen=True)
class Table:
    """The numbers of E episodes, their N steps below each other."""

    lengths: Int64[np.ndarray, "E"]  # steps
    state: Float32[np.ndarray, "N P"]
    actions: Float32[np.ndarray, "N A"]
    keep: Bool[np.ndarray, "N"]
    instructions: Int32[np.ndarray, "E k"]  # places in `texts`; -1 fills the row
    told: Int32[
        np.ndarray, "n"
    ]  # that of each step, where instructions change; -1 in other episodes; empty without any
    texts: tuple[str, ...]
    sizes: Int64[np.ndarray, "E"]  # bytes that the encoded pictures of the cameras take
    places: Int64[np.ndarray, "E p"]  # where the reader finds each episode: numbers of its own
    left_out: tuple[str, ...] = ()  # one line for each episode that is damaged and not here

    @classmethod
    def of(
        cls,
        episodes: Sequence[Episode],
        sizes: Sequence[int],
        places: Sequence[Sequence[int]],
        left_out: Sequence[str] = (),
    ) -> "Table":
        """The table of at least one episode; their pictures are not touched."""
        texts = {text: i for i, text in enumerate(dict.fromkeys(t for e in episodes for t in e.instructions))}
        instructions = np.full((len(episodes), max(len(e.instructions) for e in episodes)), -1, np.int32)
        for row, episode in zip(instructions, episodes, strict=True):
            row[: len(episode.instructions)] = _places(episode, texts)
        told = [np.full(len(e), -1) if e.told is None else _places(e, texts)[e.told] for e in episodes]
        changing = any(e.told is not None for e in episodes)
        return cls(
            lengths=np.array([len(episode) for episode in episodes], np.int64),
            state=np.concatenate([episode.state for episode in episodes]),
            actions=np.concatenate([episode.actions for episode in episodes]),
            keep=np.concatenate([episode.keep for episode in episodes]),
            instructions=instructions,
            told=np.concatenate(told).astype(np.int32) if changing else np.zeros(0, np.int32),
            texts=tuple(texts),
            sizes=np.array(sizes, np.int64),
            places=np.array(places, np.int64).reshape(len(episodes), -1),
            left_out=tuple(left_out),
        )

    def __len__(self) -> int:
        return len(self.lengths)


def report_left_out(path: str, table: Table) -> None:
    """Logs how many episodes are damaged, and the first of them."""
    count, total = len(table.left_out), len(table.left_out) + len(table)
    if count:
        logging.warning("%s: %d of %d episodes are damaged and left out", path, count, total)
    for line in table.left_out[:_LINES]:
        logging.warning("left out: %s", line)
    if count > _LINES:
        logging.warning("left out: %d more", count - _LINES)


def step_by_step(texts: Sequence[str]) -> tuple[tuple[str, ...], Int32[np.ndarray, "T"]]:
    """The different instructions of T steps, in the order of their first, and which of them each step has."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return tuple(distinct), np.array([distinct[text] for text in texts], np.int32)


def _places(episode: Episode, texts: Mapping[str, int]) -> Int32[np.ndarray, "k"]:
    """Of an episode's instructions among all texts."""
    return np.array([texts[text] for text in episode.instructions], np.int32)


class Cache:
    """Pictures of the episodes that were used last, by key, within a budget of bytes; safe with threads.

    Args:
      budget: bytes of encoded pictures to hold. What a caller still uses lives on beside it.
    """

    def __init__(self, budget: float):
        self._budget, self.held = budget, 0
        self._entries: collections.OrderedDict[tuple, tuple[Pictures, int]] = collections.OrderedDict()
        self._reading: dict[tuple, Future] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple, size: int, read: Callable[[], Pictures]) -> Pictures:
        """What `read` gives, which is called once for all threads that ask for one key at the same time."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
            others = self._reading.get(key)
            if others is None:
                mine = self._reading[key] = Future()
        if others is not None:
            return others.result()
        try:
            pictures = read()
        except BaseException as error:
            mine.set_exception(error)
            with self._lock:
                del self._reading[key]
            raise
        mine.set_result(pictures)
        with self._lock:
            del self._reading[key]
            self._entries[key] = pictures, size
            self.held += size
            while self.held > self._budget and len(self._entries) > 1:
                self.held -= self._entries.popitem(last=False)[1][1]
        return pictures


class Episodes(Sequence[Episode]):
    """The episodes of a split.

    Args:
      table: their numbers.
      read: the pictures of the episode of a number, from its file.
      source: file and record of the episode of a number.
      cameras: of the policy, those that the pictures have.
      cache: where pictures are kept; without one they are read each time.
    """

    def __init__(
        self,
        table: Table,
        read: Callable[[int], Pictures],
        source: Callable[[int], str],
        cameras: Sequence[str],
        cache: Cache | None = None,
    ):
        self.table = table
        self._read, self._source, self._cameras, self._cache = read, source, tuple(cameras), cache
        self._ends = np.cumsum(table.lengths)

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Episodes":
        """Episodes that are in memory already."""
        table = Table.of(episodes, sizes=[0] * len(episodes), places=[[i] for i in range(len(episodes))])
        cameras = tuple(episodes[0].images)
        return cls(table, lambda i: episodes[i].images, lambda i: episodes[i].source, cameras)

    @property
    def lengths(self) -> Int64[np.ndarray, "E"]:
        return self.table.lengths

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        end = int(self._ends[index])
        steps = slice(end - int(self.table.lengths[index]), end)
        told = self.table.told[steps]
        changes = len(told) and told[0] >= 0
        return Episode(
            images=_Unread(self._cameras, lambda: self.pictures(index)),
            state=self.table.state[steps],
            actions=self.table.actions[steps],
            instructions=self._instructions(index),
            index=index,
            keep=self.table.keep[steps],
            source=self._source(index),
            told=np.argmax(told[:, None] == self.table.instructions[index], axis=1) if changes else None,
        )

    def wordings(self, index: int, step: int) -> tuple[str, ...]:
        """Ways to say what is done at a step of an episode."""
        told = self.table.told
        place = told[self._ends[index] - self.table.lengths[index] + step] if len(told) else -1
        return self._instructions(index) if place < 0 else (self.table.texts[place],)

    def _instructions(self, index: int) -> tuple[str, ...]:
        texts = self.table.texts
        return tuple([texts[i] for i in self.table.instructions[index].tolist() if i >= 0])

    def pictures(self, index: int) -> Pictures:
        """Those of an episode, read now if the cache does not have them."""
        if self._cache is None:
            return self._read(index)
        return self._cache.get((self, index), int(self.table.sizes[index]), lambda: self._read(index))


class _Unread(Mapping):
    """Pictures that are read at the first look at one of them."""

    def __init__(self, cameras: Sequence[str], read: Callable[[], Pictures]):
        self._cameras, self._read = cameras, read

    def __getitem__(self, camera: str) -> Sequence[Picture]:
        if camera not in self._cameras:
            raise KeyError(camera)
        return self._read()[camera]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)
