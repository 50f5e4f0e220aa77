"""A server under clients that mean no good, and for a long time: does it answer the others, and what does it hold?

    python -m benchmarks.soak --minutes=10 --frames=100000

A policy of one layer, so that its computing is not what is measured; robots beside check every answer against that of
the policy in process. Prints the table of soak.md.
"""

import contextlib
import dataclasses
import datetime
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from flax import linen as nn

from benchmarks.soak_clients import BINARY, Robot, malformed, masked, opened, told
from configs import base
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import normalize
from pizero_jax.report import tables
from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.policy import TrainedPolicy, load
from pizero_jax.train.checkpoint import Checkpoints

MINUTES = flags.DEFINE_float("minutes", 10.0, "Of 16 robots that come and go, with a reload in the middle.")
FRAMES = flags.DEFINE_integer("frames", 100_000, "Malformed ones.")
CONNECTIONS = flags.DEFINE_integer("connections", 1_000, "Idle ones.")

ROBOTS, OBSERVATIONS, NEWER, IDLE, SIZE = 16, 32, 5, 20.0, 16


def main(_) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        run, later = (checkpoint(Path(folder) / name, seed) for seed, name in enumerate(("run", "later")))
        observations = [observation(i) for i in range(OBSERVATIONS)]
        expected = {0: answers(load(run), observations), NEWER: answers(load(later), observations)}
        with server(run) as (process, address):
            beside = Beside(process.pid, address, observations, expected)
            rows = [
                beside.measured("16 robots alone", lambda: time.sleep(10)),
                beside.measured(f"{CONNECTIONS.value} idle connections", lambda: idle(address)),
                beside.measured("a client that never reads", lambda: deaf(address, observations[0])),
                beside.measured(f"{FRAMES.value} malformed frames", lambda: fuzz(address, observations)),
            ]

            def reload():
                shutil.copytree(later / "checkpoints/0", run / f"checkpoints/{NEWER}")
                process.send_signal(signal.SIGHUP)

            rows += beside.soaked(reload)
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
    show(rows, status)


def checkpoint(workdir: Path, seed: int) -> Path:
    """A policy of one layer for the toy, of random weights."""
    c = base.get_config()
    c.policy.update(dict(dtype="float32", remat="none", cameras=("image", "wrist_image"), image_size=SIZE))
    c.policy.update(dict(prompt_length=24, state_dim=2, action_dim=2, chunk=4, num_steps=2))
    c.policy.vision.update(dict(patch=8, width=16, depth=1, mlp=16, heads=2))
    c.policy.attention.update(dict(depth=1, heads=2, kv_heads=1, head_dim=8))
    c.policy.language.update(dict(width=16, mlp=16, vocabulary=259))
    c.policy.expert.update(dict(width=16, mlp=16))
    c.data.cameras = dict(image="image", wrist_image="wrist_image")
    c.data.wrist_cameras = ()
    c.compile_cache = ""
    config = build(TrainConfig, c)
    policy = policies.make(config.policy, config.loss)
    numbers = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    groups = {name: normalize.Statistics.of(numbers) for name in ("state", "actions")}
    metadata = {
        "config": dataclasses.asdict(config),
        "statistics": normalize.to_saved({"": groups}),
        "action_tokens": None,
        "versions": {"jax": jax.__version__},
    }
    params = nn.unbox(jax.jit(policy.init)(jax.random.key(seed)))
    Checkpoints(workdir, config.checkpoint).save_params(params, metadata)
    return workdir


