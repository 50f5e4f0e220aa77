"""Steps whose loss or gradient was not a number: what their data were, and when to give up."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from pizero_jax.errors import InputError

NAMED = 4  # rows in one message


class Guard:
    """Watches the metrics of `step.train_step`, one step late so that the host never waits for the device.

    Args:
      limit: skipped steps in a row that end the run.
      names: from a step, counted from 0, and rows of its global batch to what these rows are.
    """

    def __init__(self, limit: int, names: Callable[[int, Sequence[int]], list[str]]):
        self._limit, self._names = limit, names
        self._last: tuple[int, dict[str, Any]] | None = None
        self._in_a_row = 0

    def see(self, done: int, metrics: dict[str, Any]) -> None:
        """Takes the metrics of the `done`-th step, and judges the step before it."""
        self.settle()
        self._last = done, metrics

    def settle(self) -> None:
        """Judges the last step that was seen.

        Raises:
          InputError: it is the `limit`-th in a row that was skipped; the message names its rows.
        """
        if self._last is None:
            return
        (done, metrics), self._last = self._last, None
        if not np.asarray(metrics["skipped"]):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        what = f"step {done} was skipped: {self._what(done - 1, np.asarray(metrics['bad_rows']))}"
        if self._in_a_row >= self._limit:
            raise InputError(
                f"{what}. That is number {self._in_a_row} in a row (config.nonfinite.limit = {self._limit}). Look at "
                "these data, or lower config.optimizer.peak; --resume goes on from the newest checkpoint."
            )
        logging.warning("%s", what)

    def _what(self, step: int, bad: np.ndarray) -> str:
        rows = np.flatnonzero(bad).tolist()
        named = self._names(step, rows[:NAMED] or range(min(NAMED, len(bad))))
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        if rows:
            return f"the loss of {len(rows)} of {len(bad)} rows is not a finite number: {'; '.join(named)}{more}"
        return f"every row's loss is finite, but not the gradient; the rows were {'; '.join(named)}, ..."
