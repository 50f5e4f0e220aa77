"""Files of a LeRobot data set (v3.0), each of several episodes; a next one starts as soon as one is large enough."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pizero_jax.data.lerobot_meta import arrow
from pizero_jax.data.video import Recorder

FILES_PER_CHUNK = 1000


class Tables:
    """Parquet files.

    Args:
      folder: of the data set.
      template: of their names, as info.json has it.
      limit: bytes from which on a file takes no more.
    """

    def __init__(self, folder: Path, template: str, limit: float):
        self._folder, self._template, self._limit = folder, template, limit
        self._number, self._file, self._writer = -1, None, None

    def add(self, columns: Mapping[str, Any]) -> dict[str, int]:
        """Appends a row group; the indices of its file."""
        import pyarrow

        table = pyarrow.table(dict(columns))
        if self._file is None or self._file.tell() >= self._limit:
            self.close()
            self._number += 1
            self._file = _made(self._folder, self._template, self._number).open("wb")
            self._writer = arrow().ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)
        return _indices(self._number)

    def close(self) -> None:
        if self._file is not None:
            self._writer.close()
            self._file.close()


class Clips:
    """Videos of a camera.

    Args:
      folder, limit: as for `Tables`.
      template: of their names, with the camera in it.
      fps: frames per second.
      size: height and width.
    """

    def __init__(self, folder: Path, template: str, limit: float, *, fps: float, size: tuple[int, int]):
        self._folder, self._template, self._limit = folder, template, limit
        self._fps, self._size = fps, size
        self._number, self._recorder = -1, None

    def add(self, pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> dict[str, float]:
        """Appends an episode; the indices of its file, and where it lies in it."""
        if self._recorder is None or self._recorder.bytes >= self._limit:
            self.close()
            self._number += 1
            file = _made(self._folder, self._template, self._number)
            self._recorder = Recorder(file, self._fps, self._size)
        start = self._recorder.frames
        self._recorder.add(pictures)
        end = self._recorder.frames
        return _indices(self._number) | {"from_timestamp": start / self._fps, "to_timestamp": end / self._fps}

    def close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()


def _indices(number: int) -> dict[str, int]:
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def _made(folder: Path, template: str, number: int) -> Path:
    """The file of this number, its folder made."""
    file = folder / template.format(**_indices(number))
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