def observation(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    pictures = {name: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for name in ("image", "wrist_image")}
    return pictures | {"state": rng.uniform(-1, 1, 2).astype(np.float32), "prompt": "reach", "seed": [1, i]}


def answers(trained: TrainedPolicy, observations: list[dict[str, Any]]) -> list[np.ndarray]:
    """What the policy gives in process."""
    found = []
    for i, o in enumerate(observations):
        seen = {"images": {name: o[name] for name in ("image", "wrist_image")}, "state": o["state"]}
        found.append(np.asarray(trained.infer(seen, o["prompt"], jax.random.fold_in(jax.random.key(1), i))))
    return found


@contextlib.contextmanager
def server(run: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    flags_ = [f"--checkpoint={run}", "--port=0", "--batches=1,2,4,8,16", f"--connections={CONNECTIONS.value + 64}"]
    line = [sys.executable, "-m", "launch.serve", *flags_, f"--idle_timeout={IDLE:g}", "--reload_every=0"]
    log = run / "log.txt"
    with log.open("w") as written:
        open_ = {name: value for name, value in os.environ.items() if name != "PIZERO_API_KEYS"}
        process = subprocess.Popen(line, stderr=written, env=open_)
    try:
        while not (found := re.search(r"on (ws://\S+) ", log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        yield process, found[1]
        lines = log.read_text().splitlines()
        for strange in [line for line in lines if re.search(r"Traceback|Error|failed", line)][:20]:
            print(strange, file=sys.stderr)
    finally:
        process.kill()
        process.wait()


class Beside:
    """Robots that ask while something else goes on, and the server's memory meanwhile."""

    def __init__(self, pid: int, *asked: Any):
        self._pid, self._asked = pid, asked

    def measured(self, name: str, work) -> dict[str, Any]:
        robots = self._started(0.0)
        before, start = memory(self._pid), time.monotonic()
        note = work() or ""
        row = self._row(name, robots, time.monotonic() - start, before, note)
        for robot in robots:
            robot.stop()
        return row

    def soaked(self, reload) -> list[dict[str, Any]]:
        robots, rows = self._started(0.02), []
        minutes = max(1, round(MINUTES.value))
        for minute in range(minutes):
            before, start = memory(self._pid), time.monotonic()
            if minute == minutes // 2:
                reload()
            time.sleep(60 * MINUTES.value / minutes)
            rows.append(self._row(f"minute {minute + 1} of robots that come and go", robots, time.monotonic() - start,
                                  before, ""))  # fmt: skip
        for robot in robots:
            robot.stop()
        left, by_step = sum(robot.left for robot in robots), sum((robot.answered for robot in robots), Counter())
        rows[-1]["note"] = f"in all {left} left; answers by checkpoint: {dict(sorted(by_step.items()))}"
        return rows

    def _started(self, leaving: float) -> list[Robot]:
        robots = [Robot(*self._asked, leaving=leaving, seed=i) for i in range(ROBOTS)]
        for robot in robots:
            robot.start()
        time.sleep(1)
        return robots

    def _row(self, name: str, robots: list[Robot], seconds: float, before: float, note: str) -> dict[str, Any]:
        times, faults = [], []
        for robot in robots:
            mine = len(robot.times)
            times += robot.times[:mine]
            del robot.times[:mine]
            faults += robot.faults
            robot.faults = []
        for fault in faults[:5]:
            print(f"{name}: {fault}", file=sys.stderr)
        p50, p99 = 1e3 * np.quantile(times, [0.5, 0.99]) if times else (np.nan, np.nan)
        row = {
            "what": name,
            "s": f"{seconds:.0f}",
            "answers": len(times),
            "wrong or none": len(faults),
            "p50 ms": f"{p50:.1f}",
            "p99 ms": f"{p99:.0f}",
            "longest ms": f"{1e3 * max(times, default=np.nan):.0f}",
            "MB before": f"{before:.0f}",
            "MB after": f"{memory(self._pid):.0f}",
            "note": note,
        }
        print(row, file=sys.stderr, flush=True)
        return row


def memory(pid: int) -> float:
    """Resident, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1e3


def idle(address: str) -> str:
    """Opens connections that say nothing, and waits until the server has closed them all."""
    start = time.monotonic()
    waiting = [opened(address) for _ in range(CONNECTIONS.value)]
    made = time.monotonic() - start
    refused = 0
    for connection in waiting:
        found = b""
        while data := connection.recv(65536):
            found += data
        refused += b" 101 " not in found[:20]
        connection.close()
    return f"open after {made:.1f} s, {refused} turned away, all closed after {time.monotonic() - start:.0f} s"


def deaf(address: str, asked: dict[str, Any]) -> str:
    """Asks without ever reading, until the server cuts the connection."""
    frame, start, sent = masked(BINARY, msgpack_arrays.pack(asked)), time.monotonic(), 0
    with opened(address, receive=4096) as connection, contextlib.suppress(OSError):
        while True:
            connection.sendall(frame)
            sent += 1
    return f"{sent} requests sent, cut after {time.monotonic() - start:.0f} s"


def fuzz(address: str, observations: list[dict[str, Any]], threads: int = 3) -> str:
    """Malformed frames, each in a connection of its own; what came of them."""
    outcomes: Counter[str] = Counter()

    def send(seed: int):
        rng = random.Random(seed)
        for _ in range(FRAMES.value // threads):
            try:
                outcomes[told(address, malformed(rng.choice(observations), rng))] += 1
            except TimeoutError:
                outcomes["no end within 60 s"] += 1

    workers = [threading.Thread(target=send, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))


def show(rows: list[dict[str, Any]], status: int) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{datetime.date.today()}, {os.cpu_count()} CPU cores, {platform.machine()}, commit {commit or 'unknown'}\n")
    print(tables.markdown(rows))
    print(f"\nexit status after SIGTERM: {status}")


if __name__ == "__main__":
    app.run(main)
