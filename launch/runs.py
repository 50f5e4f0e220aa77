"""Running the points of a sweep on this machine, some at a time, each as commands of its own."""

import collections
import ctypes
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from launch.points import Point
from pizero_jax.errors import InputError

_POLL = 0.1  # seconds
_RESUME = 75  # exit status of training that saved and stopped: pizero_jax.processes, which brings JAX along
_MISTAKE = 2  # of the user, which another start would not change


@dataclasses.dataclass(frozen=True)
class Evaluation:
    episodes: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A point with its folder; how far it is follows from what lies there."""

    point: Point
    output: Path
    evaluation: Evaluation | None

    @property
    def workdir(self) -> Path:
        return self.output / self.point.name

    @property
    def log(self) -> Path:
        return self.output / "logs" / f"{self.point.name}.log"

    def commands(self) -> list[list[str]]:
        """What is left to do."""
        commands = []
        if not self.is_trained():
            train = ["python", "-m", "launch.train", *self.point.flags, f"--workdir={self.workdir}", "--resume"]
            commands.append(train)
        if self.evaluation and not self.is_evaluated():
            episodes = f"--episodes={self.evaluation.episodes}"
            commands.append(["python", "-m", "launch.evaluate", f"--checkpoint={self.workdir}", episodes])
        return commands

    def is_trained(self) -> bool:
        return self.reached() >= self.point.config.steps

    def is_evaluated(self) -> bool:
        try:
            found = json.loads((self.workdir / "evaluation.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        of_the_last = found["checkpoint"]["step"] >= self.point.config.steps
        return of_the_last and found["settings"]["episodes"] == self.evaluation.episodes

    def reached(self) -> int:
        """Step of the newest whole checkpoint; 0 if there is none."""
        manifests = self.workdir.glob("checkpoints/*/manifest.sha256")
        return max((int(file.parent.name) for file in manifests if file.parent.name.isdigit()), default=0)

    def state(self) -> str:
        if not self.commands():
            return "finished"
        if self.is_trained():
            return "trained"
        return f"step {self.reached()} of {self.point.config.steps}" if self.workdir.exists() else "not started"


@dataclasses.dataclass
class Started:
    run: Run
    process: subprocess.Popen
    reached: int  # step, before it was started
    left: int  # commands, then


def run_all(runs: Sequence[Run], parallel: int, gpus_each: int) -> int:
    """Does what is left of all runs, `parallel` at a time; the exit status of the sweep.

    One that ends otherwise than well is started again as long as that brings newer checkpoints. SIGTERM and Ctrl-C let
    those that run save and end.
    """
    devices = gpus(parallel, gpus_each)
    waiting, running, failed, stopped, told = collections.deque(runs), {}, [], [], []

    def stop(*_) -> None:
        stopped.append(True)
        for started in running.values():
            started.process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while running or (waiting and not stopped):
        for slot in sorted(set(range(parallel)) - running.keys()):
            if not stopped and (started := _start_one(waiting, devices[slot])):
                running[slot] = started
        if stopped:  # perhaps while one was being started
            stop()
        elif not running and waiting and not told:
            told.append(True)
            say(waiting[0], "another process still works on it; waits for that to end")
        time.sleep(_POLL)
        for slot, started in list(running.items()):
            status = started.process.poll()
            if status is None:
                continue
            del running[slot]
            if stopped:
                continue
            if _may_go_on(started, status):
                waiting.appendleft(started.run)
            else:
                failed.append(started.run)
                say(started.run, f"failed with status {status}: {_last_line(started.run.log)}")
    if stopped:
        say(None, "stopped; the same command goes on")
        return _RESUME
    say(None, f"{len(runs) - len(failed)} of {len(runs)} runs are finished, in {runs[0].output}")
    return 1 if failed else 0


def _start_one(waiting: collections.deque[Run], environment: dict[str, str]) -> Started | None:
    """The first of those that wait for which something is left to do, and which nobody else is doing."""
    for run in list(waiting):
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as log:
            if not _lock(log):
                continue
            waiting.remove(run)
            commands = run.commands()
            if not commands:
                say(run, "finished")
                continue
            before = run.reached()
            say(run, f"{commands[0][2]}{f' from step {before}' if before else ''}, see {run.log}")
            process = subprocess.Popen(
                [sys.executable, *commands[0][1:]],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes once, from here
                preexec_fn=_end_with_parent,
            )
            return Started(run, process, before, len(commands))
    return None


def _lock(log: BinaryIO) -> bool:
    """Whether nobody writes to this log. Then it is ours, and that of the process that gets it, until that ends.

    So a run has one writer, even if the sweep was killed with -9 or is started twice.
    """
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # of a file system without locks
        return True
    return True


_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In a new process: SIGTERM, which lets it save and end, when the sweep dies (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _may_go_on(started: Started, status: int) -> bool:
    """Whether a run whose command ended has more to do that is worth trying."""
    run = started.run
    if status == 0:
        return len(run.commands()) < started.left
    return status != _MISTAKE and run.reached() > started.reached


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def gpus(parallel: int, each: int) -> list[dict[str, str]]:
    """For each of the runs at a time the environment that shows it its own GPUs."""
    if not each:
        return [{}] * parallel
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = given.split(",") if given else [str(i) for i in range(parallel * each)]
    if len(numbers) < parallel * each:
        raise InputError(f"--parallel={parallel} x --gpus_each={each} are more than CUDA_VISIBLE_DEVICES={given}")
    return [{"CUDA_VISIBLE_DEVICES": ",".join(numbers[i * each : (i + 1) * each])} for i in range(parallel)]


def say(run: Run | None, text: str) -> None:
    print(f"{run.point}: {text}" if run else text, file=sys.stderr, flush=True)
