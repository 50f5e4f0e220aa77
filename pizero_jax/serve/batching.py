"""Requests of several clients in one call, in the order in which they came."""

import asyncio
import contextlib
import dataclasses
import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pizero_jax.serve.schedule import Times, patience, plans


class Busy(Exception):
    """The queue is full, or the server is going away: the request was not looked at and may come again."""


class Gone(Exception):
    """Nobody waits for the answer any more."""


@dataclasses.dataclass(eq=False)
class Pace:
    """When a client was answered, and how long it thought before it asked, in seconds."""

    answered: float = math.inf
    pause: float = math.inf
    asks: bool = False
    gone: bool = False
    kind: int = 0  # the hash of what it asked last: to keep that itself would keep a policy

    def ask(self, kind: Hashable) -> None:
        self.asks, self.kind, self.pause = True, hash(kind), abs(time.perf_counter() - self.answered)

    def answer(self) -> None:
        self.asks, self.answered = False, time.perf_counter()

    def arrival(self, now: float) -> float:
        """Seconds until it asks if it thinks no longer than last time; one that is late will be as late once more."""
        return math.inf if self.asks else abs(self.answered + self.pause - now)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What one request asks; those of equal `kind` can be answered in one call."""

    kind: Hashable
    request: Any
    pace: Pace
    answer: asyncio.Future


class Batcher:
    """A bounded queue in front of one worker thread, in which everything that takes long happens.

    How many jobs go into a call, and whether they wait for clients that are about to ask, is what answers all soonest
    (`schedule.py`). While the worker is busy jobs gather anyway. A job whose client has left, or whose caller has given
    up, is left out.

    Args:
      work: (kind, requests) -> one answer for each, called in the worker.
      sizes: of the calls, which are filled up.
      times: of a kind, what its calls take; they are noted there.
    """

    def __init__(
        self,
        work: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
        *,
        sizes: Sequence[int],
        limit: int,
        times: Callable[[Hashable], Times],
    ):
        self._work, self._sizes, self._limit, self._times = work, sorted(sizes), limit, times
        self._paces: weakref.WeakSet[Pace] = weakref.WeakSet()  # of the clients that are there
        self._jobs: deque[Job] = deque()
        self._busy, self._timer = False, None
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, "inference")

    def __len__(self) -> int:
        return len(self._jobs)

    async def submit(self, kind: Hashable, request: Any, pace: Pace) -> Any:
        """The answer of `work`; Busy if the queue is full, Gone if the client leaves, and whatever `work` raises.

        Args:
          pace: of the client, which is forgotten once its own side has forgotten it.
        """
        if len(self._jobs) >= self._limit:
            raise Busy(f"busy: {len(self._jobs)} requests wait already; ask again later")
        if pace.gone:
            raise Gone
        pace.ask(kind)
        self._paces.add(pace)
        job = Job(kind, request, pace, self._loop.create_future())
        self._jobs.append(job)
        self._loop.call_soon(self._go_on)  # after others that have come by now
        try:
            return await job.answer
        finally:
            if job in self._jobs:  # `remove` of what is not there would print it, pictures and all, for its error
                self._jobs.remove(job)

    def leave(self, pace: Pace) -> None:
        """The client has gone: what it asked and is not computed yet never will be."""
        pace.gone = True
        for job in self._jobs:
            if job.pace is pace and not job.answer.done():
                job.answer.set_exception(Gone())

    def close(self) -> None:
        self._jobs.clear()
        self._worker.shutdown(wait=False)

    def _go_on(self) -> None:
        """Begins the next call if the worker has nothing to do, or comes back when its jobs have waited for others."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._busy or not self._jobs:
            return
        jobs, wait = self._next()
        if wait:
            self._timer = self._loop.call_later(wait, self._go_on)
            return
        for job in jobs:
            self._jobs.remove(job)
        self._busy = True
        self._worker.submit(self._call, jobs)

    def _call(self, jobs: list[Job]) -> None:
        """In the worker."""
        began, seconds = time.perf_counter(), None
        try:
            answers = self._work(jobs[0].kind, [job.request for job in jobs])
            seconds = time.perf_counter() - began
        except Exception as error:  # it is told to those who asked
            answers = [error] * len(jobs)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, jobs, answers, seconds)

    def _answer(self, jobs: list[Job], answers: Sequence[Any], seconds: float | None) -> None:
        self._busy = False
        for job, answer in zip(jobs, answers, strict=True):
            job.pace.answer()
            if not job.answer.done():
                set_ = job.answer.set_exception if isinstance(answer, Exception) else job.answer.set_result
                set_(answer)
        if seconds is not None:
            size = next((size for size in self._sizes if size >= len(jobs)), self._sizes[-1])
            self._times(jobs[0].kind).note(size, seconds)
        self._go_on()

    def _next(self) -> tuple[list[Job], float]:
        """What goes into the next call as it looks now, and for how many seconds that may still wait for others."""
        kind, now = self._jobs[0].kind, time.perf_counter()
        jobs = [job for job in self._jobs if job.kind == kind]
        others = (pace.arrival(now) for pace in self._paces if pace.kind == hash(kind) and not pace.gone)
        arrivals = sorted(others)[: max(0, self._sizes[-1] - len(jobs))]
        best = plans(len(jobs) + len(arrivals), self._sizes, self._times(kind))
        return jobs[: best[len(jobs)].first], patience(len(jobs), arrivals, best)
