"""Requests of several clients in one call: what comes within a deadline is answered together, in the order it came."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Busy(Exception):
    """The queue is full, or the server is going away: the request was not looked at and may come again."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What one request asks; those of equal `kind` can be answered in one call."""

    kind: Hashable
    request: Any
    answer: asyncio.Future
    arrived: float = dataclasses.field(default_factory=time.perf_counter)


class Batcher:
    """A bounded queue in front of one worker thread, in which everything that takes long happens.

    The first job waits until as many are there as are expected, or as a call takes, for at most the share `patience` of
    what the last call took. While the worker is busy jobs gather anyway. A job whose caller has gone or has given up is
    left out.

    Args:
      work: (kind, requests) -> one answer for each, called in the worker.
      sizes: of the calls, which are filled up: as many jobs are taken as leave at most a quarter of a call empty.
      expected: seconds -> how many jobs are there or come within so many seconds.
    """

    def __init__(
        self,
        work: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
        *,
        sizes: Sequence[int],
        patience: float,
        limit: int,
        expected: Callable[[float], int],
    ):
        self._work, self._sizes, self._patience, self._limit = work, sorted(sizes), patience, limit
        self._expected = expected
        self._took, self._free = 0.0, -math.inf  # the last call: seconds, and when it ended
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "inference")
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __len__(self) -> int:
        return len(self._jobs)

    async def submit(self, kind: Hashable, request: Any) -> Any:
        """The answer of `work`; Busy if the queue is full, and whatever `work` raises."""
        if len(self._jobs) >= self._limit:
            raise Busy(f"busy: {len(self._jobs)} requests wait already; ask again later")
        job = Job(kind, request, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        try:
            return await job.answer
        finally:
            if job in self._jobs:  # `remove` of what is not there would print it, pictures and all, for its error
                self._jobs.remove(job)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._worker.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            jobs = await self._gathered()
            began = time.perf_counter()
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._worker, self._work, jobs[0].kind, [job.request for job in jobs]
                )
            except Exception as error:  # it is told to those who asked
                answers = [error] * len(jobs)
            self._free = time.perf_counter()
            self._took = self._free - began
            for job, answer in zip(jobs, answers, strict=True):
                if not job.answer.done():
                    set_ = job.answer.set_exception if isinstance(answer, Exception) else job.answer.set_result
                    set_(answer)

    async def _gathered(self) -> list[Job]:
        """The next jobs of one kind, the oldest first."""
        while not self._jobs or self._patient():
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patient() if self._jobs else None):
                    await self._arrived.wait()
        kind = self._jobs[0].kind
        jobs = [job for job in self._jobs if job.kind == kind]
        jobs = jobs[: fitting(len(jobs), self._sizes)]
        for job in jobs:
            self._jobs.remove(job)
        return jobs

    def _patient(self) -> float:
        """Seconds for which the first job may still wait for others; 0 if there is nothing to wait for."""
        longest = self._patience * self._took
        enough = len(self._jobs) >= min(self._sizes[-1], self._expected(longest))
        began = max(self._jobs[0].arrived, self._free)
        return 0 if enough else max(0, began + longest - time.perf_counter())


def fitting(count: int, sizes: Sequence[int]) -> int:
    """How many of `count` jobs go into one call of one of these sizes, which ascend."""
    small = max((size for size in sizes if size <= count), default=0)
    large = next((size for size in sizes if size >= count), small)
    return min(count, large) if count >= 0.75 * large or not small else small
