"""Sweeps as users start them. In all but the last test a program plays training, and writes how far it is."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pizero_jax.processes import RESUME
from tests.launch.test_processes import TRAIN

ROOT = Path(__file__).parents[2]
BASE = ["--config=configs/pi0_metaworld.py"]
GRID = ["--grid=optimizer.peak=1e-4,3e-4", "--grid", "optimizer.ema=0.9,0.99", "--seeds=2"]
SWEEP = """
def sweep():
    yield {"optimizer.peak": 1e-4, "env.tasks": ("reach-v3", "push-v3")}
    yield {"data.cameras": {"image": "wrist image"}, "policy.cameras": ("image",)}

def numpy():
    import numpy as np
    for peak, warmup in zip(np.geomspace(1e-4, 1e-3, 2), np.array([10, 20])):
        yield {"optimizer.peak": peak, "optimizer.warmup": warmup, "data.delta": (np.int64(2), -1)}

def wrong():
    yield {"steps": 3}
    yield {"optimizer.peek": 3}

def impossible():
    yield {"policy.attention.kv_heads": 4}
    yield {"policy.attention.kv_heads": 3}

def no_dict():
    yield "optimizer.peak"

def empty():
    return []

NO_FUNCTION = 3
"""

LINES = {
    "count": [*GRID, "--count"],
    "list": [*GRID, "--list", "--json"],
    "dry run": [*GRID, "--dry-run", "--output=runs/mine"],
    "evaluated": [*GRID, "--dry-run", "--output=runs/mine", "--evaluate", "--episodes=7", "--index=5"],
    "elsewhere": [*GRID, "--list", "--json", "--config.data.path=/other/disk", "--config.log.every=7",
                  "--config.mesh.fsdp=2"],
    "other data order": [*GRID, "--list", "--json", "--config.batch_size=16"],
    "paths": ["--grid=data.path=a/b,a/c", "--list", "--json"],
    "no axes": ["--list", "--json"],
    "tuples": ["--grid=env.tasks=('a','b'),('c',)", "--list", "--json"],
    "configs": ["--grid=config=configs/pi0_metaworld.py,configs/pi05_metaworld.py", "--dry-run"],
    "file": ["--sweep={file}", "--seeds=2", "--dry-run"],
    "numpy": ["--sweep={file}:numpy", "--list", "--json"],
    "recorded": ["--sweep=configs/sweeps/learning_rate.py", "--dry-run", "--config.steps=500"],
    "other function": ["--sweep=configs/sweeps/learning_rate.py:batch_size", "--list", "--json"],
}  # fmt: skip
MISTAKES = [
    (["--grid=optimizer.peek=1,2", "--seeds=2"],
     "point 0 (optimizer.peek=1, seed=0): config.optimizer.peek is not a key; did you mean config.optimizer.peak? "
     "(and 3 more points)"),
    (["--grid=steps=5,x"], "point 1 (steps=x): flag --config.steps=x: invalid literal for int()"),
    (["--grid=policy.attention.heads=2,3", "--config.policy.attention.kv_heads=2"],
     "point 1 (policy.attention.heads=3): config.policy.attention.heads = 3 should be a multiple of 2"),
    (["--grid=steps=5,5"], "point 1 (steps=5) is the same run as point 0 (steps=5)"),
    (["--grid=seed=5,6", "--seeds=2"], "seed is swept over twice"),
    (["--grid=steps"], "--grid=steps should be a key and its values, such as --grid=optimizer.peak=1e-4,3e-4"),
    (["--grid=steps=1,2", "--index=2"], "--index=2: the sweep has 2 points, from 0"),
    (["--grid=config=configs/none.py"], "point 0 (config=configs/none.py): --config=configs/none.py is not a file"),
    (["--sweep=none.py"], "--sweep=none.py: none.py is not a file; sweeps are in configs/sweeps/"),
    (["--sweep={file}:other"], "has no function 'other'; it has sweep, numpy, wrong, impossible, no_dict, empty"),
    (["--sweep={file}:NO_FUNCTION"], "has no function 'NO_FUNCTION'"),
    (["--sweep={file}:wrong"], "point 1 (optimizer.peek=3): config.optimizer.peek is not a key"),
    (["--sweep={file}:impossible"],
     "point 1 (policy.attention.kv_heads=3): config.policy.attention.heads = 4 should be a multiple of 3"),
    (["--sweep={file}:no_dict"], "point 0 is 'optimizer.peak'; it should be a dict of config keys"),
    (["--sweep={file}:empty"], "the sweep has no points"),
    (["--grid=seed=1,2", "--evaluate", "--config.env.name="], "point 0 (seed=1): config.env names no simulator"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def results(forked, folder):
    """What each command line gave, those with a mistake behind the others; all of them in one process."""
    file = folder / "sweep.py"
    file.write_text(SWEEP)
    lines = [*LINES.values(), *([*line, f"--output={folder}/mistaken"] for line, _ in MISTAKES)]
    lines = [[*BASE, *(flag.replace("{file}", str(file)) for flag in line)] for line in lines]
    return forked("launch.sweep", lines, warm=("pizero_jax.processes",))  # which an error message needs


@pytest.fixture
def printed(results):
    def of(name: str) -> str:
        result = dict(zip(LINES, results, strict=False))[name]
        assert result.returncode == 0, result.stderr
        return result.stdout

    return of


def test_a_grid_is_every_combination(printed):
    assert printed("count") == "8\n"
    rows = json.loads(printed("list"))
    assert [row["index"] for row in rows] == list(range(8))
    points = [(row["optimizer.peak"], row["optimizer.ema"], row["seed"]) for row in rows]
    assert points == [(peak, ema, seed) for peak in (1e-4, 3e-4) for ema in (0.9, 0.99) for seed in (0, 1)]
    assert {row["state"] for row in rows} == {"not started"}


def names(text: str) -> list[str]:
    return [row["run"] for row in json.loads(text)]


def test_a_name_follows_from_what_a_run_learns_not_from_where(printed):
    assert re.fullmatch(r"peak=0.0003_ema=0.9_seed=1_[0-9a-f]{8}", names(printed("list"))[5])
    assert len(set(names(printed("list")))) == 8
    assert names(printed("elsewhere")) == names(printed("list"))
    assert not set(names(printed("other data order"))) & set(names(printed("list")))


def test_places_that_are_swept_over_are_other_runs(printed):
    first, second = names(printed("paths"))
    assert first != second
    assert first.startswith("path=a-b_")


def test_no_axes_are_one_run(printed):
    [only] = json.loads(printed("no axes"))
    assert len(only["run"]) == 8


def test_values_have_the_type_of_the_config(printed):
    assert [row["env.tasks"] for row in json.loads(printed("tuples"))] == [["a", "b"], ["c"]]


def test_the_dry_run_is_what_the_shell_would_run(printed):
    command = shlex.split(printed("dry run").splitlines()[5])
    assert command == [
        "python", "-m", "launch.train", *BASE, "--config.wandb.group=mine", "--config.optimizer.peak=0.0003",
        "--config.optimizer.ema=0.9", "--config.seed=1",
        f"--workdir=runs/mine/{names(printed('list'))[5]}", "--resume",
    ]  # fmt: skip
    train, evaluate = map(shlex.split, printed("evaluated").splitlines())
    assert train == command
    assert evaluate[2:] == ["launch.evaluate", f"--checkpoint={command[-2].removeprefix('--workdir=')}", "--episodes=7"]


def test_the_sweep_that_comes_along_gives_the_recorded_commands(printed):
    """But for the hashes, which change with every key that configs get."""
    commands = re.sub(r"_[0-9a-f]{8} ", "_HASH ", printed("recorded"))
    assert commands == (Path(__file__).parent / "recorded" / "sweep.txt").read_text()
    sizes = [row["batch_size"] for row in json.loads(printed("other function"))]
    assert sizes == [16, 32, 64]


def test_any_value_survives_the_command_line(printed):
    """What the shell makes of the printed line is parsed by the training command's own flags."""
    from launch.points import parse

    lines = [shlex.split(line) for line in printed("file").splitlines()]
    configs = [parse([flag for flag in line if flag.startswith("--config")]) for line in lines]
    assert [config.seed for config in configs] == [0, 1, 0, 1]
    assert configs[0].env.tasks == ("reach-v3", "push-v3")
    assert configs[2].data.cameras.to_dict() == {"image": "wrist image"}
    assert configs[2].policy.cameras == ("image",)


