"""Training by several processes, as users run it: real ones, killed and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pizero_jax.processes import RESUME

ROOT = Path(__file__).parents[2]
TRAIN = [
    sys.executable,
    "-m",
    "launch.train",
    f"--config={ROOT}/configs/pi0_metaworld.py",
    f"--config.data.path={ROOT}/tests/data/rlds_tiny",
    "--config.data.val_split=",
    "--config.wandb.mode=disabled",
    "--config.batch_size=8",
    "--config.steps=12",
    "--config.policy.chunk=4",
    "--config.policy.unroll=1",
    "--config.policy.vision.stem=patch",
    "--config.policy.vision.width=32",
    "--config.policy.vision.mlp=32",
    "--config.policy.language.width=16",
    "--config.policy.language.mlp=16",
    "--config.policy.expert.width=16",
    "--config.policy.expert.mlp=16",
    "--config.policy.attention.depth=1",
    "--config.policy.attention.heads=2",
    "--config.policy.attention.head_dim=8",
    "--config.loss.samples_per_observation=1",
    "--config.env.execute=2",
    "--config.log.every=1",
    "--config.checkpoint.every=4",
    "--config.distributed.heartbeat=10",
]
LONG = 100_000  # steps: never reached
NIGHTLY = [
    pytest.mark.nightly,
    pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """A function that starts training by processes x devices; what still runs in the end is killed."""
    running, cache = [], f"--config.compile_cache={tmp_path_factory.mktemp('compiled')}"

    def start(workdir, layout, *more, launcher="local", options=()):
        count, devices = layout
        line = [sys.executable, "-m", f"launch.{launcher}", f"--processes={count}", f"--devices={devices}", *options]
        line += ["--", *TRAIN, cache, f"--workdir={workdir}", *more]
        log = (workdir.parent / f"{workdir.name}.{len(running)}.log").open("w+")
        process = subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        running.append(SimpleNamespace(process=process, log=Path(log.name), workdir=workdir))
        return running[-1]

    yield start
    for run in running:
        for pid in members(run):
            os.kill(pid, signal.SIGKILL)
        if run.process.poll() is None:
            run.process.kill()


@pytest.fixture(scope="session")
def finished(started):
    """The same, waiting for its good end."""

    def run(*arguments, **options):
        training = started(*arguments, **options)
        assert training.process.wait(600) == 0, training.log.read_text()
        return training

    return run


@pytest.fixture(scope="session")
def unbroken(finished, tmp_path_factory):
    """2 processes of 2 devices."""
    return finished(tmp_path_factory.mktemp("runs") / "unbroken", (2, 2)).workdir


def members(run) -> list[int]:
    """The training processes of a launcher, in their order."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.process.pid)], capture_output=True, text=True)
    return sorted(map(int, children.stdout.split()))


def losses(workdir) -> dict[int, float]:
    file = workdir / "metrics.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {record["step"]: record["loss"] for record in records}


def checkpoints(workdir) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").glob("*") if folder.name.isdigit())


def wait_for(run, reached, seconds=240):
    deadline = time.time() + seconds
    while not reached():
        assert run.process.poll() is None, run.log.read_text()
        assert time.time() < deadline, run.log.read_text()
        time.sleep(0.02)


def at_checkpoint(run, step=4):
    wait_for(run, lambda: max(checkpoints(run.workdir), default=0) >= step)


@pytest.mark.parametrize(
    ("layout", "mesh"),
    [
        ((1, 8), ()),
        # A tensor group spans two processes.
        pytest.param((4, 2), ("--config.mesh.data=2", "--config.mesh.tensor=4"), marks=NIGHTLY),
        pytest.param((2, 4), ("--config.mesh.fsdp=4",), marks=NIGHTLY),
        pytest.param((4, 2), (), marks=NIGHTLY),
    ],
)
def test_every_layout_gives_the_same_losses(finished, unbroken, tmp_path, layout, mesh):
    """The same rows, too: another window or another draw of noise changes a loss by tenths."""
    other = losses(finished(tmp_path / "other", layout, *mesh).workdir)
    assert list(other) == list(range(1, 13))
    np.testing.assert_allclose(list(other.values()), list(losses(unbroken).values()), rtol=1e-5)


def test_sigterm_saves_the_same_step_everywhere_and_resuming_equals_never_stopping(
    started, finished, unbroken, tmp_path
):
    run = started(tmp_path / "stopped", (2, 2), f"--config.steps={LONG}", "--config.checkpoint.every=100000")
    wait_for(run, lambda: len(losses(run.workdir)) >= 3)
    os.kill(members(run)[1], signal.SIGTERM)  # any one process: the others hear of it
    assert run.process.wait(60) == RESUME, run.log.read_text()
    [saved] = checkpoints(run.workdir)
    assert max(losses(run.workdir)) == saved
    finished(run.workdir, (2, 2), "--resume", f"--config.steps={max(saved, 12)}")
    assert [losses(run.workdir)[step] for step in range(1, 13)] == list(losses(unbroken).values())


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_ends_all_and_resuming_equals_never_stopping(started, finished, unbroken, tmp_path, victim):
    run = started(tmp_path / "killed", (2, 2))
    at_checkpoint(run)
    pids = members(run)
    os.kill(pids[victim], signal.SIGKILL)
    assert run.process.wait(10 + 10) == 128 + signal.SIGKILL, run.log.read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    finished(run.workdir, (2, 2), "--resume")
    assert losses(run.workdir) == losses(unbroken)


