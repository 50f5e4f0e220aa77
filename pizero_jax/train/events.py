"""TensorBoard's files of a run."""

import os
import time
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image


class Events:
    """Writes numbers and pictures into `folder`, which `tensorboard --logdir` shows.

    A full disk ends this, not the run: `metrics.jsonl` has the numbers, too.

    Args:
      resume_step: what earlier files of the folder have of later steps is shown no more.
    """

    def __init__(self, folder: Path, resume_step: int = 0):
        # Neither TensorFlow nor a thread: that of tensorboardX's SummaryWriter waits forever for a full disk.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._folder, self._event = folder, Event
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")  # one started in the same second
        self._write([Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START))])

    def numbers(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.summary import scalar

        self._write([self._event(step=step, summary=scalar(name, value)) for name, value in values.items()])

    def pictures(self, step: int, files: dict[str, Path]) -> None:
        from tensorboardX.summary import image

        pixels = {name: np.asarray(Image.open(file).convert("RGB")) for name, file in files.items()}
        self._write(
            [self._event(step=step, summary=image(name, array, dataformats="HWC")) for name, array in pixels.items()]
        )

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, events: list) -> None:
        """They are on the disk when it returns."""
        if self._writer is None:
            return
        try:
            for event in events:
                event.wall_time = time.time()
                self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            logging.error("%s: %s; training goes on without TensorBoard", self._folder, error.strerror)
            self._writer = None
