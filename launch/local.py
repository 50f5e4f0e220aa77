"""Runs a command as several processes of one machine, as they would run on several hosts.

    python -m launch.local --processes=2 --devices=2 -- python -m launch.train --config=... --workdir=...

With --devices each process has that many devices of the CPU; without, one of the machine's accelerators. Process 0
speaks as usual, the others on stderr behind their number. The exit status is that of the first process that fails; the
others are ended then. SIGTERM and Ctrl-C go to all.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

import launch
from pizero_jax import processes
from pizero_jax.errors import InputError

_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_GRACE = 5.0  # seconds in which the others may say what went wrong, too
_POLL = 0.05  # seconds


def main() -> None:
    count, devices = flags.FLAGS.processes, flags.FLAGS.devices
    with Group(launch.COMMAND, environments(count, devices)) as group, group.forwarding():
        status = group.wait()
    sys.exit(status)


def define_flags() -> None:
    flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
    flags.DEFINE_integer("devices", 0, "Devices of the CPU for each; 0: an accelerator for each.", lower_bound=0)


def environments(count: int, devices: int, first: int = 0, total: int = 0, address: str = "") -> list[dict[str, str]]:
    """The environment of each of `count` processes.

    Args:
      devices: of the CPU for each; 0 gives each one accelerator.
      first: number of the first process, if `total` are distributed over several hosts.
      address: of process 0; otherwise a free port here.
    """
    if not address:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
    made = []
    for i in range(count):
        numbers = {processes.COUNT: str(total or count), processes.INDEX: str(first + i)}
        environment = os.environ | {processes.COORDINATOR: address} | numbers
        if devices:
            others = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
            environment["XLA_FLAGS"] = f"{others} --xla_force_host_platform_device_count={devices}".strip()
            environment["JAX_PLATFORMS"] = "cpu"
        elif count > 1:
            environment["JAX_LOCAL_DEVICE_IDS"] = str(i)
        made.append(environment)
    return made


class Group:
    """Running processes of one command; none outlives the `with` block."""

    def __init__(self, command: Sequence[str], environments: Sequence[dict[str, str]]):
        if not command:
            raise InputError("the command is missing; give it behind --, as in -- python -m launch.train --config=...")
        self._members, self._readers = [], []
        self.told_to_stop = False  # by a signal that was forwarded
        for environment in environments:
            # The first keeps the terminal, for its progress line. Sessions of their own: Ctrl-C comes once, from here.
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if self._members else {}
            try:
                member = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
            except OSError as error:
                raise InputError(f"{command[0]!r} cannot be run: {error}") from error
            if self._members:
                number = int(environment[processes.INDEX])
                self._readers.append(threading.Thread(target=_prefix, args=(member, number), daemon=True))
                self._readers[-1].start()
            self._members.append(member)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def wait(self, lost: Callable[[], bool] = lambda: False) -> int:
        """The status of the first that fails, as shells count it (128 + its signal), or 0 when all are done.

        Args:
          lost: asked again and again; True ends all, with the status of a kill.
        """
        running = list(self._members)
        while running:
            time.sleep(_POLL)
            if lost():
                self.kill()
                return 128 + signal.SIGKILL
            for member in running:
                if member.poll():
                    self._end_soon(running)
                    return status_of(member)
            running = [member for member in running if member.returncode is None]
        self._read_all()
        return 0

    def _end_soon(self, running: list[subprocess.Popen]) -> None:
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline and any(member.poll() is None for member in running):
            time.sleep(_POLL)
        self.kill()

    def kill(self) -> None:
        for member in self._members:
            if member.poll() is None:
                member.kill()
                member.wait()
        self._read_all()

    def _read_all(self) -> None:
        for reader in self._readers:
            reader.join(timeout=_GRACE)

    @contextlib.contextmanager
    def forwarding(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C go to all processes."""

        def forward(number: int, _) -> None:
            self.told_to_stop = True
            for member in self._members:
                with contextlib.suppress(ProcessLookupError):
                    member.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def status_of(member: subprocess.Popen) -> int:
    return member.returncode if member.returncode >= 0 else 128 - member.returncode


def _prefix(member: subprocess.Popen, number: int) -> None:
    """Hands on what a process writes, line by line and behind its number; first wipes a progress line off."""
    wipe = "\r\033[K" if sys.stderr.isatty() else ""
    for line in member.stdout:
        sys.stderr.write(f"{wipe}[{number}] {line.decode(errors='replace')}")
        sys.stderr.flush()


if __name__ == "__main__":
    define_flags()
    launch.run(main)