def test_numbers_may_be_numpy_s(printed):
    rows = json.loads(printed("numpy"))
    keys = ("optimizer.peak", "optimizer.warmup", "data.delta")
    assert [[row[key] for key in keys] for row in rows] == [[1e-4, 10, [2, -1]], [1e-3, 20, [2, -1]]]


def test_a_point_may_have_another_config_file(printed):
    first, second = printed("configs").splitlines()
    assert " --config=configs/pi0_metaworld.py " in first
    assert " --config=configs/pi05_metaworld.py " in second


def test_a_mistake_in_one_point_is_one_line_and_starts_nothing(results, folder):
    for (line, message), result in zip(MISTAKES, results[len(LINES) :], strict=True):
        assert result.returncode == 2, line
        assert result.stderr.startswith("error: "), line
        assert message in result.stderr, line
        assert result.stderr.count("\n") == 1, line
    assert not (folder / "mistaken").exists()


# Stands for `python -m launch.train`, whose arguments it gets. A point's seed says what befalls it.
STAND_IN = """#!{python}
import json, os, pathlib, re, signal, sys, time
assert sys.argv[1:3] == ["-m", "launch.train"] and sys.argv[-1] == "--resume", sys.argv
line = " ".join(sys.argv)
workdir = pathlib.Path(re.search(r"--workdir=(\\S+)", line)[1])
seed, steps = int(re.search(r"config.seed=(\\d+)", line)[1]), int(re.search(r"config.steps=(\\d+)", line)[1])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
workdir.mkdir(parents=True, exist_ok=True)
with (workdir / "starts").open("a") as file:
    file.write(f"{{os.getpid()}} {{time.time()}}\\n")
os.mkdir(workdir / "busy")  # fails if another one writes here
done = len(list(workdir.glob("checkpoints/*")))
status = 0
for step in range(done + 1, steps + 1):
    if seed == 3:
        print("error: always"), os.rmdir(workdir / "busy"), sys.exit(2)
    time.sleep(0.02 if seed < 5 else 0.3)
    (workdir / f"checkpoints/{{step}}").mkdir(parents=True)
    (workdir / f"checkpoints/{{step}}/manifest.sha256").touch()
    if (seed == 1 and step == 2) or stopped:
        status = 7 if seed == 1 else {resume}
        break
while stopped and (workdir.parent / "hold").exists():  # saves
    time.sleep(0.02)
os.rmdir(workdir / "busy")
sys.exit(status)
"""


