"""A real SLURM on this machine: a job of two tasks is requeued and goes on, and a sweep is an array."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.test_processes import TRAIN

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it"),
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="apt-get install slurm-wlm munge"),
]

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path):
    """A function that runs a command of SLURM; the daemons live in a temporary folder and end with the test."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    controller, daemon = free_ports(2)
    values = {"host": socket.gethostname().split(".")[0], "folder": folder, "cores": len(os.sched_getaffinity(0))}
    (folder / "slurm.conf").write_text(CONFIG.format(controller=controller, daemon=daemon, **values))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log"}
    munged = ["munged", "--force", "--foreground", *(f"--{flag}={folder / name}" for flag, name in files.items())]
    munged += [f"--seed-file={folder / 'munge.seed'}"]
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "JAX_PLATFORMS": "cpu"}
    daemons = []

    def begin(*command):
        log = (folder / f"{command[0]}.out").open("w")
        daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))

    def run(*command) -> str:
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT).stdout

    def idle() -> bool:
        return "idle" in subprocess.run(["sinfo"], env=environment, capture_output=True, text=True).stdout

    begin(*munged)
    try:
        wait_for(lambda: (folder / "munge.sock").exists(), 10)
        begin("slurmctld", "-D")
        begin("slurmd", "-D")
        wait_for(idle, 60)
        yield run
        run("scancel", "--user=root")
        wait_for(lambda: not run("squeue", "--noheader"), 120)
    finally:
        for process in reversed(daemons):
            process.terminate()
            process.wait(30)


def wait_for(reached, seconds):
    deadline = time.time() + seconds
    while not reached():
        assert time.time() < deadline
        time.sleep(0.2)


def test_a_requeued_job_of_two_tasks_goes_on_where_it_was(slurm, tmp_path):
    workdir, log, script = tmp_path / "run", tmp_path / "job.log", tmp_path / "job.sh"
    more = ["--config.steps=300", "--config.checkpoint.every=1000", f"--config.compile_cache={tmp_path / 'compiled'}"]
    train = " ".join([*TRAIN, *more, f"--workdir={workdir}", "--resume"])
    script.write_text(f"#!/bin/sh\nexec srun --overcommit --kill-on-bad-exit=1 {train}\n")
    options = ["--ntasks=2", "--overcommit", "--requeue", "--open-mode=append", f"--output={log}"]
    job = slurm("sbatch", "--parsable", *options, str(script)).strip()

    def losses() -> dict[int, float]:
        file = workdir / "metrics.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return {record["step"]: record["loss"] for record in records}

    wait_for(lambda: len(losses()) >= 5, 300)
    before = losses()
    slurm("scontrol", "requeue", job)  # SIGTERM first, SIGKILL after KillWait
    wait_for(lambda: max(losses(), default=0) == 300, 600)
    after = losses()
    assert list(after) == list(range(1, 301))
    assert {step: after[step] for step in before} == before
    assert b"stopped by SIGTERM; --resume goes on" in log.read_bytes()  # two tasks write, also into each other


def test_a_sweep_is_an_array_of_finished_runs(slurm, tmp_path):
    """2 x 2 points over two seeds, by the launcher; one element is queued again while it trains, and goes on."""
    flags = [*TRAIN[3:], f"--config.compile_cache={tmp_path / 'compiled'}", f"--output={tmp_path / 'runs'}"]
    flags += ["--grid=optimizer.peak=1e-4,3e-4", "--grid=optimizer.ema=0.9,0.99", "--seeds=2"]
    sweep = [sys.executable, "-m", "launch.sweep", *flags]
    options = ["--gpus=0", "--time=2:00:00", f"--logs={tmp_path}/%A_%a.log", "--sbatch=--overcommit", "--name=rates"]
    said = slurm(sys.executable, "-m", "launch.slurm", *options, "--", *sweep)
    job = said.split()[-1]
    assert said == f"Submitted batch job {job}\n"

    def elements(pattern: str) -> list[Path]:
        return sorted((tmp_path / "runs").glob(pattern))

    wait_for(lambda: elements("*/checkpoints/4/manifest.sha256"), 600)
    slurm("scontrol", "requeue", f"{job}_0")
    wait_for(lambda: len(elements("*/checkpoints/12/manifest.sha256")) == 8, 1800)
    wait_for(lambda: not slurm("squeue", "--noheader"), 120)
    states = [row["state"] for row in json.loads(slurm(*sweep, "--list", "--json"))]
    assert states == ["finished"] * 8
    for metrics in elements("*/metrics.jsonl"):
        assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == list(range(1, 13))