def test_a_killed_process_is_replaced_without_anybody(started, unbroken, tmp_path):
    run = started(tmp_path / "supervised", (2, 2), launcher="supervise")
    at_checkpoint(run)
    os.kill(members(run)[1], signal.SIGKILL)
    assert run.process.wait(300) == 0, run.log.read_text()
    assert "starting again from step" in run.log.read_text(errors="replace")
    assert losses(run.workdir) == losses(unbroken)


def test_supervising_gives_up_when_failures_bring_no_progress(tmp_path):
    dies = [sys.executable, "-c", "import os; os._exit(7)", f"--workdir={tmp_path}"]
    line = [sys.executable, "-m", "launch.supervise", "--processes=1", "--devices=1", "--failures=2", "--", *dies]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 7
    assert result.stderr.count("starting again") == 1
    assert "given up after 2 failures" in result.stderr


def test_supervising_goes_on_after_a_preemption_but_not_after_a_mistake_of_the_user(tmp_path):
    """The command stands for training: preempted first, then told of a mistake."""
    program = f"import os, sys; os._exit(2 if '--resume' in sys.argv else {RESUME})"
    line = [sys.executable, "-m", "launch.supervise", "--processes=1", "--devices=1", "--failures=1", "--"]
    line += [sys.executable, "-c", program, f"--workdir={tmp_path}", "--overwrite"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("starting again") == 1


def test_a_hang_is_ended(tmp_path):
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)", f"--workdir={tmp_path}"]
    options = ["--processes=2", "--devices=1", "--failures=1", "--hang=1"]
    result = subprocess.run([sys.executable, "-m", "launch.supervise", *options, "--", *sleeps], cwd=ROOT, timeout=120)
    assert result.returncode == 128 + signal.SIGKILL


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_supervising_that_is_told_to_stop_saves_and_says_that_it_can_go_on(started, tmp_path):
    run = started(tmp_path / "told", (1, 1), f"--config.steps={LONG}", launcher="supervise")
    wait_for(run, lambda: len(losses(run.workdir)) >= 1)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == RESUME, run.log.read_text()
    assert max(losses(run.workdir)) == checkpoints(run.workdir)[-1]


def test_a_process_that_does_not_come_is_named(tmp_path):
    """The second of two runs, then the first: which wait for each other, but not at the same port."""
    seconds = "--config.distributed.start_timeout=8"
    for index, words in ((0, ["not all processes came within 8 s", "timed out task names:\n1"]),
                         (1, ["process 0, expected at 127.0.0.1:9", "is missing"])):  # fmt: skip
        variables = {"JAX_COORDINATOR_ADDRESS": ("127.0.0.1:9", f"127.0.0.1:{free_port()}")[index == 0]}
        variables |= {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index), "JAX_PLATFORMS": "cpu"}
        line = [*TRAIN, seconds, f"--workdir={tmp_path / 'run'}"]
        result = subprocess.run(line, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=120)
        assert result.returncode not in (0, 2)
        assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "run").exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_the_number_of_processes_may_change(finished, unbroken, tmp_path):
    for count, steps in ((4, 4), (2, 8), (4, 12)):
        finished(tmp_path / "changing", (count, 1), "--resume", f"--config.steps={steps}")
    changing = losses(tmp_path / "changing")
    assert list(changing) == list(range(1, 13))
    np.testing.assert_allclose(list(changing.values()), list(losses(unbroken).values()), rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_twenty_kills_lose_nothing_beyond_the_last_checkpoint(started, finished, tmp_path):
    long = ("--config.steps=200", "--config.checkpoint.every=2")
    expected = finished(tmp_path / "unbroken", (2, 1), *long).workdir
    run = started(tmp_path / "killed", (2, 1), *long, launcher="supervise", options=["--failures=4"])
    rng = np.random.default_rng(0)
    for _ in range(20):
        before = max(checkpoints(run.workdir), default=0)
        wait_for(run, lambda before=before: max(checkpoints(run.workdir), default=0) > before)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(members(run)[rng.integers(2)], signal.SIGKILL)
    assert run.process.wait(600) == 0, run.log.read_text()
    assert run.log.read_text(errors="replace").count("starting again") == 20
    assert losses(run.workdir) == losses(expected)