class Sweep:
    """The command, with the stand-in for Python when it starts training."""

    def __init__(self, folder: Path):
        self.folder = folder
        program = folder / "stand_in"
        program.write_text(STAND_IN.format(python=sys.executable, resume=RESUME))
        program.chmod(0o755)
        self._source = (
            f"import sys; sys.executable = {str(program)!r}\nimport launch\nfrom launch import sweep\n"
            "launch.run(sweep.main)"
        )

    def start(self, *flags: str) -> subprocess.Popen:
        line = [sys.executable, "-c", self._source, *BASE, f"--output={self.folder}/runs", *flags]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *flags: str) -> tuple[int, str]:
        process = self.start(*flags)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def starts(self) -> dict[str, int]:
        files = (self.folder / "runs").glob("*/starts")
        return {file.parent.name: len(file.read_text().splitlines()) for file in sorted(files)}

    def checkpoints(self) -> int:
        return len(list((self.folder / "runs").glob("*/checkpoints/*")))

    def wait_for(self, count: int) -> None:
        deadline = time.time() + 60
        while self.checkpoints() < count:
            assert time.time() < deadline
            time.sleep(0.02)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_what_is_finished_is_skipped_and_what_died_with_progress_goes_on(sweep):
    flags = ["--grid=seed=0,1,2", "--config.steps=4", "--parallel=2"]
    status, said = sweep.run(*flags)
    assert status == 0, said
    assert "3 of 3 runs are finished" in said
    assert list(sweep.starts().values()) == [1, 2, 1]  # seed 1 dies at its second step
    status, said = sweep.run(*flags)
    assert status == 0
    assert said.count("finished\n") == 3
    assert list(sweep.starts().values()) == [1, 2, 1]
    status, said = sweep.run("--grid=seed=0,1,2", "--config.steps=4", "--config.log.every=3")
    assert list(sweep.starts().values()) == [1, 2, 1], "the same runs"


