"""Serving and evaluating through the server by the commands that users run, with a policy of random weights."""

import contextlib
import dataclasses
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from pizero_jax import policies
from pizero_jax.config import TrainConfig, build
from pizero_jax.data import normalize
from pizero_jax.train.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A checkpoint for the toy, of a network of one layer."""
    c = base.get_config()
    c.policy.update(dict(dtype="float32", remat="none", cameras=("image", "wrist_image"), image_size=16))
    c.policy.update(dict(prompt_length=24, state_dim=2, action_dim=2, chunk=4, num_steps=2))
    c.policy.vision.update(dict(patch=8, width=16, depth=1, mlp=16, heads=2))
    c.policy.attention.update(dict(depth=1, heads=2, kv_heads=1, head_dim=8))
    c.policy.language.update(dict(width=16, mlp=16, vocabulary=259))
    c.policy.expert.update(dict(width=16, mlp=16))
    c.data.cameras = dict(image="image", wrist_image="wrist_image")
    c.data.wrist_cameras = ()
    c.compile_cache = ""
    c.env.update(dict(name="reach_toy", tasks=("reach-red",), image_size=16, max_steps=12, execute=2))
    config = build(TrainConfig, c)
    policy = policies.make(config.policy, config.loss)
    groups = {name: normalize.Statistics.of(np.random.default_rng(0).uniform(-1, 1, (50, 2))) for name in
              ("state", "actions")}  # fmt: skip
    metadata = {
        "config": dataclasses.asdict(config),
        "statistics": normalize.to_saved({"": groups}),
        "action_tokens": None,
        "versions": {"jax": jax.__version__},
    }
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    params = nn.unbox(jax.jit(policy.init)(jax.random.key(0)))
    Checkpoints(folder, config.checkpoint).save_params(params, metadata)
    return folder


@contextlib.contextmanager
def served(workdir, *flags):
    """`launch.serve` in a process of its own: (process, address, a function that waits for a line of its log)."""
    line = [sys.executable, "-m", "launch.serve", f"--checkpoint={workdir}", "--port=0", "--batches=1", *flags]
    environment = os.environ | {"PIZERO_API_KEYS": "secret"}
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    log = b""

    def wait_for(pattern, seconds=240):
        nonlocal log
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, log.decode())):
            ready, *_ = select.select([process.stderr], [], [], max(0, until - time.monotonic()))
            data = os.read(process.stderr.fileno(), 65536) if ready else b""
            assert data, log.decode()
            log += data
        return found

    try:
        yield process, wait_for(r"on (ws://\S+) \(API key needed\)")[1], wait_for
    finally:
        process.kill()
        process.wait()


def test_a_server_gives_the_same_episodes_takes_a_newer_checkpoint_and_goes_when_told(
    forked, workdir, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    flags = [
        "--episodes=1",
        "--num_steps=3",
        "--solver=heun",
        "--latency_ms=10",
        "--jitter_ms=10",
        "--hz=100",
        "--real_time",
        "--json",
    ]
    with served(run, "--num_steps=2,3:heun", "--real_time", "--threads=3") as (process, address, wait_for):
        names = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/comm")]
        assert sum("XLAEigen" in name for name in names) == 3
        monkeypatch.setenv("PIZERO_API_KEY", "secret")
        here, there, uncompiled = forked(
            "launch.evaluate",
            [
                [f"--checkpoint={run}", *flags],
                [f"--server={address}", f"--output={tmp_path / 'there'}", *flags],
                [f"--server={address}", f"--output={tmp_path / 'no'}", "--num_steps=4"],
            ],
        )
        assert there.returncode == 0, there.stderr
        here, there_too = json.loads(here.stdout), json.loads(there.stdout)
        for kind in ("tasks", "blind"):
            score, other = here[kind]["reach-red"], there_too[kind]["reach-red"]
            for key in ("jerk", "jerk_at_borders"):  # the compiled programs may order sums differently
                assert score.pop(key) == pytest.approx(other.pop(key), rel=1e-4) != 0
        assert here["settings"].pop("server") is None
        assert there_too["settings"].pop("server") == address
        assert here == there_too
        assert here["settings"]["weights"] == "float32"
        assert here["settings"]["hz"] == 100
        assert (tmp_path / "there" / "evaluation.json").exists()
        assert uncompiled.returncode == 2
        assert "are none of those that the server was started with: 2 euler, 3 heun" in uncompiled.stderr
        shutil.copytree(run / "checkpoints" / "0", run / "checkpoints" / "5")
        params = run / "checkpoints" / "5" / "params"
        params.rename(tmp_path / "away")  # as on a disk that does not answer for a moment
        process.send_signal(signal.SIGHUP)
        wait_for("a newer checkpoint could not be taken, step 0 goes on acting")
        (tmp_path / "away").rename(params)
        process.send_signal(signal.SIGHUP)
        wait_for("step 5 acts from now on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_what_cannot_be_served_is_one_clear_line(forked, workdir, tmp_path):
    here, certificate = f"--checkpoint={workdir}", tmp_path / "none.pem"
    serve = [
        ([], "--checkpoint is missing"),
        ([here, "--batches=0,2"], "--batches=0,2 should be whole numbers from 1 to 1000"),
        ([here, "--batches="], "--batches"),
        ([here, "--num_steps=2,x"], "--num_steps=x should be whole numbers"),
        ([here, "--num_steps=2:rk45"], "'rk45' is none of the solvers euler, midpoint, heun, rk4, ddim"),
        ([here, "--cameras=image,side"], "--cameras: 'side' is none of the checkpoint's, which are image, wrist_image"),
        ([here, "--replay=/nowhere:3"], "--replay=/nowhere:3: config.data.path = '/nowhere' has neither"),
        ([here, "--tls_key=x"], "--tls_certificate and --tls_key belong together"),
        ([here, f"--tls_certificate={certificate}", "--tls_key=x"], f"--tls_certificate={certificate}: there is no"),
        ([here, f"--tls_certificate={__file__}", "--tls_key=x"], "--tls_key=x: there is no such file"),
        ([here, "--batches=1", "--num_steps=1", f"--default_prompt={30 * 'x'}"], "--default_prompt: the prompt takes"),
        ([f"--checkpoint={tmp_path}"], f"--checkpoint={tmp_path}: there is no folder checkpoints"),
        ([f"--checkpoint={tmp_path}/none"], f"--checkpoint={tmp_path}/none: there is no such folder"),
        ([f"--checkpoint={workdir}/checkpoints/0"], f"give the --workdir of a training run, perhaps {workdir}"),
    ]
    evaluate = [
        ([here, "--latency_ms=9"], "--hz is missing"),
        ([here, "--latency_ms=20", "--jitter_ms=9", "--hz=100"], "up to 3 actions late; a chunk has 2 to go on with"),
        ([here, "--latency_ms=20", "--hz=100", "--execute=1"], "asked for before the last one is there"),
        ([here, "--latency_ms=20", "--hz=100", "--real_time", "--execute=9"], "--execute=9 is more than"),
        ([here, f"--output={__file__}"], f"--output={__file__}: {__file__} is no folder that can be written to"),
        (["--server=ws://localhost:1", here], "--checkpoint is chosen where the server"),
        (["--server=ws://localhost:1"], "--output is missing"),
        (["--server=localhost:1", f"--output={tmp_path}"], "--server=localhost:1: localhost:1 is no address"),
    ]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("unsaved")
    export = [
        ([here, f"--output={tmp_path / 'full'}"], "is not empty; name a new folder"),
        ([here, f"--output={tmp_path / 'new'}", "--weights=int8"], "recorded observations: --data names them"),
        ([here, f"--output={tmp_path / 'new'}", "--platforms=cpu,abacus"], "--platforms=abacus; known: cpu, cuda"),
    ]
    commands = (("launch.serve", serve), ("launch.evaluate", evaluate), ("launch.export_policy", export))
    for command, cases in commands:
        for (flags, words), result in zip(cases, forked(command, [case[0] for case in cases]), strict=True):
            assert result.returncode == 2, flags
            assert result.stderr.splitlines()[-1].startswith("error: "), result.stderr
            assert words in result.stderr


def test_keys_that_were_left_empty_do_not_open_the_server(forked, workdir, monkeypatch):
    monkeypatch.setenv("PIZERO_API_KEYS", " ,")
    (refused,) = forked("launch.serve", [[f"--checkpoint={workdir}", "--port=0", "--batches=1"]])
    assert refused.returncode == 2
    assert "the environment variable PIZERO_API_KEYS has no key in it" in refused.stderr
