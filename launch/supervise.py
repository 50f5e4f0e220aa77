"""Keeps a training run going on bare hosts, where no scheduler starts it again.

    python -m launch.supervise --processes=2 -- python -m launch.train --config=... --workdir=runs/demo

Starts the command as `launch.local` does; when a process dies or nothing moves any more, ends the others and starts all
again, with --resume and on another port. On several hosts it runs once on each, with --hosts, --host and --coordinator.

Ends with status 0 when training is finished, 2 when a mistake of the user stops it, 75 when it was itself told to stop,
and that of the last failure when --failures in a row brought no newer checkpoint.
"""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import launch
from launch import local
from pizero_jax import processes
from pizero_jax.errors import InputError

_MISTAKE = 2  # exit status of `launch.run` for what another start would not change
_WATCH = 1.0  # seconds between looks at the metrics

flags.DEFINE_integer("min_processes", 0, "Failing without progress, go on with half of them, down to this; 0: never.")
flags.DEFINE_integer("failures", 3, "Give up after as many in a row that brought no newer checkpoint.", lower_bound=1)
flags.DEFINE_integer("hang", 1800, "Seconds without a new line in metrics.jsonl, compiling included, that mean a hang.")
flags.DEFINE_integer("hosts", 1, "How many hosts run this command.", lower_bound=1)
flags.DEFINE_integer("host", 0, "Number of this one.", lower_bound=0)
flags.DEFINE_string("coordinator", "", "Of several hosts, address and free port of host 0, such as 10.0.0.1:7000.")


def main() -> None:
    sys.exit(supervise(launch.COMMAND, workdir_of(launch.COMMAND)))


def supervise(command: Sequence[str], workdir: Path) -> int:
    """The exit status; starts the command until it ends well, is told to stop, or fails without progress."""
    f = flags.FLAGS
    if f.hosts > 1 and not (f.coordinator and f.host < f.hosts):
        raise InputError(f"--hosts={f.hosts} --host={f.host} --coordinator={f.coordinator!r}: each of several hosts "
                         "needs its number, from 0, and the address of host 0")  # fmt: skip
    count, failures, reached = f.processes, 0, newest_checkpoint(workdir)
    while True:
        total = count * f.hosts
        environments = local.environments(count, f.devices, f.host * count, total, f.coordinator)
        with local.Group(command, environments) as group, group.forwarding():
            status = group.wait(lost=Stalled(workdir / "metrics.jsonl", f.hang))
        if status in (0, _MISTAKE) or group.told_to_stop:
            return status
        before, reached = reached, newest_checkpoint(workdir)
        failures = 0 if reached > before or status == processes.RESUME else failures + 1
        if failures >= f.failures:
            print(f"error: status {status}: given up after {failures} failures without a newer checkpoint than that of "
                  f"step {reached}", file=sys.stderr)  # fmt: skip
            return status
        if failures > 1 and f.hosts == 1 and f.min_processes and count // 2 >= f.min_processes:
            count //= 2  # a half of what divided the batch divides it, too
        command = resuming(command)
        print(f"supervise: status {status}; starting again from step {max(reached, 0)} with {count} processes",
              file=sys.stderr)  # fmt: skip


def workdir_of(command: Sequence[str]) -> Path:
    """The folder that the command trains in."""
    for argument, following in zip(command, [*command[1:], ""], strict=True):
        if match := re.fullmatch(r"--?workdir(?:=(.*))?", argument):
            return Path(following if match[1] is None else match[1])
    raise InputError("the command behind -- has no --workdir, which shows whether training goes on")


def resuming(command: Sequence[str]) -> list[str]:
    kept = [argument for argument in command if argument.lstrip("-") not in ("overwrite", "resume")]
    return [*kept, "--resume"]


def newest_checkpoint(workdir: Path) -> int:
    """Its step; -1 if there is none. Read from folder names: Orbax renames a checkpoint when it is complete."""
    return max((int(folder.name) for folder in workdir.glob("checkpoints/*") if folder.name.isdigit()), default=-1)


class Stalled:
    """Whether a file has not changed for some time, as a function without arguments."""

    def __init__(self, file: Path, seconds: float):
        self._file, self._seconds = file, seconds
        self._looked = self._moved = time.monotonic()
        self._seen = self._state()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._looked < _WATCH:
            return False
        self._looked, state = now, self._state()
        if state != self._seen:
            self._seen, self._moved = state, now
        return now - self._moved > self._seconds

    def _state(self) -> tuple | None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size


if __name__ == "__main__":
    local.define_flags()
    launch.run(main)