def test_a_run_that_fails_is_named_and_the_others_go_on(sweep):
    status, said = sweep.run("--grid=seed=3,0", "--config.steps=2")
    assert status == 1
    assert "point 0 (seed=3): failed with status 2: error: always" in said
    assert "1 of 2 runs are finished" in said
    assert list(sweep.starts().values()) == [1, 1]


def test_told_to_stop_it_lets_its_runs_save_and_goes_on_later(sweep):
    flags = ["--grid=seed=5,6,7", "--config.steps=5", "--parallel=2"]
    process = sweep.start(*flags)
    sweep.wait_for(2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == RESUME, said
    assert len(sweep.starts()) == 2
    assert not list((sweep.folder / "runs").glob("*/busy")), "none was left behind"
    status, said = sweep.run(*flags)
    assert status == 0, said
    assert list(sweep.starts().values()) == [2, 2, 1]
    assert sweep.checkpoints() == 15


def test_killed_it_leaves_no_run_with_two_writers(sweep):
    """What it had started is told to end and still saves when the next sweep comes, which waits for that."""
    flags = ["--grid=seed=5,6", "--config.steps=5", "--parallel=2"]
    process = sweep.start(*flags)
    sweep.wait_for(2)
    hold = sweep.folder / "runs/hold"
    hold.touch()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = sweep.start(*flags)
    assert "another process still works on it" in process.stderr.readline()
    hold.unlink()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert list(sweep.starts().values()) == [2, 2]
    assert sweep.checkpoints() == 10


def test_an_element_of_an_array_becomes_its_training(sweep):
    flags = ["--grid=seed=3,5", "--config.steps=3"]
    status, said = sweep.run(*flags, "--index=0")
    assert status == 2
    process = sweep.start(*flags, "--index=1")
    sweep.wait_for(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == RESUME, "that of training"
    assert [sweep.run(*flags, "--index=1")[0] for _ in range(2)] == [0, 0]
    assert list(sweep.starts().values()) == [1, 2]


def test_every_run_at_a_time_has_its_own_gpus(monkeypatch):
    from launch.runs import gpus
    from pizero_jax.errors import InputError

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(2, 0) == [{}, {}]
    assert gpus(2, 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpus(2, 1) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "6"}]
    with pytest.raises(InputError, match="--parallel=3 x --gpus_each=1 are more than CUDA_VISIBLE_DEVICES=4,6"):
        gpus(3, 1)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PIZERO_NIGHTLY"), reason="PIZERO_NIGHTLY=1 asks for it")
def test_a_sweep_over_two_seeds_is_killed_and_completed(tmp_path):
    """Real training of eight runs; killed when the third has begun."""
    flags = [*TRAIN[3:], f"--config.compile_cache={tmp_path / 'compiled'}", f"--output={tmp_path / 'runs'}", *GRID]
    line = [sys.executable, "-m", "launch.sweep", *flags, "--parallel=2"]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 600
    while len(list((tmp_path / "runs").glob("*/checkpoints/*/manifest.sha256"))) < 5:
        assert time.time() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    runs = sorted(path.parent for path in (tmp_path / "runs").glob("*/config.json"))
    assert len(runs) == 8
    for run in runs:
        steps = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 13))
