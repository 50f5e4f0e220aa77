"""Frames of videos, decoded when they are taken, and videos of frames: the one module that imports PyAV, lazily."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from pizero_jax.errors import InputError

_OPEN = 8  # videos that a thread keeps open: a few MB each, for the decoder's frames and the file's index
_AHEAD = 8  # frames decoded in passing rather than searched for; LeRobot's own videos have a key frame every 2
_MARGINS = (0.0, 1.0, 10.0)  # seconds to search earlier where frames are shown in another order than stored
_ROUNDING = 0.1  # of a frame: times are float32, those of a video whole ticks
# Of x264, at about two grey levels of error. Against its defaults, at 640x480: encoded 2.7 times and decoded 2.3 times
# as fast, for 1.45 times the bytes.
_ENCODER = {"g": "2", "bf": "0", "crf": "18", "preset": "veryfast", "tune": "fastdecode"}
_local = threading.local()


class Frames(Sequence[UInt8[np.ndarray, "h w 3"]]):
    """The frames of an episode in a video file, each decoded when it is taken; safe with threads.

    Neighbours taken one after the other are decoded in one go, others after a search for the key frame before them.

    Args:
      file: a video, which may hold other episodes, too.
      times: of the frames, in seconds of the file.
      fps: frames per second of the data set; what is further than half a frame from its time is an error.
    """

    def __init__(self, file: Path, times: Float64[np.ndarray, "T"], fps: float):
        self._file, self._times, self._period = file, times, 1 / fps

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The frame, as RGB grey levels.

        Raises:
          InputError: the file is missing or damaged, or has no frame at this time.
        """
        av, time = _av(), float(self._times[index])  # IndexError ends an iteration
        where = f"{self._file}: frame {index} of the episode, at {time:.3f} s,"
        try:
            decoder = _opened(self._file)
            frame = decoder.nearest(time, self._period)
            if frame is None or abs(frame.time - time) > self._period / 2:
                found = "there is none" if frame is None else f"the nearest one is at {frame.time:.3f} s"
                raise InputError(f"{where} is missing: {found}; download or make this file again")
            if frame.is_corrupt:
                raise InputError(f"{where} is damaged; download or make this file again")
            return decoder.picture(frame)
        except av.error.FileNotFoundError as error:
            raise InputError(f"{self._file} is missing; download the data set again") from error
        except av.error.FFmpegError as error:
            _pool().pop(self._file, None)  # what a damaged file left behind helps no other frame
            raise InputError(f"{where} cannot be decoded: {error}; download or make this file again") from error


class _Decoder:
    """An open video and the frame in it that was decoded last."""

    def __init__(self, file: Path):
        from av.video.reformatter import VideoReformatter

        self._container = _av().open(str(file))
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # those who call are parallel already
        self._to_rgb = VideoReformatter()
        self._following: Iterator[Any] = iter(())
        self._last = None

    def nearest(self, time: float, period: float) -> Any | None:
        """The frame nearest to `time`; None if the file has no frames."""
        slack = _ROUNDING * period
        if self._last is None or not -slack <= time - self._last.time <= _AHEAD * period:
            self._last = self._search(time, slack)
        near = self._last
        while near is not None and near.time < time - slack:
            following = next(self._following, None)
            if following is None:
                break
            self._last = following
            if following.time - time > time - near.time:
                break
            near = following
        return near

    def _search(self, time: float, slack: float) -> Any | None:
        """A frame at `time` or before it, if there is one: the first that a key frame lets decode."""
        for margin in _MARGINS + (time,):
            ticks = max(0, round((time - margin) / self._stream.time_base))
            self._container.seek(ticks, stream=self._stream, backward=True)
            self._following = self._container.decode(self._stream)
            first = next(self._following, None)
            if first is not None and first.time <= time + slack:
                break
        return first

    def picture(self, frame: Any) -> UInt8[np.ndarray, "h w 3"]:
        return self._to_rgb.reformat(frame, format="rgb24").to_ndarray()

    def close(self) -> None:
        self._container.close()


def _pool() -> dict[Path, _Decoder]:
    """The open videos of this thread, those used last at the end."""
    if not hasattr(_local, "pool"):
        _local.pool = {}
    return _local.pool


def _opened(file: Path) -> _Decoder:
    pool = _pool()
    decoder = pool.pop(file, None) or _Decoder(file)
    pool[file] = decoder
    while len(pool) > _OPEN:
        pool.pop(next(iter(pool))).close()
    return decoder


class Recorder:
    """Writes an H.264 video, a key frame at every other frame so that any frame is found at once.

    Args:
      file: the video, whose folder exists.
      fps: frames per second.
      size: height and width of the pictures, both even.
    """

    def __init__(self, file: Path, fps: float, size: tuple[int, int]):
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = _av().open(str(file), "w")
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=_ENCODER)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self.frames = self.bytes = 0  # the encoder still holds some of the last frames

    def add(self, pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> None:
        """Appends the frames of an episode, the first of them a key frame."""
        av = _av()
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            if number == 0:
                frame.pict_type = av.video.frame.PictureType.I
            packets = self._stream.encode(frame)
            self._container.mux(packets)
            self.frames += 1
            self.bytes += sum(packet.size for packet in packets)

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def _av() -> ModuleType:
    try:
        import av
        import av.video.frame
    except ModuleNotFoundError as error:
        raise InputError("videos need PyAV: pip install 'pizero_jax[lerobot]'") from error
    return av
